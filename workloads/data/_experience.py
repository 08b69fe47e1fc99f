"""Experience in place of a data set: environments in which the network that is being trained acts.

Shapes: E environments of this worker, K frames that are seen at once, F a frame, N episodes, T steps of the longest, W
workers.
"""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as L
import torch
from torch import Tensor

from workloads.data._base import DataModule, Inputs
from workloads.data._batches import Batch, Batches, Examples, InMemory, Loader, mixed
from workloads.data._environments import Environments, Form, Tick, form_of, make
from workloads.data._episodes import Seen, draw, play
from workloads.data._history import History

FIRST_SEED = {"validation": 1_000_000, "test": 2_000_000}
"""Seed of the first episode of an evaluation; each further one has the next."""

MEBIBYTE = 2**20


class Steppable(Protocol):
    """What environments are to an :class:`Experience`, wherever they are; see :class:`Environments`."""

    def begin(self) -> np.ndarray: ...
    def step(self, actions: np.ndarray) -> Tick: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]: ...


class Experience(DataModule):
    """Steps of an agent in environments.

    A subclass says what a batch is. Validation and test are whole episodes from seeds of their own, with the actions
    that the agent takes for the best.

    Args:
        env: Name of the environment.
        batch_size: Steps of one update of the network, over all workers.
        num_envs: Environments, over all workers.
        steps_per_epoch: Steps of all environments from one evaluation to the next.
        frame_stack: K.
        image_side: Side of the square that pictures are brought to.
        num_episodes: Episodes of an evaluation.
        actors: Ray actors in which each worker's environments are stepped; 0 steps them in the worker itself.
        step_timeout: Seconds after which a step counts as hung.

    Attributes:
        checkpoint_replay: Whether checkpoints hold the history.
        n_step: Steps ahead of one in the history that are looked at.

    Raises:
        ValueError: A value is out of range.
    """

    needs_inputs = False
    drawn_as = ".gif"
    unit = "steps"
    checkpoint_replay = False
    n_step = 1

    def __init__(
        self,
        env: str,
        batch_size: int,
        num_envs: int,
        steps_per_epoch: int,
        frame_stack: int,
        image_side: int,
        num_episodes: int,
        actors: int,
        step_timeout: float,
    ) -> None:
        super().__init__()
        self.env, self.batch_size, self.num_envs, self.steps_per_epoch = env, batch_size, num_envs, steps_per_epoch
        self.frame_stack, self.image_side, self.num_episodes = frame_stack, image_side, num_episodes
        self.actors, self.step_timeout = actors, step_timeout
        self.check(("batch_size", 1), ("num_envs", 1), ("steps_per_epoch", 1), ("frame_stack", 1), ("image_side", 8))
        self.check(("num_episodes", 2), ("actors", 0))
        if not step_timeout > 0:
            raise ValueError(f"data.step_timeout: expected more than 0 seconds, got {step_timeout:g}")
        self.spread: Callable[..., Steppable] = Environments
        self.agent: Any = None
        self.environments: Steppable | None = None
        self.judged: Environments | None = None
        self.history: History | None = None
        self.rank, self.world_size = 0, 1
        self.taken = 1
        self.totals = torch.zeros(4, dtype=torch.float64)
        self.saved: dict[str, Any] | None = None
        self._form: Form | None = None

    def check(self, *least: tuple[str, int]) -> None:
        """Raise ValueError for a key that is below its least value."""
        for name, value in least:
            if getattr(self, name) < value:
                raise ValueError(f"data.{name}: expected at least {value}, got {getattr(self, name)}")

    @property
    @abstractmethod
    def steps_per_batch(self) -> int:
        """Steps of all environments from one batch to the next."""

    @property
    @abstractmethod
    def history_length(self) -> int:
        """Rows of the history."""

    @abstractmethod
    def collect(self) -> Batch:
        """Act, and return what is to be learned from next."""

    @property
    def form(self) -> Form:
        """What the environment shows and takes."""
        if self._form is None:
            environment = make(self.env)
            self._form = form_of(self.env, environment, self.image_side)
            environment.close()
        return self._form

    @property
    def input_shape(self) -> tuple[int, ...]:
        """What a network sees at once."""
        frame_shape = self.form.frame_shape
        return (self.frame_stack, *frame_shape) if self.form.is_picture else (self.frame_stack * frame_shape[0],)

    @property
    def num_actions(self) -> int:
        """Actions to choose from; 0 where an action is ``action_dim`` numbers."""
        return self.form.num_actions

    @property
    def action_dim(self) -> int:
        """Numbers of an action, from -1 to 1; 0 where there are actions to choose from."""
        return self.form.action_dim

    def load(self, whole: bool = False) -> dict[str, Examples]:
        if self.steps_per_epoch < self.steps_per_batch:
            raise ValueError(
                f"data.steps_per_epoch: {self.steps_per_epoch} steps are less than the {self.steps_per_batch} of one "
                "batch; raise it"
            )
        _ = self.form  # an environment that is not there is told of before anything else begins
        return {
            split: InMemory({"episode": seed + torch.arange(self.num_episodes)}) for split, seed in FIRST_SEED.items()
        }

    def attach(self, model: L.LightningModule) -> None:
        """See :meth:`DataModule.attach`.

        Raises:
            ValueError: The module was made for another environment.
        """
        for name in ("input_shape", "num_actions", "action_dim"):
            made_for, there_is = model.hparams.get(name), getattr(self, name)
            if made_for is not None and made_for != there_is:
                raise ValueError(
                    f"data.env: {self.env} has {name} {there_is}, and the network was made for {made_for}; give "
                    "the environment that it was trained in, or one that shows and takes the same"
                )
        self.agent, model.play = model, self.play

    def play(self, act: Callable[[Tensor], Tensor], episode_N: Tensor) -> dict[str, Tensor]:
        """Whole episodes; see :func:`play`.

        Args:
            act: From what is seen to actions.
            episode_N: The episodes' seeds.
        """
        return self.play_each(lambda seen, _: act(seen), episode_N)

    def play_each(self, act: Callable[[Tensor, Tensor], Tensor], episode_N: Tensor) -> dict[str, Tensor]:
        """The same; ``act`` is also told which of the episodes each observation is of."""
        seeds = episode_N.tolist()
        if self.judged is None or len(self.judged.numbers) < len(seeds):
            self.judged = Environments(self.env, range(len(seeds)), 0, self.image_side, self.step_timeout)

        def acted(seen: Tensor, going: np.ndarray) -> np.ndarray:
            return self._acted(lambda shown: act(shown, torch.from_numpy(going).to(shown.device)), seen)

        return play(self.judged, acted, seeds, self.frame_stack)

    def _acted(self, act: Callable[[Tensor], Tensor], seen: Tensor) -> np.ndarray:
        with torch.inference_mode():
            return act(seen.to(self.agent.device)).cpu().numpy()

    def batches(self, split: str, shuffle: bool = False) -> Loader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if split != "train":  # all at once
            most = max(self.num_episodes, 2 * world_size)
            return Batches(self.splits[split], most, rank=rank, world_size=world_size)
        for name in ("num_envs", "batch_size"):
            if (value := getattr(self, name)) % world_size:
                raise ValueError(f"data.{name}: {value} cannot be shared alike by {world_size} workers")
        return Turns(self, self.steps_per_epoch // self.steps_per_batch, rank, world_size)

    def start(self, rank: int, world_size: int) -> None:
        """Have environments and a history, from a checkpoint if one was loaded; once."""
        if self.environments is not None:
            return
        self.rank, self.world_size = rank, world_size
        numbers = range(rank, self.num_envs, world_size)
        self.environments = self.spread(self.env, numbers, self.seed, self.image_side, self.step_timeout)
        self.history = History(self.form, self.history_length, len(numbers))
        self.seen = Seen(self.form, self.frame_stack)
        if self.saved is None:
            self.frames, self.first = self.environments.begin(), np.ones(len(numbers), dtype=bool)
            self.seen.begin(self.frames)
            return
        saved = {name: value[rank::world_size] for name, value in self.saved["environments"].items()}
        self.first, self.seen.frames = saved.pop("first").numpy(), saved.pop("seen").clone()
        self.frames, there = self.environments.restore(saved)
        self.first = self.first | ~there
        if not there.all():
            self.seen.begin_again(self.frames, ~there)
            self.concerns = [f"{self.env} does not repeat itself: {(~there).sum()} episodes are begun anew"]
        if "history" in self.saved:
            self.history.restore({name: rows[:, rank::world_size] for name, rows in self.saved["history"].items()})
            self.history.cut(~there, self.n_step)
        if rank == 0:
            self.totals = self.saved["totals"].clone()
        self.saved = None

    def advance(self) -> None:
        """Act once in every environment, and write it down."""
        chosen = self._acted(self.agent.explore, self.seen())
        tick = self.environments.step(chosen)
        self.history.add(
            frame=self.frames, action=chosen, reward=tick.rewards, terminated=tick.terminated,
            truncated=tick.truncated, acted=tick.acted, first=self.first,
        )  # fmt: skip
        self.frames, self.first = tick.frames, ~tick.acted
        self.seen.add(self.frames, self.first)
        self.taken += int(tick.acted.sum())
        ended, total = len(tick.returns), sum(tick.returns)
        self.totals += torch.tensor([tick.acted.sum(), ended, ended, total])

    def weight(self, batch: Batch) -> int:
        return max(1, self.taken)

    def counts(self) -> dict[str, float | int]:
        totals = self.totals.clone()
        self.totals[2:] = 0.0
        if self.world_size > 1:
            totals = self.trainer.strategy.reduce(totals.to(self.trainer.strategy.root_device), reduce_op="sum")
        steps, episodes, ended, total = totals.tolist()
        told: dict[str, float | int] = {"env_steps": int(steps), "episodes": int(episodes)}
        return told | ({"train/return": total / ended} if ended else {})

    def state_dict(self) -> dict[str, Any]:
        if self.environments is None:
            return {"experience": self.saved}
        began = time.monotonic()
        mine = {
            "environments": {
                **self.environments.state(), "first": torch.from_numpy(self.first.copy()), "seen": self.seen.frames
            },
            "history": self.history.state() if self.checkpoint_replay else None,
            "totals": self.totals.clone(),
        }  # fmt: skip
        parts = [mine]
        if self.world_size > 1:
            parts = [None] * self.world_size if self.rank == 0 else None
            torch.distributed.gather_object(mine, parts, dst=0)
        if parts is None:
            return {"experience": None}
        found = together(parts)
        if "history" in found:
            size = sum(column.nbytes for column in found["history"].values()) / MEBIBYTE
            self.cost = f"past steps: {size:,.1f} MiB of each checkpoint, gathered in {time.monotonic() - began:.2f} s"
        return {"experience": found}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.saved = state_dict["experience"]

    def encode(self, inputs: Sequence[str], *, num_episodes: int = 3, first_seed: int = FIRST_SEED["test"]) -> Inputs:
        """Ask for episodes.

        Args:
            inputs: None are taken.
            num_episodes: Episodes to play.
            first_seed: Seed of the first; each further one has the next. By default those of the test.

        Raises:
            ValueError: There are inputs, or no episode is asked for.
        """
        if inputs:
            raise ValueError(
                f"{inputs[0]}: an agent plays episodes; leave inputs out, and see --num-episodes and --first-seed"
            )
        for flag, value, least in (("--num-episodes", num_episodes, 1), ("--first-seed", first_seed, 0)):
            if value < least:
                raise ValueError(f"{flag}: expected at least {least}, got {value}")
        seed_N = first_seed + torch.arange(num_episodes)
        return Inputs([f"seed {seed}" for seed in seed_N.tolist()], InMemory({"episode": seed_N}))

    def answers(self, outputs: dict[str, Tensor]) -> list[dict[str, Any]]:
        parts = (outputs[name] for name in ("return", "length", "episode", "actions"))
        return [
            {"return": float(total), "steps": int(length), "seed": int(seed), "actions": actions[: int(length)].numpy()}
            for total, length, seed, actions in zip(*parts, strict=True)
        ]

    def picture(self, inputs: Inputs, answers: list[dict[str, Any]], path: Path) -> bool:
        """Draw the first episode as an animation."""
        episode = answers[0]
        drawn = draw(self.env, self.form, episode["seed"], episode["actions"], path)
        if abs(drawn - episode["return"]) > 1e-3 * max(1.0, abs(drawn)):
            path.unlink()
            raise ValueError(f"data.env: {self.env} does not repeat an episode from its seed, so it cannot be drawn")
        return True


def together(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """States of all workers as one: environment e is number e // W of worker e % W."""
    environments = {
        name: interleaved([part["environments"][name] for part in parts]) for name in parts[0]["environments"]
    }
    found = {"environments": environments, "totals": sum(part["totals"] for part in parts)}
    if parts[0]["history"] is not None:
        found["history"] = {
            name: interleaved([part["history"][name].transpose(0, 1) for part in parts]).transpose(0, 1)
            for name in parts[0]["history"]
        }
    return found


def interleaved(parts: Sequence[Any]) -> Any:
    """One of each in turn, of lists or along the first dimension of tensors."""
    if isinstance(parts[0], list):
        return [value for values in zip(*parts, strict=True) for value in values]
    return torch.stack(list(parts), dim=1).flatten(0, 1)


class Turns(Loader):
    """Batches of experience: each is collected with the agent as it is by then.

    PyTorch's generators are seeded before each from (seed, epoch, batch, rank), as those of a data set's batches are.

    Args:
        experience: Where to act.
        num_batches: Batches of an epoch.
        rank: This worker.
        world_size: W.
    """

    def __init__(self, experience: Experience, num_batches: int, rank: int, world_size: int) -> None:
        super().__init__(num_batches)
        self.experience, self.rank, self.world_size = experience, rank, world_size

    def __iter__(self) -> Iterator[Batch]:
        start = self.begin()
        self.experience.start(self.rank, self.world_size)
        for k in range(start, self.num_batches):
            torch.manual_seed(mixed(self.experience.seed, self.epoch, k, self.rank))
            self.experience.taken = 0
            batch = self.experience.collect()
            self.next_batch = k + 1
            yield batch
