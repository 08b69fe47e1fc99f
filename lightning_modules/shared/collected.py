"""What a module makes of a split, collected over its batches and from all ranks, for the data to judge."""

from collections.abc import Sequence

from pytorch_lightning import LightningModule
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class Collected(Metric):
    """Tensors by name, each with the example as its first dimension.

    Args:
        names: Of what is collected.
    """

    full_state_update = False

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        for name in self.names:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, **tensors: Tensor) -> None:
        """Add a batch."""
        for name in self.names:
            getattr(self, name).append(tensors[name])

    def compute(self) -> dict[str, Tensor]:
        """All batches of all ranks end to end, on the CPU."""
        return {name: dim_zero_cat(getattr(self, name)).cpu() for name in self.names}


def scored(module: LightningModule, split: str, collected: Collected, **more: Tensor) -> dict[str, float]:
    """What the data's judge says of all that is collected, which is then forgotten; the same on every rank.

    Rank 0 alone asks, as a judge may take its time.

    Args:
        module: A module that is attached to a trainer.
        split: ``validation`` or ``test``.
        collected: What it has made.
        more: Further tensors for the judge.

    Returns:
        ``val/<name>`` or ``test/<name>`` to value.
    """
    trainer, outputs = module.trainer, collected.compute() | more
    collected.reset()
    scores = trainer.datamodule.scores(split, outputs) if trainer.is_global_zero else None
    name = "val" if split == "validation" else split
    return {f"{name}/{key}": value for key, value in trainer.strategy.broadcast(scores).items()}
