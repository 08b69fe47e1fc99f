"""The batch engine: who sees which example when, decided by (seed, epoch, batch, rank) and nothing else.

Shapes: N examples of a split, K batches of an epoch, B examples of a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Self

import numpy as np
import torch
from torch import Tensor

Batch = dict[str, Tensor]
"""Column name to a tensor whose first dimension is the example."""

BUCKET_BATCHES = 50
"""Examples are sorted by length within this many shuffled batches: long enough to pad little, short enough to mix."""


class Examples(ABC):
    """A split: something that hands out many examples at once.

    Attributes:
        num_bytes: Memory that its tensors take, or would take.
        lengths: Length of each example, shape (N,), where they vary: like lengths then share a batch.
        labelled: Those with a label, as ascending positions, where not all have one.
        unlabelled_epochs: Epochs that hand out all examples; later ones hand out the ``labelled`` alone, over and over
            again, until there are as many batches as in any other.
    """

    num_bytes: int
    lengths: Tensor | None = None
    labelled: Tensor | None = None
    unlabelled_epochs: int = 0

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def gather(self, index: Tensor) -> Batch:
        """The examples at ``index`` (int64, on the CPU), in that order."""

    def plan(self, batch_size: int, *, seed: int, epoch: int, shuffle: bool) -> list[Tensor]:
        """Cut an epoch into batches, over all workers; a split with an order of its own overrides this.

        Args:
            batch_size: Most examples of a batch.
            seed: Decides the order, together with ``epoch``.
            epoch: Passes over the data before this one.
            shuffle: Whether to mix the examples.

        Returns:
            K index tensors; K is the same in every epoch.
        """
        if shuffle and self.labelled is not None and epoch >= self.unlabelled_epochs:
            return plan_over_and_over(self.labelled, len(self), batch_size, seed=seed, epoch=epoch)
        return plan_epoch(len(self), batch_size, seed=seed, epoch=epoch, shuffle=shuffle, lengths=self.lengths)


class InMemory(Examples):
    """Examples held as tensors.

    Args:
        columns: Name to tensor; all have the same first dimension.

    Raises:
        ValueError: The columns' lengths differ.
    """

    def __init__(self, columns: Batch) -> None:
        if len({len(column) for column in columns.values()}) != 1:
            raise ValueError(f"columns of different lengths: { {k: len(v) for k, v in columns.items()} }")
        self.columns = columns
        self.num_bytes = sum(column.nbytes for column in columns.values())

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def gather(self, index: Tensor) -> Batch:
        return {name: _take(column, index) for name, column in self.columns.items()}

    def to(self, device: torch.device) -> Self:
        moved = type(self)({name: column.to(device) for name, column in self.columns.items()})
        moved.labelled, moved.unlabelled_epochs = self.labelled, self.unlabelled_epochs
        return moved


def _take(column: Tensor, index: Tensor) -> Tensor:
    if column.is_cuda:
        return column[index.to(column.device, non_blocking=True)]
    # Not index_select: it spreads a copy of microseconds over all threads, and waits for them when cores are shared.
    return torch.from_numpy(np.take(column.numpy(), index.numpy(), axis=0))


def plan_epoch(
    num_examples: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    shuffle: bool,
    lengths: Tensor | None = None,
) -> list[Tensor]:
    """Cut an epoch into batches.

    Every example is in exactly one batch. Batch sizes differ by at most one, so that there is no tiny last batch to
    upset batch statistics, and never exceed ``batch_size``.

    Args:
        num_examples: N.
        batch_size: Most examples of a batch, over all workers.
        seed: Decides the order, together with ``epoch``.
        epoch: Passes over the data before this one.
        shuffle: Whether to mix the examples.
        lengths: Length of each example, shape (N,); like lengths then share a batch.

    Returns:
        K index tensors.
    """
    num_batches = -(-num_examples // batch_size)
    generator = torch.Generator().manual_seed(mixed(seed, epoch))
    order = torch.randperm(num_examples, generator=generator) if shuffle else torch.arange(num_examples)
    if lengths is not None:
        window = BUCKET_BATCHES * batch_size if shuffle else num_examples
        order = torch.cat([part[lengths[part].argsort(stable=True)] for part in order.split(window)])
    batches = list(order.tensor_split(num_batches))
    if lengths is not None and shuffle:
        batches = [batches[k] for k in torch.randperm(num_batches, generator=generator)]
    return batches


def plan_over_and_over(some: Tensor, num_examples: int, batch_size: int, *, seed: int, epoch: int) -> list[Tensor]:
    """Cut an epoch of some of the examples into as many batches as there are of all.

    Passes over them follow one another, each in an order of its own; a batch may hold the end of one and the beginning
    of the next, and so an example twice.

    Args:
        some: Positions of the examples to hand out.
        num_examples: N, of all.
        batch_size: Most examples of a batch, over all workers.
        seed: Decides the order, together with ``epoch``.
        epoch: Passes over the data before this one.

    Returns:
        K index tensors of the sizes that :func:`plan_epoch` gives.
    """
    generator = torch.Generator().manual_seed(mixed(seed, epoch))
    passes = [torch.randperm(len(some), generator=generator) for _ in range(-(-num_examples // len(some)))]
    order = some[torch.cat(passes)[:num_examples]]
    return list(order.tensor_split(-(-num_examples // batch_size)))


def mixed(*parts: int) -> int:
    """One well-mixed 63-bit seed from several small numbers."""
    return int(np.random.SeedSequence([p & 0xFFFFFFFF for p in parts]).generate_state(1, np.uint64)[0] >> 1)


class Loader(ABC):
    """An epoch's batches of one rank, with a place that can be saved and returned to.

    Attributes:
        epoch: The epoch that is being handed out; -1 before the first.
        next_batch: The batch of it that comes next.
    """

    def __init__(self, num_batches: int) -> None:
        self.num_batches = num_batches
        self.epoch, self.next_batch, self.resumes = -1, 0, False

    def __len__(self) -> int:
        return self.num_batches

    @abstractmethod
    def __iter__(self) -> Iterator[Batch]: ...

    def begin(self) -> int:
        """Begin the next epoch, or go on with one that was loaded; returns the batch that comes next."""
        # Lightning stops at len() without exhausting an iterator, so the epoch is counted when one begins.
        if self.resumes:
            self.resumes = False
        else:
            self.epoch, self.next_batch = self.epoch + 1, 0
        return self.next_batch

    def state_dict(self) -> dict[str, int]:
        """Where this loader is: the epoch, and the batch it would hand out next."""
        return {"epoch": self.epoch, "next_batch": self.next_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from ``state``: the next iteration hands out the rest of that epoch, or the following one."""
        self.epoch, self.next_batch = state["epoch"], state["next_batch"]
        self.resumes = 0 < self.next_batch < self.num_batches


