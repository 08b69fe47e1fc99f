"""Environments that fail in a way of their own, or are simple enough to reckon with; registered by importing this.

``raydeck train dqn --data.env odd_environments:Raises-v0`` imports it by itself.
"""

import os
import time

import gymnasium
import numpy as np
from gymnasium import spaces


class Corridor(gymnasium.Env):
    """Five places in a row: right leads to the end, which gives 1; a step costs 0.1. The seed decides the start."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = int(self.np_random.integers(3)), 0
        return self._shown(), {}

    def step(self, action):
        self.place = max(0, self.place + (1 if action == 1 else -1))
        self.steps += 1
        self.odd()
        done = self.place == 4
        return self._shown(), (1.0 if done else -0.1), done, False, {}

    def odd(self):
        """What is odd about it, at each step."""

    def _shown(self):
        return np.array([self.place / 4, self.steps / 100], np.float32)


class Raises(Corridor):
    def odd(self):
        if self.steps == 7:
            raise RuntimeError("the motor is on fire")


class Hangs(Corridor):
    def odd(self):
        if self.steps == 7:
            time.sleep(3600)


class GivesNaN(Corridor):
    def _shown(self):
        return super()._shown() * (np.nan if self.steps == 7 else 1.0)


class Rewards(Corridor):
    """Its reward is not finite at the seventh step."""

    def step(self, action):
        shown, reward, *rest = super().step(action)
        return shown, float("inf") if self.steps == 7 else reward, *rest


class Forgetful(Corridor):
    """Does not do the same again after the same seed."""

    starts = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        Forgetful.starts += 1
        self.place = Forgetful.starts % 3
        return self._shown(), {}


class Pictures(gymnasium.Env):
    """Shows a coloured picture in which a bright square stands left or right; its side is the action that gives 1."""

    observation_space = spaces.Box(0, 255, (50, 60, 3), np.uint8)
    action_space = spaces.Discrete(2, start=5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._next(), {}

    def step(self, action):
        assert action in (5, 6)
        reward = float(action - 5 == self.side)
        self.steps += 1
        return self._next(), reward, False, self.steps == 20, {}

    def _next(self):
        self.side = int(self.np_random.integers(2))
        picture = np.zeros((50, 60, 3), np.uint8)
        picture[10:40, 30 * self.side : 30 * self.side + 30, 1] = 255
        return picture


class FailsLater(Corridor):
    """Fails for good after 200 steps of a process, if it is told to."""

    taken = 0

    def odd(self):
        FailsLater.taken += 1
        if FailsLater.taken > 200 and os.environ.get("FAILS"):
            raise RuntimeError("worn out")


class Several(Corridor):
    """Takes several actions at a time."""

    action_space = spaces.MultiDiscrete([2, 3])


class Counts(Corridor):
    """Shows which of four places it is at by its number."""

    observation_space = spaces.Discrete(5)

    def _shown(self):
        return self.place


for environment in (Corridor, Raises, Hangs, GivesNaN, Rewards, Forgetful, Pictures, FailsLater, Several, Counts):
    gymnasium.register(f"{environment.__name__}-v0", environment, max_episode_steps=20)
