"""Several networks that are moved in turn, each by an optimizer of its own: adversaries, and phases of one training.

To a run such a module is as any other: a batch is one step, however many players it moves; optimizers and schedules are
in its checkpoints; ``trainer.gradient_clip_val`` bounds each player's gradient. What a training step returns beside its
``loss`` becomes a column ``train/<name>`` of the run's metrics.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_modules.shared import optimization


@dataclass(frozen=True, kw_only=True)
class Player:
    """Whom an optimizer moves, and how.

    Args:
        networks: Its networks. Two players may share one, if they move in different phases.
        settings: Its optimizer and schedule.
    """

    networks: Sequence[nn.Module]
    settings: optimization.Settings


class Players(L.LightningModule):
    """A module whose optimizers move in turn.

    A subclass implements :meth:`players` and, in its training step, gives each player its :meth:`turn`.

    Attributes:
        gradient_clip_val: Largest L2 norm of a player's gradient; 0 leaves it unclipped.
        leader: Place of the player that moved first in the last batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.gradient_clip_val = 0.0
        self.leader = 0
        self._has_moved = False

    def players(self) -> Mapping[str, Player]:
        """Name to player, in an order that does not change."""
        raise NotImplementedError

    @property
    def phase(self) -> str:
        """What the current epoch is spent on, in a word; empty where all epochs are alike."""
        return ""

    def num_moves(self, name: str, num_batches: int) -> int:
        """How often a player moves in the whole training, for its schedule.

        Args:
            name: The player.
            num_batches: Batches of the whole training.
        """
        return num_batches

    def configure_optimizers(self) -> list[dict[str, Any]]:
        num_batches = int(self.trainer.estimated_stepping_batches)
        return [
            optimization.configured(
                nn.ModuleList(player.networks),
                player.settings,
                precision=self.trainer.precision,
                num_steps=max(1, self.num_moves(name, num_batches)),
            )
            for name, player in self.players().items()
        ]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._has_moved = False

    @contextmanager
    def turn(self, name: str) -> Iterator[Callable[[Tensor], None]]:
        """One player's turn: the others' parameters get no gradient while it lasts.

        Yields:
            A function that moves the player down the gradient of a loss; to be called once or more. Callbacks see the
            first of several moves; where gradients are averaged or scaled, all.
        """
        place = list(self.players()).index(name)
        optimizer, schedule = one_of(self.optimizers(), place), one_of(self.lr_schedulers(), place)
        own = optimizer.optimizer
        parameters = [p for group in own.param_groups for p in group["params"]]
        is_plain, num_moves = self.trainer.world_size == 1 and self.trainer.scaler is None, 0
        self.toggle_optimizer(optimizer)

        def move(loss: Tensor) -> None:
            nonlocal num_moves
            num_moves += 1
            if num_moves > 1 and is_plain:  # a small network's update costs no more than Lightning's hooks around it
                loss.backward()
                self._clip(parameters)
                own.step()
            else:
                self.manual_backward(loss)
                if self._has_moved:  # a batch is one step: past Lightning's wrapper, which counts
                    self.trainer.strategy.optimizer_step(own, lambda: None, model=self)
                else:
                    optimizer.step()
                    self._has_moved, self.leader = True, place
            for parameter in parameters:
                parameter.grad = None
            schedule.step()

        try:
            yield move
        finally:
            self.untoggle_optimizer(optimizer)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # Here, where a scaled loss is already scaled back: Lightning clips by itself only what it moves by itself.
        self._clip([p for group in optimizer.param_groups for p in group["params"]])

    def _clip(self, parameters: Sequence[nn.Parameter]) -> None:
        """Shorten a gradient that is longer than the bound.

        As ``torch.nn.utils.clip_grad_norm_`` does, which takes about twice as long for a small network, as it sorts
        parameters by device and type first.
        """
        grads = [p.grad for p in parameters if p.grad is not None]
        if self.gradient_clip_val and grads:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
            torch._foreach_mul_(grads, (self.gradient_clip_val / (norm + 1e-6)).clamp(max=1.0))


def one_of(some: Any, place: int) -> Any:
    """One of several; Lightning gives one alone without a list around it."""
    return some[place] if isinstance(some, list) else some


def phase_at(epoch: int, phases: Sequence[tuple[str, int]], last: str) -> str:
    """The phase of an epoch.

    Args:
        epoch: Epochs before it.
        phases: Name and number of epochs of each phase in turn.
        last: The phase that follows them.
    """
    for name, num_epochs in phases:
        if epoch < num_epochs:
            return name
        epoch -= num_epochs
    return last
