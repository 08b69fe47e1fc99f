"""Environments in Ray actors: the steps that they take here, and what goes wrong there."""

import os
import signal

import numpy as np
import odd_environments
import pytest
import ray

from cluster.actors import SpreadEnvironments
from workloads.data._environments import Environments

pytestmark = pytest.mark.ray
HELPERS = os.path.dirname(odd_environments.__file__)


@pytest.fixture(scope="module")
def here():
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": HELPERS}},
    )  # fmt: skip
    yield
    ray.shutdown()


def test_the_same_steps_and_the_same_way_back(here):
    spread, alone = (
        SpreadEnvironments(2, "CartPole-v1", range(3), 0, 42, 30.0),
        Environments("CartPole-v1", range(3), 0, 42, 30.0),
    )
    assert np.array_equal(spread.begin(), alone.begin())
    random = np.random.default_rng(0)
    rows = random.integers(2, size=(60, 3))
    for row in rows[:40]:
        ours, theirs = spread.step(row), alone.step(row)
        for name in ("frames", "rewards", "terminated", "truncated", "acted"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name))
        assert sorted(ours.returns) == sorted(theirs.returns)
    state, expected = spread.state(), alone.state()
    assert state["episode"].equal(expected["episode"]) and state["frames"].equal(expected["frames"])
    assert all(a.equal(b) for a, b in zip(state["actions"], expected["actions"], strict=True))
    del spread
    again = SpreadEnvironments(2, "CartPole-v1", range(3), 0, 42, 30.0)
    frames, there = again.restore(state)
    assert there.all() and np.array_equal(frames, alone.frames)
    for row in rows[40:]:
        assert np.array_equal(again.step(row).frames, alone.step(row).frames)


def test_what_fails_there_is_told_as_here(here):
    spread = SpreadEnvironments(1, "odd_environments:Raises-v0", range(2), 0, 42, 30.0)
    spread.begin()
    with pytest.raises(ValueError, match=r"environment 0 raised RuntimeError: the motor is on fire, at step 6"):
        for _ in range(10):
            spread.step(np.zeros(2, np.int64))


def test_an_actor_that_is_killed_is_told_of(here):
    spread = SpreadEnvironments(1, "CartPole-v1", range(2), 0, 42, 30.0)
    spread.begin()
    os.kill(ray.get(spread.actors[0].pid.remote()), signal.SIGKILL)
    with pytest.raises(ValueError, match="a process that steps it was killed or crashed"):
        for _ in range(10):
            spread.step(np.zeros(2, np.int64))


def test_more_actors_than_environments_are_refused(here):
    with pytest.raises(ValueError, match=r"data\.actors: 3 actors cannot share 2 environments"):
        SpreadEnvironments(3, "CartPole-v1", range(2), 0, 42, 30.0)


def test_a_run_by_actors_is_the_run_without(raydeck):
    arguments = ("train", "dqn", "--smoke", "--baselines", "false", "--cpus-per-worker", "1")
    alone = raydeck.json(*arguments, "--name", "alone")
    spread = raydeck.json(*arguments, "--name", "spread", "--data.actors", "1")
    assert spread["test"] == alone["test"] and spread["steps"] == alone["steps"]
    assert spread["monitor"] == alone["monitor"]
    _, err = raydeck(*arguments, "--name", "more", "--data.actors", "2", code=2)
    assert "CPUs are asked for and the cluster has" in err
    _, err = raydeck("tune", "dqn", "--smoke", "--data.actors", "1", code=2)
    assert "data.actors: the trials of a sweep share all CPUs already" in err
