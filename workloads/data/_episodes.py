"""Whole episodes, to judge an agent by and to look at.

Shapes: N episodes, T steps of the longest, K frames that are seen at once, F a frame, A numbers of an action.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from workloads._extras import need
from workloads.data._environments import Environments, Form, make

LONGEST = 100_000
"""Steps after which an episode counts as one that does not end."""

MOST_FRAMES = 1000
"""Frames of an animation; of a longer episode every second, third, and so on is left out."""


class Seen:
    """The last frames of several environments, as a network sees them.

    Args:
        form: What the environments show.
        num_frames: K.
    """

    def __init__(self, form: Form, num_frames: int) -> None:
        self.form, self.num_frames = form, num_frames
        self.frames = torch.zeros(0)

    def begin(self, frames: np.ndarray) -> None:
        """Start with the first frames of episodes, (N, *F): each stands for those before it as well."""
        self.frames = torch.from_numpy(frames)[:, None].repeat_interleave(self.num_frames, dim=1)

    def add(self, frames: np.ndarray, first: np.ndarray) -> None:
        """Add a frame of each, (N, *F), of which some are the first of an episode, (N,)."""
        self.frames = torch.cat([self.frames[:, 1:], torch.from_numpy(frames)[:, None]], dim=1)
        if first.any():
            self.begin_again(frames, first)

    def begin_again(self, frames: np.ndarray, which: np.ndarray) -> None:
        """Start anew where other episodes have begun, (N,), with their first frames, of (N, *F)."""
        begins = torch.from_numpy(which)
        self.frames[begins] = torch.from_numpy(frames)[begins, None].expand(-1, *self.frames.shape[1:])

    def keep(self, which: np.ndarray) -> None:
        """Forget all but some."""
        self.frames = self.frames[torch.from_numpy(which)]

    def __call__(self) -> Tensor:
        """As a network sees it: pictures (N, K, H, W), vectors end to end (N, K * F)."""
        return as_seen(self.form, self.frames)


def as_seen(form: Form, frames: Tensor) -> Tensor:
    """Frames (..., K, *F) as a network sees them: vectors are put end to end."""
    return frames if form.is_picture else frames.flatten(-2)


def play(
    environments: Environments, act: Callable[[Tensor, np.ndarray], np.ndarray], seeds: Sequence[int], num_frames: int
) -> dict[str, Tensor]:
    """Play an episode from each seed to its end, all at once.

    Args:
        environments: At least as many as there are seeds.
        act: From what is seen, as :class:`Seen` has it, and which of the episodes each is of, to actions.
        seeds: Seed of each episode.
        num_frames: K.

    Returns:
        ``return`` (N,) and ``length`` (N,), and ``actions`` (N, T) or (N, T, A), 0 after an episode's end.

    Raises:
        ValueError: An environment fails, or an episode does not end.
    """
    count = len(seeds)
    seen, going = Seen(environments.form, num_frames), np.arange(count)
    returns, lengths, actions = np.zeros(count), np.zeros(count, np.int64), []
    seen.begin(environments.begin(seeds))
    while len(going):
        chosen = act(seen(), going)
        tick = environments.step(chosen, only=going.tolist())
        row = environments.form.blank_actions(count)
        row[going] = chosen
        actions.append(row)
        returns[going] += tick.rewards
        lengths[going] += 1
        if len(actions) > LONGEST:
            raise ValueError(f"data.env: {environments.name}: an episode takes more than {LONGEST} steps; limit it")
        on = ~(tick.terminated | tick.truncated)
        seen.add(tick.frames, np.zeros(len(going), dtype=bool))
        seen.keep(on)
        going = going[on]
    return {
        "return": torch.from_numpy(returns).float(),
        "length": torch.from_numpy(lengths),
        "actions": torch.from_numpy(np.stack(actions, axis=1)),
    }


def draw(name: str, form: Form, seed: int, actions: np.ndarray, path: Path) -> float:
    """Draw an episode as an animation, by taking its actions again from its seed.

    Args:
        name: Name of the environment.
        form: What it shows and takes.
        seed: The episode's seed.
        actions: Its actions, shape (T,) or (T, A).
        path: File to write; .gif.

    Returns:
        The episode's return as it was drawn.

    Raises:
        ValueError: The environment cannot be drawn.
    """
    image = need("PIL.Image", extra="rl")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws in memory: there need not be a display
    environment = make(name, render_mode="rgb_array")
    try:
        environment.reset(seed=seed)
        pictures, total = [environment.render()], 0.0
        for action in actions:
            total += float(environment.step(form.native(action))[1])
            pictures.append(environment.render())
        rate = float(environment.metadata.get("render_fps", 30))
    finally:
        environment.close()
    if not isinstance(pictures[0], np.ndarray):
        raise ValueError(f"data.env: {name} draws no pictures")
    every = -(-len(pictures) // MOST_FRAMES)
    first, *others = (image.fromarray(picture).quantize(64) for picture in pictures[::every])
    # Hundredths of a second are what the format knows, and viewers slow down below two.
    shown = max(20, round(100 * every / rate) * 10)
    first.save(path, save_all=True, append_images=others, duration=shown, loop=0, optimize=False)
    return total
