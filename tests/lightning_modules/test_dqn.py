"""The deep Q-network: what it wants each action to be worth, by hand; exploration; its target network; what it sees."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_modules.dqn import DQN, Dueling


class Trainer:
    """What a module asks of its trainer here."""

    estimated_stepping_batches = 100
    global_step = 0


def model_of(**changes):
    torch.manual_seed(0)
    return DQN(input_shape=(3,), num_actions=2, hidden_dims=(8,), **changes)


def batch_of(updates=2, size=4, steps=1):
    generator = torch.Generator().manual_seed(1)
    shape = (updates, size)
    return {
        "seen": torch.randn(*shape, 3, generator=generator),
        "action": torch.randint(2, shape, generator=generator),
        "rewards": torch.randn(*shape, steps, generator=generator),
        "steps": torch.full(shape, steps),
        "terminated": torch.rand(shape, generator=generator) < 0.5,
        "next_seen": torch.randn(*shape, 3, generator=generator),
        "weight": torch.ones(shape),
        "place": torch.zeros(*shape, 2, dtype=torch.int64),
    }


class Moved:
    """Stands in for a turn: takes the losses down, and moves by plain gradient descent."""

    def __init__(self, model, rate=0.0):
        self.model, self.rate, self.losses = model, rate, []

    def __call__(self, name):
        return self

    def __enter__(self):
        def move(loss):
            self.losses.append(loss.item())
            self.model.network.zero_grad()
            loss.backward()
            for p in self.model.network.parameters():
                p.data -= self.rate * p.grad

        return move

    def __exit__(self, *error):
        return None


def stepped(model, batch, monkeypatch, rate=0.0, done=0):
    """Losses of a training step, and the errors that it tells the data of."""
    turn, told = Moved(model, rate), []
    model.learned = lambda place, error: told.append(error)
    model.turn = turn
    trainer = Trainer()
    monkeypatch.setattr(DQN, "global_step", done)
    monkeypatch.setattr(DQN, "trainer", trainer)
    values = model.training_step(batch, 0)
    return turn.losses, told[0], values


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("dueling", [False, True])
def test_losses_by_hand(monkeypatch, double, dueling):
    model, batch = model_of(double=double, dueling=dueling, gamma=0.9), batch_of(steps=3)
    for p in model.target.parameters():
        p.data += 0.3 * torch.randn(p.shape)
    with torch.no_grad():
        expected = []
        for u in range(2):
            for b in range(4):
                worth = model.network(batch["seen"][u, b : b + 1])[0, batch["action"][u, b]]
                ours, theirs = (net(batch["next_seen"][u, b : b + 1])[0] for net in (model.network, model.target))
                following = theirs[ours.argmax()] if double else theirs.max()
                wanted = sum(0.9**k * batch["rewards"][u, b, k] for k in range(3))
                if not batch["terminated"][u, b]:
                    wanted = wanted + 0.9**3 * following
                expected.append((F.smooth_l1_loss(worth, wanted).item(), (worth - wanted).abs().item()))
    losses, errors, _ = stepped(model, batch, monkeypatch)
    assert losses == [pytest.approx(sum(loss for loss, _ in expected[4 * u : 4 * u + 4]) / 4, rel=1e-5) for u in (0, 1)]
    assert errors.flatten().tolist() == pytest.approx([error for _, error in expected], rel=1e-4)


def test_weights_of_what_is_drawn_too_often_count_fully_in_the_end(monkeypatch):
    batch = batch_of()
    batch["weight"] = torch.tensor([[1.0, 4.0, 1.0, 1.0], [1.0, 1.0, 1.0, 16.0]])
    plain = stepped(model_of(), batch | {"weight": torch.ones(2, 4)}, monkeypatch)[1]
    huber = torch.where(plain < 1, 0.5 * plain**2, plain - 0.5)
    for done, exponent in ((0, 0.4), (100, 1.0)):
        losses, _, _ = stepped(model_of(importance_start=0.4), batch, monkeypatch, done=done)
        weight = batch["weight"] ** exponent / batch["weight"].amax(dim=1, keepdim=True) ** exponent
        assert losses == pytest.approx((weight * huber).mean(dim=1).tolist(), rel=1e-5)


def test_later_updates_see_the_network_that_earlier_ones_have_moved(monkeypatch):
    batch = batch_of(updates=1)
    batch = {name: column.repeat(20, *[1] * (column.ndim - 1)) for name, column in batch.items()}
    losses, _, _ = stepped(model_of(), batch, monkeypatch, rate=0.05)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(("rate", "every"), [(1.0, 1), (0.25, 1), (1.0, 2)])
def test_the_target_network_follows(monkeypatch, rate, every):
    model = model_of(target_rate=rate, target_every=every)
    before = [p.clone() for p in model.target.parameters()]
    for p in model.network.parameters():
        p.data += 1.0
    stepped(model, batch_of(), monkeypatch, done=1)
    now = list(model.target.parameters())
    moved = rate if every == 1 else 0.0
    assert all(torch.allclose(p, b + moved) for p, b in zip(now, before, strict=True))
    assert not any(p.requires_grad for p in now)


def test_exploration_falls_in_a_line_and_stays(monkeypatch):
    model = model_of(epsilon_start=0.9, epsilon_end=0.1, exploration_fraction=0.5)
    monkeypatch.setattr(DQN, "trainer", Trainer())
    for done, expected in ((0, 0.9), (25, 0.5), (50, 0.1), (100, 0.1)):
        monkeypatch.setattr(DQN, "global_step", done)
        assert model.epsilon == pytest.approx(expected)
    monkeypatch.setattr(DQN, "global_step", 25)
    seen = torch.randn(1, 3).repeat(20_000, 1)
    torch.manual_seed(0)
    actions = model.explore(seen)
    best = model.exploit(seen[:1])
    assert (actions == best).float().mean().item() == pytest.approx(1 - 0.5 / 2, abs=0.02)


def test_dueling_heads_by_hand():
    head = Dueling(2, 3)
    with torch.no_grad():
        head.state.weight.copy_(torch.tensor([[1.0, 0.0]]))
        head.advantage.weight.copy_(torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 6.0]]))
        for layer in (head.state, head.advantage):
            layer.bias.zero_()
        assert head(torch.tensor([[10.0, 1.0]])).tolist() == [[8.0, 9.0, 13.0]]


def test_it_sees_pictures():
    model = DQN(input_shape=(4, 40, 40), num_actions=3, hidden_dims=(16,))
    assert [m.out_channels for m in model.network.modules() if isinstance(m, nn.Conv2d)] == [32, 64, 64]
    seen = torch.randint(256, (2, 4, 40, 40), dtype=torch.uint8)
    worth = model(seen)
    assert worth.shape == (2, 3) and torch.equal(worth, model(seen.float()))
    with pytest.raises(ValueError, match=r"data\.image_side: expected at least 36, got 30"):
        DQN(input_shape=(4, 30, 30), num_actions=3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gamma", 1.1), ("epsilon_start", -0.1), ("epsilon_end", 2.0), ("exploration_fraction", 1.5),
        ("importance_start", -1.0), ("target_rate", 0.0), ("target_every", 0), ("hidden_dims", ()), ("lr", 0.0),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(key, value):
    with pytest.raises(ValueError, match=rf"model\.{key}: expected"):
        DQN(input_shape=(3,), num_actions=2, **{key: value})
