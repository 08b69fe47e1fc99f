"""Gymnasium's environments, many at a time: alike but for their seeds, and told apart when one of them fails.

Shapes: E environments, A numbers of an action, F a frame (one observation), H rows, W columns, C colours.
"""

import difflib
import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from workloads._extras import need
from workloads.data._batches import mixed

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey value (ITU-R BT.601)."""


@dataclass(frozen=True)
class Form:
    """What an environment shows and takes.

    Args:
        frame_shape: F: of a vector its length; of a picture, which becomes a grey square, its side twice.
        is_picture: Whether a frame is a picture, uint8; otherwise it is float32.
        num_actions: Actions to choose from; 0 where an action is ``action_dim`` numbers.
        first_action: Number of the first of them.
        action_dim: A.
        low: Smallest values of an action's numbers, shape (A,).
        high: Their largest.
    """

    frame_shape: tuple[int, ...]
    is_picture: bool
    num_actions: int
    first_action: int = 0
    action_dim: int = 0
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    def blank_actions(self, count: int) -> np.ndarray:
        """Actions that stand for none."""
        return np.zeros(count, np.int64) if self.num_actions else np.zeros((count, self.action_dim), np.float32)

    def native(self, action: Any) -> Any:
        """An action as the environment takes it: numbers from -1 to 1 become those from low to high."""
        if self.num_actions:
            return int(action) + self.first_action
        scaled = self.low + (np.clip(action, -1.0, 1.0) + 1.0) / 2.0 * (self.high - self.low)
        return scaled.astype(self.low.dtype)


@dataclass(frozen=True)
class Tick:
    """What came of one step of every environment.

    An environment whose episode has ended does not act in the next tick but begins another; its frame before that is
    the last of the episode that has ended.

    Args:
        frames: What each shows now, shape (E, *F).
        rewards: float32, shape (E,).
        terminated: Whether the episode came to its end.
        truncated: Whether it was cut off, as by a limit of time.
        acted: Whether the action was taken.
        returns: Sums of rewards of the episodes that have ended in this tick.
    """

    frames: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    acted: np.ndarray
    returns: list[float]


class Environments:
    """Environments that are stepped together in this process.

    Each episode has a seed of its own, from (seed, number of the environment, number of the episode): where an
    environment does the same after the same seed and actions, :meth:`restore` brings it back in mid-episode.

    Args:
        name: As of ``gymnasium.make``.
        numbers: Number of each among those of all workers.
        seed: Decides the episodes.
        image_side: Side of the square that pictures are brought to.
        timeout: Seconds after which a step counts as hung.

    Raises:
        ValueError: There is no such environment, a package is missing, or it shows or takes what no network here can.
    """

    def __init__(self, name: str, numbers: Sequence[int], seed: int, image_side: int, timeout: float) -> None:
        self.name, self.numbers, self.seed = name, list(numbers), seed
        self.patient = Patient(timeout)
        self.environments = self.patient(lambda: [make(name) for _ in self.numbers])
        self.form = form_of(name, self.environments[0], image_side)
        count = len(self.numbers)
        self.episode = [-1] * count
        self.actions: list[list[Any]] = [[] for _ in self.numbers]
        self.ended, self.sums = np.ones(count, dtype=bool), np.zeros(count)
        self.frames = np.zeros((count, *self.form.frame_shape), np.uint8 if self.form.is_picture else np.float32)

    def begin(self, seeds: Sequence[int] | None = None) -> np.ndarray:
        """Begin an episode in every environment, or from each of given seeds in one; their frames, shape (E, *F)."""
        everyone = range(len(self.numbers) if seeds is None else len(seeds))
        self.sums[:] = 0.0
        self._show(everyone, self._ask(everyone, lambda i: self._reset(i, seeds and seeds[i])))
        return self.frames[: len(everyone)].copy()

    def step(self, actions: np.ndarray, only: Sequence[int] | None = None) -> Tick:
        """Act once in every environment, or begin its next episode.

        Args:
            actions: Numbers of actions, shape (E,), or from -1 to 1, shape (E, A).
            only: Those to act in, if not all; E is their number then.

        Raises:
            ValueError: An environment raises, hangs, or gives what is not finite.
        """
        which = range(len(self.numbers)) if only is None else only
        count, here = len(which), slice(None) if only is None else only
        rewards = np.zeros(count, np.float32)
        terminated, truncated = np.zeros(count, bool), np.zeros(count, bool)
        acted = ~self.ended[here]
        place = {i: k for k, i in enumerate(which)}

        def act(i: int) -> Any:
            k = place[i]
            if not acted[k]:
                return self._reset(i)
            shown, rewards[k], terminated[k], truncated[k], _ = self.environments[i].step(self.form.native(actions[k]))
            self.actions[i].append(actions[k])
            return shown

        self._show(which, self._ask(which, act))
        if not np.isfinite(rewards).all():
            raise self._fault(which[int(np.argmin(np.isfinite(rewards)))], "gave a reward that is not finite")
        truncated &= ~terminated
        self.sums[here] = np.where(acted, self.sums[here] + rewards, 0.0)
        self.ended[here] = ended = terminated | truncated
        return Tick(
            self.frames[here].copy(), rewards, terminated, truncated, acted, self.sums[here][ended].tolist()
        )  # fmt: skip

    def _reset(self, i: int, seed: int | None = None) -> Any:
        self.episode[i] += 1
        self.actions[i], self.ended[i] = [], False
        if seed is None:
            seed = mixed(self.seed, self.numbers[i], self.episode[i]) % 2**31
        return self.environments[i].reset(seed=seed)[0]

    def _ask(self, which: Sequence[int], question: Callable[[int], Any]) -> list[Any]:
        """The answers of some environments, one after the other, in the thread that all of them live in."""
        asked = -1

        def all_of_them() -> list[Any]:
            nonlocal asked
            answers = []
            for asked in which:
                answers.append(question(asked))
            return answers

        try:
            return self.patient(all_of_them)
        except TimeoutError:
            raise self._fault(asked, f"hung: no answer within {self.patient.seconds:g} s") from None
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise self._fault(asked, f"raised {type(error).__name__}" + (f": {said}" if said else "")) from error

    def _show(self, which: Sequence[int], shown: Sequence[Any]) -> None:
        frames = as_frames(self.form, shown)
        if not self.form.is_picture and not np.isfinite(frames).all():
            finite = np.isfinite(frames).all(axis=1)
            raise self._fault(which[int(np.argmin(finite))], "gave an observation that is not finite")
        self.frames[which if len(which) < len(self.numbers) else slice(None)] = frames

    def _fault(self, i: int, what: str) -> ValueError:
        return ValueError(
            f"data.env: {self.name}: environment {self.numbers[i]} {what}, at step {len(self.actions[i])} of its "
            f"episode {self.episode[i]}; mend it, and the same command goes on from the last checkpoint"
        )

    def state(self) -> dict[str, Any]:
        """Where each environment is: episode, the actions in it so far, and the frame they have led to."""
        blank = self.form.blank_actions(0)
        return {
            "episode": torch.tensor(self.episode),
            "actions": [torch.from_numpy(np.array(a, blank.dtype).reshape(-1, *blank.shape[1:])) for a in self.actions],
            "frames": torch.from_numpy(self.frames.copy()),
        }

    def restore(self, state: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Go back to where environments were, by taking the same actions again from the same seeds.

        Returns:
            Frames, (E, *F), and whether each environment is where it was, (E,): one that has led elsewhere, as it does
            not do the same again, is at the beginning of its next episode instead.
        """
        there = np.zeros(len(self.numbers), dtype=bool)
        wanted = state["frames"].numpy()

        def again(i: int) -> Any:
            self.episode[i] = int(state["episode"][i]) - 1
            shown = self._reset(i)
            for action in state["actions"][i].numpy():
                shown, reward, terminated, truncated, _ = self.environments[i].step(self.form.native(action))
                self.actions[i].append(action)
                self.sums[i] += np.float32(reward)
                self.ended[i] = terminated or truncated
            there[i] = np.array_equal(as_frames(self.form, [shown])[0], wanted[i])
            if not there[i]:
                shown, self.sums[i] = self._reset(i), 0.0
            return shown

        everyone = range(len(self.numbers))
        self.sums[:] = 0.0
        self._show(everyone, self._ask(everyone, again))
        return self.frames.copy(), there


