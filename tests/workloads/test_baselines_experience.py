"""Baselines of agents: actions at random as Gymnasium plays them, and a linear policy that search finds."""

import gymnasium
import numpy as np
import pytest
import torch

from workloads import _baselines_experience as baselines
from workloads.data.replay import Replay
from workloads.data.rollouts import Rollouts


class Nobody(torch.nn.Module):
    """The agent of a run, which baselines do not ask."""

    device, hparams, play = torch.device("cpu"), {}, None


def ready(data):
    data.setup("fit")
    data.attach(Nobody())
    return data


def test_at_random_is_what_cartpole_gives_to_anybody():
    data = ready(Replay(num_episodes=100))
    found = baselines.returns(data)
    environment = gymnasium.make("CartPole-v1")
    environment.action_space.seed(0)
    totals = []
    for seed in range(100):
        environment.reset(seed=seed)
        totals.append(0)
        done = False
        while not done:
            _, _, terminated, truncated, _ = environment.step(environment.action_space.sample())
            totals[-1], done = totals[-1] + 1, terminated or truncated
    assert found["random"] == pytest.approx(np.mean(totals), abs=4)
    assert found["linear, by cross-entropy search"] > 450  # a linear policy can balance the pole
    assert baselines.returns(data) == found


def test_a_linear_policy_by_hand():
    data = ready(Rollouts(env="Pendulum-v1", num_episodes=2))
    policy = baselines.linear(data, torch.tensor([[1.0, 2.0, 3.0, 0.5], [0.0, 0.0, 0.0, -9.0]]))
    seen = torch.tensor([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])
    expected = np.tanh([0.1 + 0.4 + 0.9 + 0.5, -9.0])
    assert policy(seen, torch.tensor([0, 1]))[:, 0].tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_pictures_have_no_linear_policy():
    import odd_environments  # noqa: F401, registers its environments

    data = ready(Replay(env="Pictures-v0", image_side=40, num_episodes=4))
    assert list(baselines.returns(data)) == ["random"]
