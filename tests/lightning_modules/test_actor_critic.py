"""Actor and critic: advantages and losses by hand, ends and cuts told apart, statistics, actions of both kinds."""

import math

import numpy as np
import pytest
import torch

from lightning_modules.actor_critic import ActorCritic, Moments, advantages, clipped_loss


def column(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


NOTHING = column(0, 0, 0).bool()


def test_advantages_by_hand():
    reward, value, following = column(1, 2, 3), column(0.5, 1.0, 1.5), column(1.0, 1.5, 4.0)
    errors = [1 + 0.9 * 1.0 - 0.5, 2 + 0.9 * 1.5 - 1.0, 3 + 0.9 * 4.0 - 1.5]
    expected = [errors[0] + 0.72 * (errors[1] + 0.72 * errors[2]), errors[1] + 0.72 * errors[2], errors[2]]
    found = advantages(reward, value, following, NOTHING, NOTHING, 0.9, 0.8)
    assert found[:, 0].tolist() == pytest.approx(expected, rel=1e-6)


def test_an_end_is_worth_nothing_more_and_a_cut_is_worth_what_the_critic_says():
    reward, value, following = column(1, 2, 3), column(0.5, 1.0, 1.5), column(1.0, 7.0, 4.0)
    here = column(0, 1, 0).bool()
    ended = advantages(reward, value, following, here, NOTHING, 0.9, 0.8)[:, 0]
    cut = advantages(reward, value, following, NOTHING, here, 0.9, 0.8)[:, 0]
    assert ended[1].item() == pytest.approx(2 - 1.0)
    assert cut[1].item() == pytest.approx(2 + 0.9 * 7.0 - 1.0)
    for found in (ended, cut):  # neither looks beyond
        assert found[0].item() == pytest.approx(1 + 0.9 - 0.5 + 0.72 * found[1].item(), rel=1e-5)


def test_with_lambda_1_an_advantage_is_the_return_less_the_value():
    torch.manual_seed(0)
    reward, value = torch.randn(6, 2), torch.randn(6, 2)
    last = torch.randn(1, 2)
    nothing = torch.zeros(6, 2, dtype=torch.bool)
    found = advantages(reward, value, torch.cat([value[1:], last]), nothing, nothing, 0.95, 1.0)
    total = last[0]
    for t in reversed(range(6)):
        total = reward[t] + 0.95 * total
        assert torch.allclose(found[t] + value[t], total, atol=1e-5)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [(1.5, 2.0, -2.4, 0.0), (1.1, 2.0, -2.2, -2.0), (0.5, 2.0, -1.0, -2.0), (1.5, -2.0, 3.0, 2.0), (0.5, -2.0, 1.6, 0)],
)
def test_clipping_by_hand(ratio, advantage, loss, slope):
    ratio_B = torch.tensor([ratio], requires_grad=True)
    found = clipped_loss(ratio_B, torch.tensor([advantage]), 0.2)
    assert found.item() == pytest.approx(loss)
    found.sum().backward()
    assert ratio_B.grad.item() == pytest.approx(slope)


def test_moments_are_those_of_all_values_however_they_come():
    values = np.random.default_rng(0).normal(5, 3, (1000, 2)).astype(np.float32)
    moments = Moments((2,))
    for part in np.array_split(values, [10, 11, 400]):
        moments.update(torch.from_numpy(part), lambda total: total)
    assert moments.mean.tolist() == pytest.approx(values.mean(axis=0).tolist(), rel=1e-5)
    assert moments.variance.tolist() == pytest.approx(values.var(axis=0).tolist(), rel=1e-4)
    normal = moments.normal(torch.from_numpy(values))
    assert normal.mean(dim=0).abs().max() < 1e-4 and (normal.std(dim=0) - 1).abs().max() < 2e-3