class Patient:
    """Calls functions in a thread of its own, and gives up on one that does not return in time.

    A call that is given up on cannot be ended; its thread ends with the process.

    Args:
        seconds: How long to wait for one.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.questions: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=_serve, args=(self.questions, self.answers), daemon=True).start()
        weakref.finalize(self, self.questions.put, None)  # ends the thread with its owner

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns, or raises.

        Raises:
            TimeoutError: It does neither in time.
        """
        self.questions.put((function, arguments))
        try:
            answer, error = self.answers.get(timeout=self.seconds)
        except queue.Empty:
            raise TimeoutError from None
        if error is not None:
            raise error
        return answer


def _serve(questions: "queue.SimpleQueue[Any]", answers: "queue.SimpleQueue[Any]") -> None:
    while (asked := questions.get()) is not None:
        function, arguments = asked
        try:
            answers.put((function(*arguments), None))
        except Exception as error:
            answers.put((None, error))
        del asked, function, arguments  # else the environments would live as long as this thread


def make(name: str, render_mode: str | None = None) -> Any:
    """An environment by its name.

    Raises:
        ValueError: There is none, it asks for a package that is missing, or it cannot be drawn.
    """
    gymnasium = need("gymnasium", extra="rl")
    errors = gymnasium.error
    try:
        drawn = {} if render_mode is None else {"render_mode": render_mode}
        environment = gymnasium.make(name, disable_env_checker=True, **drawn)
    except (errors.NameNotFound, errors.NamespaceNotFound, errors.VersionNotFound, errors.DeprecatedEnv):
        near = difflib.get_close_matches(name, gymnasium.registry, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"data.env: no environment {name!r}{hint}") from None
    except (errors.DependencyNotInstalled, ModuleNotFoundError) as error:
        raise ValueError(f"data.env: {name} needs a package: {' '.join(str(error).split())}") from None
    except Exception as error:  # whatever an environment raises as it is made
        raise ValueError(f"data.env: {name} cannot be made: {' '.join(str(error).split())[:300]}") from error
    spaces = gymnasium.spaces
    space = environment.observation_space
    if isinstance(space, spaces.Box) and (_is_picture(space) or len(space.shape) == 1):
        return environment
    if not space.is_np_flattenable:
        raise ValueError(f"data.env: {name} shows {space}, which is no list of numbers and no picture")
    return gymnasium.wrappers.FlattenObservation(environment)


