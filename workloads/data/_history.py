"""The last steps of several environments, as tensors that are allocated once.

Shapes: L rows, E environments, N places (a row of an environment), K frames that are seen at once, S steps ahead, F a
frame.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from workloads.data._environments import Form


class History:
    """A ring of rows: what each environment showed, what was done, and what came of it.

    A row in which an environment did not act holds the last frame of an episode: see ``_environments.Tick``.

    Args:
        form: What the environments show and take.
        length: L: rows that are kept; older ones are written over.
        num_envs: E.
    """

    def __init__(self, form: Form, length: int, num_envs: int) -> None:
        shape = (length, num_envs)
        actions = (*shape, form.action_dim) if not form.num_actions else shape
        frame_dtype = torch.uint8 if form.is_picture else torch.float32
        self.columns = {
            "frame": torch.zeros(*shape, *form.frame_shape, dtype=frame_dtype),
            "action": torch.zeros(actions, dtype=torch.int64 if form.num_actions else torch.float32),
            "reward": torch.zeros(shape),
            "terminated": torch.zeros(shape, dtype=torch.bool),
            "truncated": torch.zeros(shape, dtype=torch.bool),
            "acted": torch.zeros(shape, dtype=torch.bool),
            "first": torch.zeros(shape, dtype=torch.bool),
            "priority": torch.zeros(shape),
        }
        self.length, self.num_envs = length, num_envs
        self.place, self.size = 0, 0

    def add(self, **row: np.ndarray | float) -> None:
        """Write a row, over the oldest if there is no other place."""
        for name, value in row.items():
            self.columns[name][self.place] = torch.as_tensor(value)
        self.place = (self.place + 1) % self.length
        self.size = min(self.size + 1, self.length)

    def row(self, age: int) -> int:
        """The row of some age; 0 is the newest."""
        return (self.place - 1 - age) % self.length

    def rows(self) -> Tensor:
        """All rows, the oldest first."""
        return (torch.arange(self.place - self.size, self.place)) % self.length

    def seen(self, row_N: Tensor, env_N: Tensor, num_frames: int) -> Tensor:
        """The last frames at some places, the oldest first, shape (N, K, *F).

        An episode's first frame stands for those before it.
        """
        rows = [row_N]
        for _ in range(num_frames - 1):
            is_first_N = self.columns["first"][rows[-1], env_N]
            rows.append(torch.where(is_first_N, rows[-1], (rows[-1] - 1) % self.length))
        return self.columns["frame"][torch.stack(rows[::-1], dim=1), env_N[:, None]]

    def ahead(self, row_N: Tensor, env_N: Tensor, num_steps: int) -> dict[str, Tensor]:
        """What follows on some places, up to the end of the episode.

        Args:
            row_N: Rows.
            env_N: Environments.
            num_steps: S.

        Returns:
            ``rewards`` (N, S), 0 after the end; ``steps`` (N,), that were taken; ``terminated`` (N,), whether the last
            of them ended the episode; ``next_row`` (N,), where they have led to.
        """
        going_N = torch.ones_like(row_N, dtype=torch.bool)
        terminated_N, steps_N = ~going_N, torch.zeros_like(row_N)
        rewards = []
        for step in range(num_steps):
            here_N = (row_N + step) % self.length
            rewards.append(self.columns["reward"][here_N, env_N] * going_N)
            steps_N += going_N
            ends_N = self.columns["terminated"][here_N, env_N]
            terminated_N |= going_N & ends_N
            going_N = going_N & ~ends_N & ~self.columns["truncated"][here_N, env_N]
        next_row_N = (row_N + steps_N) % self.length
        return {
            "rewards": torch.stack(rewards, dim=1), "steps": steps_N, "terminated": terminated_N, "next_row": next_row_N
        }  # fmt: skip

    def sample(self, count: int, num_steps: int, num_frames: int, exponent: float) -> tuple[Tensor, Tensor, Tensor]:
        """Draw places from which as many steps ahead and frames back are known.

        Args:
            count: N; with replacement.
            num_steps: S.
            num_frames: K.
            exponent: A place is drawn as often as its priority to this power; 0 draws all alike.

        Returns:
            Rows, environments, and how much each place must count so that all count alike (up to a factor), each (N,).

        Raises:
            ValueError: There is none.
        """
        acted_LE = self.columns["acted"]
        weight_LE = self.columns["priority"].pow(exponent) * acted_LE if exponent else acted_LE.float()
        unknown = [self.row(age) for age in range(min(num_steps, self.size))]
        if self.size == self.length:
            unknown += [(self.place + age) % self.length for age in range(num_frames - 1)]
        weight_LE[unknown] = 0.0
        sums = weight_LE.flatten().cumsum(dim=0, dtype=torch.float64)
        if sums[-1] == 0:
            raise ValueError("no step to learn from yet")
        level_N = torch.rand(count, dtype=torch.float64) * sums[-1]
        place_N = torch.searchsorted(sums, level_N, right=True).clamp(max=len(sums) - 1)
        num_places = (weight_LE > 0).sum()
        share_N = weight_LE.flatten()[place_N] / sums[-1]
        return place_N // self.num_envs, place_N % self.num_envs, (1.0 / (num_places * share_N)).float()

    def cut(self, gone: np.ndarray, num_steps: int) -> None:
        """Mark environments that will not go on from their newest row: no place leads across."""
        rows = [self.row(age) for age in range(min(num_steps, self.size))]
        for env in np.flatnonzero(gone):
            self.columns["acted"][rows, env] = False

    def state(self) -> dict[str, Any]:
        """Its rows, the oldest first."""
        rows = self.rows()
        return {name: column[rows] for name, column in self.columns.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take rows over, the newest if there are more than it holds."""
        self.size = min(len(state["frame"]), self.length)
        for name, column in self.columns.items():
            column[: self.size] = state[name][len(state[name]) - self.size :]
        self.place = self.size % self.length
