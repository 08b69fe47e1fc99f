"""What agents that learn from reward have in common: whole episodes to judge them by, and what they see with.

Shapes: N episodes or observations, K frames, H rows, W columns, T steps.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchmetrics.aggregation import CatMetric

from lightning_modules.shared.activations import Activation, activate
from lightning_modules.shared.players import Players

Act = Callable[[Tensor], Tensor]

SMALLEST_SIDE = 36
"""Side of the smallest picture that the convolutions of :class:`Sight` leave anything of."""


class Agent(Players):
    """A module that acts in an environment.

    A subclass implements :meth:`explore` and :meth:`exploit`.

    Attributes:
        play: Plays whole episodes: from a way to act and the episodes' seeds (N,) to ``return`` (N,), ``length`` (N,)
            and ``actions`` (N, T, ...); given by the data.
    """

    play: Callable[[Act, Tensor], dict[str, Tensor]]

    def __init__(self) -> None:
        super().__init__()
        self.val_returns, self.test_returns = CatMetric(), CatMetric()

    def explore(self, seen: Tensor) -> Tensor:
        """Actions to learn from, of observations (N, ...)."""
        raise NotImplementedError

    def exploit(self, seen: Tensor) -> Tensor:
        """The actions that it takes for the best, of observations (N, ...)."""
        raise NotImplementedError

    def _evaluated(self, split: str, returns: CatMetric) -> dict[str, Tensor]:
        """Mean and standard deviation of the returns of all ranks' episodes."""
        found_N = returns.compute().float()
        returns.reset()
        return {f"{split}/return": found_N.mean(), f"{split}/return_std": found_N.std()}

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.val_returns.update(self.play(self.exploit, batch["episode"])["return"])

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self._evaluated("val", self.val_returns))

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.test_returns.update(self.play(self.exploit, batch["episode"])["return"])

    def on_test_epoch_end(self) -> None:
        self.log_dict(self._evaluated("test", self.test_returns))

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Whole episodes.

        Args:
            batch: ``episode`` (N,): their seeds.
            batch_idx: Place of the batch.

        Returns:
            ``return`` (N,), ``length`` (N,), ``actions`` (N, T, ...) and ``episode`` (N,).
        """
        return {**self.play(self.exploit, batch["episode"]), "episode": batch["episode"]}


class Sight(nn.Sequential):
    """From what is seen to features: fully connected layers, after convolutions where it is pictures.

    The convolutions are those of Mnih et al. 2015 (Human-level control through deep reinforcement learning).

    Args:
        input_shape: (F,), or (K, H, W) of pictures, uint8.
        hidden_dims: Widths of the fully connected layers.
        activation: Between all layers.

    Attributes:
        out_features: Width of the last layer.

    Raises:
        ValueError: The pictures are too small.
    """

    def __init__(self, input_shape: tuple[int, ...], hidden_dims: tuple[int, ...], activation: Activation) -> None:
        super().__init__()
        width = input_shape[0]
        if len(input_shape) == 3:
            if min(input_shape[1:]) < SMALLEST_SIDE:
                raise ValueError(f"data.image_side: expected at least {SMALLEST_SIDE}, got {min(input_shape[1:])}")
            self.append(Scale())
            for channels, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
                self.extend([nn.Conv2d(width, channels, kernel, stride), activate(activation)])
                width = channels
            self.append(nn.Flatten())
            with torch.no_grad():
                width = self(torch.zeros(1, *input_shape)).shape[1]
        for hidden_dim in hidden_dims:
            self.extend([nn.Linear(width, hidden_dim), activate(activation)])
            width = hidden_dim
        self.out_features = width


class Scale(nn.Module):
    """Bytes to numbers from 0 to 1."""

    def forward(self, seen: Tensor) -> Tensor:
        return seen.float() / 255
