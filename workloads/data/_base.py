"""What every data source is to a run: splits, what they decide of the model, and the way back to people."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytorch_lightning as L
import torch

from workloads._machine import Machine
from workloads.data._batches import Batch, Batches, Examples, InMemory, Loader

Scorer = Callable[["DataModule", str, dict[str, torch.Tensor]], dict[str, float]]
"""See :meth:`DataModule.scores`."""


@dataclass(frozen=True)
class Inputs:
    """A person's inputs, encoded.

    Args:
        names: What to call each in the answer, e.g. its file name or row number.
        examples: The encoded inputs, with the columns of a split but for the target.
    """

    names: list[str]
    examples: Examples


class Reader(ABC):
    """The way from a person's words to a network and back: what ``raydeck predict`` asks.

    Attributes:
        needs_inputs: Whether ``raydeck predict`` is of no use without inputs.
        drawn_as: What :meth:`picture` writes, as a file name's ending.
    """

    needs_inputs = True
    drawn_as = ".png"

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
        """What a person would read, one mapping an example, from the module's ``predict_step`` outputs.

        Its values are JSON-safe, but for arrays: those are pictures, of use to :meth:`picture` alone.
        """

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
        """Draw inputs and answers at ``path``; False where there is nothing to draw."""
        return False


class DataModule(L.LightningDataModule, Reader):
    """A data source.

    A subclass names its keys in ``__init__`` (among them ``batch_size``) and implements :meth:`load`, and what a
    :class:`Reader` is. What it learns from the training split (statistics, class names) belongs to its ``state_dict``:
    it is kept in the checkpoint, and ``load`` must use it as it stands when it has been restored. What the data decides
    of the model it offers as attributes, which a workload's ``links`` name.

    Attributes:
        seed: The run's seed; decides the order of batches.
        machine: What was decided of device and transfer.
        splits: ``train``, ``validation``, ``test``, once set up.
        skipped: Bad rows left out, by ``--data.on_error skip``.
        metric: The test metric to quote, where the data decides it.
        signatures: Metric to how exactly it is computed, where that has a notation.
        scorer: What :meth:`scores` asks; a workload's own.
        concerns: What a person should be told of the last scores at once.
        unit: What is counted as a run trains, as in "examples/s".
        cost: What its own part of a checkpoint costs, in words, if it is worth a word.
    """

    batch_size: int
    metric: str | None = None
    signatures: Mapping[str, str] = MappingProxyType({})
    scorer: Scorer | None = None
    unit = "examples"

    def __init__(self) -> None:
        super().__init__()
        self.seed = 0
        self.machine = Machine()
        self.splits: dict[str, Examples] = {}
        self.skipped = 0
        self.concerns: list[str] = []
        self.cost = ""

    @abstractmethod
    def load(self, whole: bool = False) -> dict[str, Examples]:
        """Read the source and return its splits.

        Args:
            whole: Return everything as the one split ``test``, unless the source brings a test split of its own.

        Raises:
            ValueError: The source or a row of it is at fault; one line that names it and the mend.
        """

    def scores(self, split: str, outputs: dict[str, torch.Tensor]) -> dict[str, float]:
        """Metrics of what a module has made for a split, where it takes the data to judge it.

        Args:
            split: ``validation`` or ``test``.
            outputs: Of all examples and all ranks, in any order. Of written sequences: ``tokens`` end to end,
                ``length`` of each example's, shape (N,), and ``example``, its number in the split, (N,).

        Returns:
            Name, without the split, to value; the same on every rank.
        """
        if self.scorer is None:
            raise NotImplementedError(f"{type(self).__name__} has nothing to judge by")
        return self.scorer(self, split, outputs)

    def attach(self, model: L.LightningModule) -> None:
        """Give a module what it needs of the data besides batches; called once, before either is used."""
        return

    def weight(self, batch: Batch) -> int:
        """How many of ``unit`` a training batch of this rank counts for."""
        return len(next(iter(batch.values())))

    def counts(self) -> dict[str, float | int]:
        """Further columns of ``metrics.csv`` for the epoch that ends; called once an epoch, on every rank."""
        return {}

    def setup(self, stage: str | None = None) -> None:
        """Load once. ``stage="whole"`` loads for evaluation on other data: see :meth:`load`."""
        if not self.splits:
            self.splits = self.load(whole=stage == "whole")

    def train_dataloader(self) -> Loader:
        return self.batches("train", shuffle=True)

    def val_dataloader(self) -> Loader:
        return self.batches("validation")

    def test_dataloader(self) -> Loader:
        return self.batches("test")

    def batches(self, split: str, shuffle: bool = False) -> Loader:
        """The batches of this process's rank."""
        examples = self.splits[split]
        if isinstance(examples, InMemory) and self.machine.holds(examples.num_bytes):
            examples = self.splits[split] = examples.to(torch.device("cuda", torch.cuda.current_device()))
        if shuffle and self.trainer and 0 < self.trainer.max_epochs <= examples.unlabelled_epochs:
            raise ValueError(
                f"data.unlabelled_epochs: {examples.unlabelled_epochs} of {self.trainer.max_epochs} epochs leave none "
                f"with labels; set --trainer.max_epochs to at least {examples.unlabelled_epochs + 1}"
            )
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