class Batches(Loader):
    """An epoch's batches of a split, whole batches at a time.

    ``batch_size`` is global: batch k of epoch e holds the same examples at every world size, and rank r takes every
    ``world_size``-th of them. A shuffled loader also seeds PyTorch's generators before each batch from (seed, epoch,
    batch, rank), so that augmentation and dropout after a resume are those of an uninterrupted run, on every rank.

    Args:
        examples: The split.
        batch_size: Most examples of a batch, over all ranks.
        seed: The run's seed.
        shuffle: Mix the examples anew in every epoch.
        rank: This worker.
        world_size: All workers.
        pin_memory: Hand out tensors in page-locked memory.

    Raises:
        ValueError: The split is empty, or too small for every rank to get an example of each batch.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = False,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"data.batch_size: expected at least 1, got {batch_size}")
        if len(examples) == 0:
            raise ValueError("an empty split has no batches")
        self.examples, self.batch_size, self.pin_memory = examples, batch_size, pin_memory
        self.seed, self.shuffle, self.rank, self.world_size = seed, shuffle, rank, world_size
        self.planned, self.plan = 0, self._plan(0)
        super().__init__(len(self.plan))
        if min(map(len, self.plan)) < world_size:
            raise ValueError(
                f"{len(examples)} examples in batches of {batch_size} leave some of {world_size} workers without any; "
                "use fewer workers or a larger data.batch_size"
            )

    def _plan(self, epoch: int) -> list[Tensor]:
        return self.examples.plan(self.batch_size, seed=self.seed, epoch=epoch, shuffle=self.shuffle)

    def __iter__(self) -> Iterator[Batch]:
        start = self.begin()
        epoch = self.epoch if self.shuffle else 0
        if epoch != self.planned:
            self.planned, self.plan = epoch, self._plan(epoch)
        for k in range(start, self.num_batches):
            batch = self.examples.gather(self.plan[k][self.rank :: self.world_size])
            if self.pin_memory:
                batch = {name: c if c.is_cuda else c.pin_memory() for name, c in batch.items()}
            if self.shuffle:
                torch.manual_seed(mixed(self.seed, epoch, k, self.rank))
            self.next_batch = k + 1
            yield batch
