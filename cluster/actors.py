"""Environments in Ray actors: stepping them takes other processors, or other nodes, than learning does.

Shapes: E environments of a worker, each actor has a part of them.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from workloads.data._environments import Environments, Tick

CPUS = 1
"""Of each actor."""

START_SECONDS = 120
"""How long to wait for actors to start, beside the time that a step may take."""


@ray.remote(num_cpus=CPUS, max_restarts=0)
class _Actor:
    """Some of the environments."""

    def __init__(self, *arguments: Any) -> None:
        torch.set_num_threads(1)
        self.environments = Environments(*arguments)

    def pid(self) -> int:
        return os.getpid()

    def begin(self) -> np.ndarray:
        return self.environments.begin()

    def step(self, actions: np.ndarray) -> Tick:
        return self.environments.step(actions)

    def state(self) -> dict[str, Any]:
        return self.environments.state()

    def restore(self, state: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        return self.environments.restore(state)


class SpreadEnvironments:
    """Environments that are stepped in Ray actors, all at once; the same steps as of :class:`Environments`.

    Args:
        num_actors: Actors.
        name: As of ``gymnasium.make``.
        numbers: Number of each environment among those of all workers.
        seed: Decides the episodes.
        image_side: Side of the square that pictures are brought to.
        timeout: Seconds after which a step counts as hung.

    Raises:
        ValueError: There are more actors than environments, or the cluster has no room for them.
    """

    def __init__(
        self, num_actors: int, name: str, numbers: Sequence[int], seed: int, image_side: int, timeout: float
    ) -> None:
        if num_actors > len(numbers):
            raise ValueError(
                f"data.actors: {num_actors} actors cannot share {len(numbers)} environments; raise data.num_envs"
            )
        self.name, self.timeout = name, timeout
        self.parts = np.array_split(np.arange(len(numbers)), num_actors)
        self.actors = [
            _Actor.remote(name, [numbers[i] for i in part], seed, image_side, timeout) for part in self.parts
        ]

    def begin(self) -> np.ndarray:
        return np.concatenate(self._answers([a.begin.remote() for a in self.actors], START_SECONDS))

    def step(self, actions: np.ndarray) -> Tick:
        asked = [actor.step.remote(actions[part]) for actor, part in zip(self.actors, self.parts, strict=True)]
        ticks = self._answers(asked)
        arrays = ("frames", "rewards", "terminated", "truncated", "acted")
        return Tick(
            *(np.concatenate([getattr(tick, name) for tick in ticks]) for name in arrays),
            returns=[total for tick in ticks for total in tick.returns],
        )

    def state(self) -> dict[str, Any]:
        states = self._answers([actor.state.remote() for actor in self.actors])
        return {
            "episode": torch.cat([state["episode"] for state in states]),
            "actions": [actions for state in states for actions in state["actions"]],
            "frames": torch.cat([state["frames"] for state in states]),
        }

    def restore(self, state: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        parts = [{name: column[part[0] : part[-1] + 1] for name, column in state.items()} for part in self.parts]
        asked = [actor.restore.remote(part) for actor, part in zip(self.actors, parts, strict=True)]
        frames, there = zip(*self._answers(asked, START_SECONDS), strict=True)
        return np.concatenate(frames), np.concatenate(there)

    def _answers(self, asked: Sequence[Any], extra_seconds: float = 0.0) -> list[Any]:
        try:
            # The environments themselves give up on a step first, and say which hung.
            return ray.get(list(asked), timeout=2 * self.timeout + extra_seconds + 10)
        except GetTimeoutError:
            raise ValueError(
                f"data.actors: no room for {len(self.actors)} actors of {CPUS} CPU each beside the workers, or they do "
                "not answer; ask for fewer"
            ) from None
        except RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, ValueError) else error) from None
        except RayActorError:
            raise ValueError(f"data.env: {self.name}: a process that steps it was killed or crashed") from None
