import math

import pytest
import torch

from lightning_modules.shared.attention import MIXED_FEATURES, Attention

KINDS = ("luong", "bahdanau")


@pytest.mark.parametrize("kind", KINDS)
def test_weights_sum_to_one_and_ignore_padding(kind):
    torch.manual_seed(0)
    attention = Attention(kind, 6)
    padding = torch.tensor([[False] * 5, [False, False, True, True, True]])
    values = torch.randn(2, 5, 6)
    mean, weight = attention(torch.randn(2, 3, 6), attention.memory(values, padding))
    torch.testing.assert_close(weight.sum(dim=-1), torch.ones(2, 3))
    assert (weight[1, :, 2:] == 0).all() and (weight[0] > 0).all()
    torch.testing.assert_close(mean, torch.einsum("bts,bsh->bth", weight, values))
    changed = values.masked_fill(padding[..., None], 1e6)
    torch.testing.assert_close(attention(torch.ones(2, 3, 6), attention.memory(changed, padding))[1],
                               attention(torch.ones(2, 3, 6), attention.memory(values, padding))[1])  # fmt: skip


def test_luong_by_hand():
    attention = Attention("luong", 2)
    torch.nn.init.eye_(attention.key.weight)
    values = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    memory = attention.memory(values, torch.zeros(1, 2, dtype=torch.bool))
    _, weight = attention(torch.tensor([[[math.log(3), 0.0]]]), memory)
    torch.testing.assert_close(weight, torch.tensor([[[0.75, 0.25]]]))


def test_bahdanau_by_hand():
    attention = Attention("bahdanau", 2)
    torch.nn.init.eye_(attention.key.weight)
    torch.nn.init.eye_(attention.query.weight)
    torch.nn.init.zeros_(attention.query.bias)
    torch.nn.init.constant_(attention.energy.weight, 2.0)
    values, state = torch.tensor([[[0.5, 0.0], [0.0, -1.0]]]), torch.tensor([[[0.2, 0.3]]])
    _, weight = attention(state, attention.memory(values, torch.zeros(1, 2, dtype=torch.bool)))
    energies = [2 * (math.tanh(0.7) + math.tanh(0.3)), 2 * (math.tanh(0.2) + math.tanh(-0.7))]
    torch.testing.assert_close(weight[0, 0], torch.tensor(energies).softmax(dim=0))


def test_long_sequences_in_parts_have_the_scores_and_gradients_of_the_whole():
    torch.manual_seed(0)
    attention, states, values = Attention("bahdanau", 64), torch.randn(2, 900, 64), torch.randn(2, 300, 64)
    assert states.numel() * 300 > MIXED_FEATURES
    memory = attention.memory(values, torch.zeros(2, 300, dtype=torch.bool))
    mean, weight = attention(states, memory)
    mean.square().sum().backward()
    gradients = [p.grad.clone() for p in attention.parameters()]
    attention.zero_grad()
    memory = attention.memory(values, torch.zeros(2, 300, dtype=torch.bool))
    pieces = [attention(some, memory) for some in states.split(300, dim=1)]
    torch.testing.assert_close(torch.cat([weight for _, weight in pieces], dim=1), weight)
    sum(some.square().sum() for some, _ in pieces).backward()
    for parameter, gradient in zip(attention.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-4)
