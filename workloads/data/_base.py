"""What every data source is to a run: splits, what they decide of the model, and the way back to people."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as L
import torch

from workloads._machine import Machine
from workloads.data._batches import Batches, Examples, InMemory


@dataclass(frozen=True)
class Inputs:
    """A person's inputs, encoded.

    Args:
        names: What to call each in the answer, e.g. its file name or row number.
        examples: The encoded inputs, with the columns of a split but for the target.
    """

    names: list[str]
    examples: Examples


class DataModule(L.LightningDataModule, ABC):
    """A data source.

    A subclass names its keys in ``__init__`` (among them ``batch_size``) and implements :meth:`load`, :meth:`encode`
    and :meth:`answers`. What it learns from the training split (statistics, class names) belongs to its ``state_dict``:
    it is kept in the checkpoint, and ``load`` must use it as it stands when it has been restored. What the data decides
    of the model it offers as attributes, which a workload's ``links`` name.

    Attributes:
        seed: The run's seed; decides the order of batches.
        machine: What was decided of device and transfer.
        splits: ``train``, ``validation``, ``test``, once set up.
        skipped: Bad rows left out, by ``--data.on_error skip``.
        metric: The test metric to quote, where the data decides it.
        needs_inputs: Whether ``raydeck predict`` is of no use without inputs.
    """

    batch_size: int
    metric: str | None = None
    needs_inputs = True

    def __init__(self) -> None:
        super().__init__()
        self.seed = 0
        self.machine = Machine()
        self.splits: dict[str, Examples] = {}
        self.skipped = 0

    @abstractmethod
    def load(self, whole: bool = False) -> dict[str, Examples]:
        """Read the source and return its splits.

        Args:
            whole: Return everything as the one split ``test``, unless the source brings a test split of its own.

        Raises:
            ValueError: The source or a row of it is at fault; one line that names it and the mend.
        """

    @abstractmethod
    def encode(self, inputs: Sequence[str]) -> Inputs:
        """Encode what a person gives to ``raydeck predict``.

        A subclass's keyword-only arguments are flags of ``raydeck predict``, as are those of a module's
        ``predict_step``; ``Args:`` is their help.

        Raises:
            ValueError: An input is missing or broken; one line that names it.
        """

    @abstractmethod
    def answers(self, outputs: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
        """What a person would read, one JSON-safe mapping an example, from the module's ``predict_step`` outputs."""

    def spoken(self, outputs: dict[str, torch.Tensor]) -> str:
        """What a person may read at once of one step's outputs, where ``predict_step`` yields them step by step."""
        return ""

    def marked(self, answers: list[dict[str, Any]]) -> list[tuple[str, list[tuple[str, float]]]]:
        """Texts to print below the table of answers, with parts of them marked.

        Returns:
            For each its title, and the text in pieces: -1 marks one that speaks strongly against the answer, 1 one that
            speaks strongly for it, 0 leaves it unmarked.
        """
        return []

    def picture(self, inputs: Inputs, answers: list[dict[str, Any]], path: Path) -> bool:
        """Draw inputs and answers as a PNG at ``path``; False where there is nothing to draw."""
        return False

    def setup(self, stage: str | None = None) -> None:
        """Load once. ``stage="whole"`` loads for evaluation on other data: see :meth:`load`."""
        if not self.splits:
            self.splits = self.load(whole=stage == "whole")

    def train_dataloader(self) -> Batches:
        return self.batches("train", shuffle=True)

    def val_dataloader(self) -> Batches:
        return self.batches("validation")

    def test_dataloader(self) -> Batches:
        return self.batches("test")

    def batches(self, split: str, shuffle: bool = False) -> Batches:
        """The batches of this process's rank."""
        examples = self.splits[split]
        if isinstance(examples, InMemory) and self.machine.holds(examples.num_bytes):
            examples = self.splits[split] = examples.to(torch.device("cuda", torch.cuda.current_device()))
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        # Twice the workers, so that each rank has an example of every batch of an evaluation, whatever the set's size.
        batch_size = self.batch_size if shuffle else max(self.batch_size, 2 * world_size)
        try:
            return Batches(
                examples,
                batch_size,
                seed=self.seed,
                shuffle=shuffle,
                rank=rank,
                world_size=world_size,
                pin_memory=self.machine.pin_memory,
            )
        except ValueError as error:
            raise ValueError(f"the {split} split: {error}") from None