def test_a_sum_over_two_ranks_gives_the_moments_of_both():
    values = torch.randn(40, 2) * 2 + 1
    parts, ours = values.split(25), [Moments((2,)) for _ in range(2)]
    # Each rank's third question is answered with the sum of what both would ask.
    questions = [[torch.tensor(float(len(part))), part.sum(dim=0)] for part in parts]
    mean = (questions[0][1] + questions[1][1]) / 40
    squares = [(part - mean).square().sum(dim=0) for part in parts]
    for moments, part in zip(ours, parts, strict=True):
        answers = iter([torch.tensor(40.0), questions[0][1] + questions[1][1], squares[0] + squares[1]])
        moments.update(part, lambda total, answers=answers: next(answers))
    assert torch.equal(ours[0].mean, ours[1].mean)
    assert torch.allclose(ours[0].mean, values.mean(dim=0), atol=1e-6)
    assert torch.allclose(ours[0].variance, values.var(dim=0, correction=0), rtol=1e-5)


def test_one_of_several_actions():
    torch.manual_seed(0)
    model = ActorCritic(input_shape=(3,), num_actions=4, action_dim=0)
    seen = torch.randn(1, 3).repeat(40_000, 1)
    logits, value = model(seen[:1])
    assert value.shape == (1,) and logits.abs().max() < 0.1  # nearly even at first
    share = model.explore(seen).bincount(minlength=4) / 40_000
    assert torch.allclose(share, logits[0].softmax(dim=0), atol=0.01)
    assert model.exploit(seen[:1]).item() == logits.argmax().item()


def test_numbers_of_an_action():
    torch.manual_seed(0)
    model = ActorCritic(input_shape=(3,), num_actions=0, action_dim=2, first_deviation=0.5)
    seen = torch.randn(1, 3).repeat(40_000, 1)
    mean = model.exploit(seen[:1])[0]
    actions = model.explore(seen)
    assert torch.allclose(actions.mean(dim=0), mean, atol=0.01) and torch.allclose(
        actions.std(dim=0), torch.tensor([0.5, 0.5]), atol=0.01
    )
    told = model._policy(seen[:1]).log_prob(actions[:1]).item()
    by_hand = sum(
        -0.5 * ((actions[0, k] - mean[k]).item() / 0.5) ** 2 - math.log(0.5 * math.sqrt(2 * math.pi)) for k in range(2)
    )
    assert told == pytest.approx(by_hand, rel=1e-4)


def test_losses_by_hand_leave_out_what_was_no_step():
    torch.manual_seed(0)
    model = ActorCritic(
        input_shape=(3,), num_actions=2, action_dim=0, entropy_weight=0.1, normalise_advantages=False,
        normalise_observations=False, normalise_returns=False,
    )  # fmt: skip
    seen, action = torch.randn(3, 3), torch.tensor([0, 1, 1])
    acted = torch.tensor([True, False, True])
    logits, value = model(seen)
    log_N2 = logits.log_softmax(dim=1)
    before = log_N2.gather(1, action[:, None])[:, 0].detach() - torch.tensor([0.1, 5.0, -0.3])
    found = model._losses(seen, action, before, torch.tensor([1.0, 9.0, 2.0]), torch.tensor([1.0, 9.0, 3.0]), acted)
    ratios = [math.exp(0.1), math.exp(-0.3)]
    policy = -(ratios[0] * 1.0 + min(ratios[1], 1.2) * 2.0) / 2
    values = ((value[0] - 1).item() ** 2 + (value[2] - 3).item() ** 2) / 2
    entropy = -(log_N2.exp() * log_N2).sum(dim=1)[[0, 2]].mean().item()
    assert found["policy_loss"].item() == pytest.approx(policy, rel=1e-4)
    assert found["value_loss"].item() == pytest.approx(values, rel=1e-4)
    assert found["loss"].item() == pytest.approx(policy + 0.5 * values - 0.1 * entropy, rel=1e-4)
    assert found["clipped"].item() == pytest.approx(0.5)  # exp(-0.3) is below 0.8


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gamma", 1.1), ("gae_lambda", -0.1), ("num_passes", 0), ("clip_range", 0.0), ("entropy_weight", -1.0),
        ("value_weight", -1.0), ("first_deviation", 0.0), ("hidden_dims", (0,)), ("lr", 0.0),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(key, value):
    with pytest.raises(ValueError, match=rf"model\.{key}: expected"):
        ActorCritic(input_shape=(3,), num_actions=2, action_dim=0, **{key: value})
