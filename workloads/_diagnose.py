"""How far back a module's gradients reach, measured on real data. Needs no cluster.

Shapes: B examples, D distances.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as L
import torch

from lightning_modules.shared.gradients import norms
from workloads._spec import Config, Workload
from workloads.data._base import DataModule

CELLS = {
    "rnn-sigmoid": {"model.cell": "rnn", "model.activation": "sigmoid"},
    "rnn-relu": {"model.cell": "rnn", "model.activation": "relu"},
    "rnn-tanh": {"model.cell": "rnn", "model.activation": "tanh"},
    "gru": {"model.cell": "gru"},
    "lstm": {"model.cell": "lstm"},
}
"""Recurrent cells that are compared, and what makes a module use each."""

READING = {"model.pooling": "last", "model.bidirectional": False}
"""How a module reads when cells are compared, unless told otherwise: all that it knows has come through every step."""


@dataclass(frozen=True)
class Curve:
    """Gradient norms by distance.

    Args:
        cell: What was measured.
        weights: ``initial`` or ``trained``.
        state: ``hidden``, or ``memory`` of an LSTM.
        norms: L2 norm of the gradient of an example's loss with respect to the state so many steps before its last: the
            mean over the examples that are long enough.
        counts: How many those are: at least half of all.
    """

    cell: str
    weights: str
    state: str
    norms: list[float]
    counts: list[int]

    def factor(self) -> float:
        """What a step does to the norm on average: the geometric mean from the first to the last."""
        steps = len(self.norms) - 1
        return (self.norms[-1] / self.norms[0]) ** (1 / steps) if steps and self.norms[0] else float("nan")

    def rows(self) -> list[dict[str, Any]]:
        """A JSON-safe mapping a distance."""
        told = {"cell": self.cell, "weights": self.weights, "state": self.state}
        measured = zip(self.norms, self.counts, strict=True)
        return [{**told, "distance": d, "norm": norm, "examples": count} for d, (norm, count) in enumerate(measured)]


def reading(workload: Workload) -> Mapping[str, Any]:
    """Those keys of ``READING`` that a workload has.

    Raises:
        ValueError: Its module has no choice of cell.
    """
    known = workload.keys()
    if "model.cell" not in known:
        raise ValueError(f"diagnose compares recurrent cells, and {workload.name} has no model.cell to choose one")
    return {key: value for key, value in READING.items() if key in known}


def cells_of(workload: Workload, config: Config) -> dict[str, Config]:
    """The config of every cell that a workload's module can have."""
    known, found = workload.keys(), {}
    for name, overrides in CELLS.items():
        needed = {key: value for key, value in overrides.items() if key in known or value != "tanh"}
        try:
            found[name] = workload.config(config, needed)
        except ValueError:  # its module takes fewer
            continue
    return found


def curves(model: L.LightningModule, data: DataModule, *, cell: str, weights: str, num_examples: int) -> list[Curve]:
    """Measure a module on the first examples of the validation split.

    Args:
        model: The module; left as it was.
        data: Its data module, set up; its machine is where the module runs.
        cell: What to call it.
        weights: What to call its weights.
        num_examples: Examples to take.

    Returns:
        A curve of the hidden state, and of an LSTM one of the memory.

    Raises:
        ValueError: The module has no recurrent layer.
    """
    split = data.splits["validation"]
    device = torch.device("cuda" if data.machine.accelerator == "gpu" else "cpu")
    batch = split.gather(torch.arange(min(num_examples, len(split))))
    batch = data.on_after_batch_transfer({name: column.to(device) for name, column in batch.items()}, 0)
    found = []
    for state, norm_BD in norms(model.to(device), batch).items():
        count_D = (~norm_BD.isnan()).sum(dim=0)
        reached = int((2 * count_D >= len(norm_BD)).sum())
        mean_D = norm_BD.nanmean(dim=0)[:reached]
        found.append(Curve(cell, weights, state, mean_D.tolist(), count_D[:reached].tolist()))
    return found
