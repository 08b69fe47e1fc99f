"""Experience that is learned from as long as it is fresh: the last steps of an agent, in their order.

Shapes: T steps of each environment, E environments of this worker.
"""

import torch

from workloads.data._batches import Batch
from workloads.data._experience import Experience


class Rollouts(Experience):
    """A Gymnasium environment, of which a batch is what has just been lived through.

    An agent's state in the middle of an epoch is kept in checkpoints: of each environment the seed of its episode and
    the actions since. A resumed run takes them again, and begins the episode anew only where the environment then is
    elsewhere, which it says.

    Args:
        env: Name of the environment, e.g. CartPole-v1; module:Name imports the module first. It shows numbers or a
            picture, and takes one of several actions, or some numbers within bounds, at each step.
        batch_size: Steps of one update of the network, over all workers.
        num_envs: Environments that are stepped together, over all workers.
        steps_per_epoch: Steps, of all environments together, from one evaluation to the next: what an epoch is.
        rollout_length: T: steps of each environment from one policy to the next.
        frame_stack: Last frames that the network sees at once.
        image_side: Side of the grey square that pictures are brought to, in pixels.
        num_episodes: Episodes of an evaluation.
        actors: Ray actors in which each worker's environments are stepped; 0 steps them in the worker itself.
        step_timeout: Seconds after which a step of the environment counts as hung.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(
        self,
        env: str = "CartPole-v1",
        batch_size: int = 256,
        num_envs: int = 8,
        steps_per_epoch: int = 4096,
        rollout_length: int = 32,
        frame_stack: int = 1,
        image_side: int = 84,
        num_episodes: int = 100,
        actors: int = 0,
        step_timeout: float = 60.0,
    ) -> None:
        super().__init__(
            env, batch_size, num_envs, steps_per_epoch, frame_stack, image_side, num_episodes, actors, step_timeout
        )
        self.rollout_length = rollout_length
        self.check(("rollout_length", 2))
        if batch_size > self.steps_per_batch:
            raise ValueError(
                f"data.batch_size: {batch_size} is more than the {self.steps_per_batch} steps of {num_envs} "
                f"environments in rollouts of {rollout_length}; lower it, or raise data.rollout_length"
            )

    @property
    def steps_per_batch(self) -> int:
        return self.rollout_length * self.num_envs

    @property
    def history_length(self) -> int:
        return self.rollout_length

    def collect(self) -> Batch:
        seen = []
        for _ in range(self.rollout_length):
            seen.append(self.seen())
            self.advance()
        columns = self.history.columns
        return {
            "seen": torch.stack(seen),
            "last_seen": self.seen(),
            **{name: columns[name].clone() for name in ("action", "reward", "terminated", "truncated", "acted")},
        }