def _is_picture(space: Any) -> bool:
    shape = space.shape
    return space.dtype == np.uint8 and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)))


def form_of(name: str, environment: Any, image_side: int) -> Form:
    """What an environment shows and takes.

    Raises:
        ValueError: It takes actions of another kind.
    """
    spaces = need("gymnasium", extra="rl").spaces
    space, actions = environment.observation_space, environment.action_space
    is_picture = _is_picture(space)
    frame_shape = (image_side, image_side) if is_picture else tuple(space.shape)
    if isinstance(actions, spaces.Discrete):
        return Form(frame_shape, is_picture, int(actions.n), int(actions.start))
    if isinstance(actions, spaces.Box) and len(actions.shape) == 1 and actions.is_bounded():
        return Form(frame_shape, is_picture, 0, 0, actions.shape[0], actions.low, actions.high)
    raise ValueError(f"data.env: {name} takes actions of the kind {actions}; it has to be Discrete, or a bounded Box")


def as_frames(form: Form, shown: Sequence[Any]) -> np.ndarray:
    """Observations of several environments as frames, shape (E, *F)."""
    if not form.is_picture:
        return np.stack(shown).astype(np.float32, copy=False)
    pixels_EHWC = torch.from_numpy(np.stack(shown))
    if pixels_EHWC.ndim == 3:
        pixels_EHWC = pixels_EHWC[..., None]
    weights_C = torch.tensor(GREY if pixels_EHWC.shape[3] == 3 else (1.0,))
    grey_E1HW = (pixels_EHWC.float() @ weights_C)[:, None]
    return F.interpolate(grey_E1HW, form.frame_shape, mode="area").round()[:, 0].to(torch.uint8).numpy()
