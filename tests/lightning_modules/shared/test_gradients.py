"""Gradients through time: against products of derivatives written out, and where they vanish."""

import math

import pytest
import torch
from torch import nn

from lightning_modules.shared.gradients import norms, recurrent_of
from lightning_modules.shared.recurrent import Recurrent, last

CELLS = [("rnn", "tanh"), ("rnn", "relu"), ("rnn", "sigmoid"), ("gru", "tanh"), ("lstm", "tanh")]
DERIVATIVE = {"tanh": lambda h: 1 - h**2, "relu": lambda h: float(h > 0), "sigmoid": lambda h: h * (1 - h)}
FUNCTION = {"tanh": math.tanh, "relu": lambda x: max(0.0, x), "sigmoid": lambda x: 1 / (1 + math.exp(-x))}


class Reader(nn.Module):
    """The mean over examples of the sum of what the last step says."""

    def __init__(self, recurrent):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.recurrent = recurrent

    def training_step(self, batch, batch_idx):
        length = batch.get("length")
        outputs, _ = self.recurrent(self.dropout(batch["inputs"]), length)
        if length is None:
            length = torch.full((len(outputs),), outputs.shape[1])
        return last(outputs, length, self.recurrent.num_directions).sum(dim=1).mean()


def scalar(activation, weight, recurrent_weight):
    module = Recurrent("rnn", 1, 1, activation=activation)
    cell = module.layers[0][0]
    with torch.no_grad():
        cell.weight_ih_l0.fill_(weight), cell.weight_hh_l0.fill_(recurrent_weight)
    return Reader(module)


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
def test_of_one_unit_it_is_the_product_of_the_derivatives_of_all_later_steps(activation):
    inputs = [0.3, -0.7, 1.1, 0.2, 0.5]
    weight, recurrent_weight = 0.8, 0.9
    hidden, states = 0.0, []
    for value in inputs:
        hidden = FUNCTION[activation](weight * value + recurrent_weight * hidden)
        states.append(hidden)
    want = [1.0]
    for state in reversed(states[1:]):
        want.append(want[-1] * abs(recurrent_weight * DERIVATIVE[activation](state)))
    batch = {"inputs": torch.tensor(inputs).reshape(1, 5, 1).repeat(3, 1, 1)}
    found = norms(scalar(activation, weight, recurrent_weight), batch)
    assert list(found) == ["hidden"] and found["hidden"].shape == (3, 5)
    for row in found["hidden"]:
        assert row.tolist() == pytest.approx(want, rel=1e-6)


def test_of_a_linear_network_it_is_the_recurrent_weight_to_the_power_of_the_distance():
    """A relu of positive values is linear: 0.5 vanishes as 2 to the minus 300, 2 explodes as 2 to the 300."""
    batch = {"inputs": torch.ones(1, 301, 1)}
    for weight in (0.5, 2.0):
        found = norms(scalar("relu", 1.0, weight), batch)["hidden"][0]
        assert found.tolist() == pytest.approx([weight**d for d in range(301)], rel=1e-12)


def test_the_memory_of_an_lstm_carries_the_product_of_its_forget_gates():
    """Gates that nothing reaches but their biases: dL/dc is output gate * tanh' * forget gate to the distance."""
    recurrent = Recurrent("lstm", 1, 1)
    cell = recurrent.layers[0][0]
    with torch.no_grad():
        cell.weight_ih_l0.zero_(), cell.weight_hh_l0.zero_()
        cell.bias_ih_l0[1] = 2.0
    found = norms(Reader(recurrent), {"inputs": torch.ones(2, 6, 1)})
    forget = FUNCTION["sigmoid"](2.0)  # the candidate is 0, so the memory is 0 and tanh' is 1; the output gate is 1 / 2
    assert found["memory"][0].tolist() == pytest.approx([0.5 * forget**d for d in range(6)], rel=1e-7)
    assert found["hidden"][1].tolist() == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(("cell", "activation"), CELLS)
def test_it_is_what_a_change_of_the_state_does_to_the_loss(cell, activation):
    """Central differences: the state after step 2 is altered and the rest read from there."""
    torch.manual_seed(0)
    recurrent = Recurrent(cell, 3, 4, activation=activation).double()
    inputs = torch.randn(1, 7, 3, dtype=torch.float64)
    found = norms(Reader(recurrent), {"inputs": inputs})["hidden"][0, 4]
    _, state = recurrent(inputs[:, :3])
    slopes = []
    for unit in range(4):
        ends = []
        for step in (1e-5, -1e-5):
            hidden = state[0].detach().clone()
            hidden[0, 0, unit] += step
            ends.append(recurrent(inputs[:, 3:], state=(hidden, *state[1:]))[0][:, -1].sum().item())
        slopes.append((ends[0] - ends[1]) / 2e-5)
    assert found.item() == pytest.approx(math.hypot(*slopes), rel=1e-6)


@pytest.mark.parametrize(("cell", "activation"), CELLS)
def test_step_by_step_is_the_same_network(cell, activation):
    torch.manual_seed(0)
    recurrent = Recurrent(cell, 3, 4, 2, bidirectional=True, activation=activation).double()
    inputs, length = torch.randn(4, 7, 3, dtype=torch.float64), torch.tensor([7, 3, 1, 5])
    want, state = recurrent(inputs, length)
    with recurrent.traced() as trace:
        found, after = recurrent(inputs, length)
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(after, state)
    assert [len(steps) for steps in trace.states] == [7] * 4 and recurrent.trace is None


@pytest.mark.parametrize("bidirectional", [False, True])
def test_distances_are_counted_from_each_example_s_own_end(bidirectional):
    torch.manual_seed(0)
    reader = Reader(Recurrent("gru", 3, 4, bidirectional=bidirectional))
    inputs, length = torch.randn(3, 7, 3), torch.tensor([7, 3, 5])
    together = norms(reader, {"inputs": inputs, "length": length})["hidden"]
    for i, steps in enumerate(length.tolist()):
        alone = norms(reader, {"inputs": inputs[i : i + 1, :steps]})["hidden"][0]
        torch.testing.assert_close(together[i, :steps], alone)
        assert together[i, steps:].isnan().all()


def test_the_sigmoid_vanishes_over_100_steps_where_an_lstm_that_remembers_does_not():
    torch.manual_seed(0)
    inputs = {"inputs": torch.randn(8, 101, 8)}
    sigmoid = norms(Reader(Recurrent("rnn", 8, 32, activation="sigmoid")), inputs)["hidden"].mean(dim=0)
    memory = norms(Reader(Recurrent("lstm", 8, 32, memory_steps=200)), inputs)["memory"].mean(dim=0)
    assert sigmoid[100] < 1e-20 * sigmoid[0]
    assert memory[100] > 0.1 * memory[0]


def test_the_module_is_left_as_it_was():
    reader = Reader(Recurrent("lstm", 3, 4)).train()
    norms(reader, {"inputs": torch.randn(2, 5, 3)})
    assert reader.training and reader.recurrent.trace is None
    assert all(p.dtype == torch.float32 and p.grad is None for p in reader.parameters())


def test_a_module_without_recurrence_is_refused():
    assert recurrent_of(nn.Linear(2, 2)) is None
    with pytest.raises(ValueError, match="Linear has no recurrent layer"):
        norms(nn.Linear(2, 2), {"inputs": torch.ones(1, 2)})
