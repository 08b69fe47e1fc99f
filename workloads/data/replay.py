"""Experience that is learned from many times: past steps of an agent, drawn at random.

Shapes: U updates of a batch, B steps of an update, S steps ahead.
"""

import numpy as np
import torch
from torch import Tensor

from workloads._machine import total_memory
from workloads.data._batches import Batch
from workloads.data._episodes import as_seen
from workloads.data._experience import Experience

MOST_MEMORY = 0.5
"""Part of the machine's memory that past steps may take."""

PRIORITY_FLOOR = 1e-3
"""Added to an error, so that a step without one can still be drawn."""


class Replay(Experience):
    """A Gymnasium environment, with a memory of past steps to learn from.

    An agent's state in the middle of an epoch is kept in checkpoints: the past steps, and of each environment the seed
    of its episode and the actions since. A resumed run takes them again, and begins the episode anew only where the
    environment then is elsewhere, which it says.

    Args:
        env: Name of the environment, e.g. CartPole-v1; module:Name imports the module first. It takes one of several
            actions at each step, and shows numbers or a picture.
        batch_size: Steps of one update of the network, over all workers.
        num_envs: Environments that are stepped together, over all workers.
        steps_per_epoch: Steps, of all environments together, from one evaluation to the next: what an epoch is.
        steps_per_batch: Steps, of all environments together, from one block of updates to the next.
        updates_per_batch: Updates of the network in a block.
        replay_size: Most past steps to hold, over all workers.
        learning_starts: Steps that are taken before the first update.
        n_step: S: rewards of as many steps are summed up before the value of what follows is asked for (Sutton 1988).
        priority_exponent: Steps are drawn as often as their last error to this power (Schaul et al. 2016,
            arXiv:1511.05952); 0 draws all alike.
        frame_stack: Last frames that the network sees at once.
        image_side: Side of the grey square that pictures are brought to, in pixels.
        num_episodes: Episodes of an evaluation.
        actors: Ray actors in which each worker's environments are stepped; 0 steps them in the worker itself.
        step_timeout: Seconds after which a step of the environment counts as hung.
        checkpoint_replay: Whether checkpoints hold the past steps; without them a resumed run collects some first.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(
        self,
        env: str = "CartPole-v1",
        batch_size: int = 64,
        num_envs: int = 8,
        steps_per_epoch: int = 1024,
        steps_per_batch: int = 256,
        updates_per_batch: int = 128,
        replay_size: int = 100_000,
        learning_starts: int = 1000,
        n_step: int = 1,
        priority_exponent: float = 0.0,
        frame_stack: int = 1,
        image_side: int = 84,
        num_episodes: int = 100,
        actors: int = 0,
        step_timeout: float = 60.0,
        checkpoint_replay: bool = True,
    ) -> None:
        super().__init__(
            env, batch_size, num_envs, steps_per_epoch, frame_stack, image_side, num_episodes, actors, step_timeout
        )
        self._steps_per_batch, self.updates_per_batch = steps_per_batch, updates_per_batch
        self.replay_size, self.learning_starts, self.n_step = replay_size, learning_starts, n_step
        self.priority_exponent, self.checkpoint_replay = priority_exponent, checkpoint_replay
        self.check(("updates_per_batch", 1), ("learning_starts", 0), ("n_step", 1))
        if steps_per_batch < num_envs:
            raise ValueError(
                f"data.steps_per_batch: expected at least one of each of {num_envs} environments, got {steps_per_batch}"
            )
        if not 0 <= priority_exponent <= 1:
            raise ValueError(f"data.priority_exponent: expected from 0 to 1, got {priority_exponent}")
        least = max(learning_starts, steps_per_batch, num_envs * (n_step + frame_stack + 1))
        if replay_size < least:
            raise ValueError(
                f"data.replay_size: expected at least the {least} steps before an update, got {replay_size}"
            )

    @property
    def steps_per_batch(self) -> int:
        return self._steps_per_batch // self.num_envs * self.num_envs

    @property
    def history_length(self) -> int:
        return -(-self.replay_size // self.num_envs)

    def load(self, whole: bool = False) -> dict[str, object]:
        if not self.num_actions:
            raise ValueError(
                f"data.env: {self.env} takes actions of {self.action_dim} numbers, and this agent chooses one of "
                "several; take actor_critic"
            )
        size = self.replay_size * int(np.prod(self.form.frame_shape)) * (1 if self.form.is_picture else 4)
        if size > MOST_MEMORY * total_memory():
            raise ValueError(
                f"data.replay_size: {self.replay_size:,} frames take {size / 2**30:,.1f} GiB, more than half of this "
                "machine's memory; lower it, or data.image_side"
            )
        return super().load(whole)

    def collect(self) -> Batch:
        ticks = self.steps_per_batch // self.num_envs
        # What there must be before the first update; after a resume without past steps, again.
        least = max(-(-self.learning_starts // self.num_envs), self.n_step + 1)
        # What is new has the largest priority of all, so that it will be drawn.
        largest = float(self.history.columns["priority"].max()) or 1.0
        for _ in range(ticks + max(0, least - self.history.size)):
            self.history.columns["priority"][self.history.place] = largest
            self.advance()
        here = self.batch_size // self.world_size
        row_N, env_N, weight_N = self.history.sample(
            self.updates_per_batch * here, self.n_step, self.frame_stack, self.priority_exponent
        )
        ahead = self.history.ahead(row_N, env_N, self.n_step)
        columns = self.history.columns
        found = {
            "seen": self._seen(row_N, env_N),
            "action": columns["action"][row_N, env_N],
            "rewards": ahead["rewards"],
            "steps": ahead["steps"],
            "terminated": ahead["terminated"],
            "next_seen": self._seen(ahead["next_row"], env_N),
            "weight": weight_N,
            "place": torch.stack([row_N, env_N], dim=1),
        }
        return {name: column.unflatten(0, (self.updates_per_batch, here)) for name, column in found.items()}

    def _seen(self, row_N: Tensor, env_N: Tensor) -> Tensor:
        return as_seen(self.form, self.history.seen(row_N, env_N, self.frame_stack))

    def learned(self, place_UB2: Tensor, error_UB: Tensor) -> None:
        """Take note of how wrong the agent was on the steps of a batch.

        Args:
            place_UB2: The batch's ``place``.
            error_UB: Absolute errors.
        """
        if not self.priority_exponent:
            return
        row_N, env_N = place_UB2.flatten(0, 1).cpu().unbind(dim=1)
        self.history.columns["priority"][row_N, env_N] = error_UB.flatten().cpu() + PRIORITY_FLOOR

    def attach(self, model: object) -> None:
        super().attach(model)
        model.learned = self.learned
