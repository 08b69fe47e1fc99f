"""Recurrent layers: against PyTorch's own, packed, and against a loop written out."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lightning_modules.shared.lstm import LSTMCell
from lightning_modules.shared.recurrent import Recurrent, last, mask

LENGTHS = torch.tensor([7, 3, 1, 5])
CELLS = [("rnn", "tanh"), ("rnn", "relu"), ("rnn", "sigmoid"), ("gru", "tanh"), ("lstm", "tanh")]


def gradients(module):
    return [p.grad.clone() for p in module.parameters()]


@pytest.mark.parametrize(("cell", "activation"), [c for c in CELLS if c[1] != "sigmoid"])
def test_two_bidirectional_layers_over_padded_sequences_are_pytorch_s_packed(cell, activation):
    torch.manual_seed(0)
    ours = Recurrent(cell, 6, 5, 2, bidirectional=True, activation=activation).double()
    kind = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell]
    options = {"nonlinearity": activation} if cell == "rnn" else {}
    theirs = kind(6, 5, 2, batch_first=True, bidirectional=True, **options).double()
    for number, way in itertools.product(range(2), range(2)):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            value = getattr(ours.layers[number][way], f"{name}_l0").data
            getattr(theirs, f"{name}_l{number}{'_reverse' * way}").data = value.clone()
    inputs = torch.randn(4, 7, 6, dtype=torch.float64)
    found, _ = ours(inputs, LENGTHS)
    packed = theirs(pack_padded_sequence(inputs, LENGTHS, batch_first=True, enforce_sorted=False))
    want = pad_packed_sequence(packed[0], batch_first=True)[0]
    inside = mask(LENGTHS, 7)
    torch.testing.assert_close(found[inside], want[inside])
    hidden = packed[1][0] if cell == "lstm" else packed[1]
    torch.testing.assert_close(last(found, LENGTHS, 2), torch.cat([hidden[2], hidden[3]], dim=1))
    (found[inside] ** 2).sum().backward()
    (want[inside] ** 2).sum().backward()
    torch.testing.assert_close(ours.layers[0][1].weight_hh_l0.grad, theirs.weight_hh_l0_reverse.grad)


def test_the_sigmoid_cell_is_the_recurrence_written_out():
    torch.manual_seed(0)
    layer = Recurrent("rnn", 3, 4, activation="sigmoid").double()
    cell = layer.layers[0][0]
    nn.init.normal_(cell.bias_ih_l0), nn.init.normal_(cell.bias_hh_l0)
    inputs, hidden = torch.randn(2, 6, 3, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.float64)
    found, state = layer(inputs)
    found.sin().sum().backward()
    ours = gradients(cell)
    cell.zero_grad()
    steps = []
    for input_BD in inputs.unbind(1):
        hidden = (
            input_BD @ cell.weight_ih_l0.T + hidden @ cell.weight_hh_l0.T + cell.bias_ih_l0 + cell.bias_hh_l0
        ).sigmoid()
        steps.append(hidden)
    want = torch.stack(steps, 1)
    want.sin().sum().backward()
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(state[0][0], hidden)
    torch.testing.assert_close(ours, gradients(cell))


@pytest.mark.parametrize(("cell", "activation"), CELLS)
def test_a_carried_state_continues_the_sequence(cell, activation):
    torch.manual_seed(0)
    layer = Recurrent(cell, 3, 4, 2, activation=activation)
    inputs = torch.randn(2, 9, 3)
    whole, end = layer(inputs)
    first, state = layer(inputs[:, :4])
    second, after = layer(inputs[:, 4:], state=state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(after, end)


@pytest.mark.parametrize(("cell", "activation"), CELLS)
def test_padding_changes_nothing(cell, activation):
    torch.manual_seed(0)
    layer = Recurrent(cell, 3, 4, 2, bidirectional=True, activation=activation)
    inputs = torch.randn(4, 7, 3)
    longer = torch.cat([inputs, torch.full((4, 5, 3), 99.0)], dim=1)
    inside = mask(LENGTHS, 7)
    torch.testing.assert_close(layer(inputs, LENGTHS)[0][inside], layer(longer, LENGTHS)[0][:, :7][inside])
    for i, length in enumerate(LENGTHS.tolist()):
        alone = layer(inputs[i : i + 1, :length])[0]
        torch.testing.assert_close(alone[0], layer(inputs, LENGTHS)[0][i, :length])


def test_an_lstm_begins_by_remembering():
    layer = Recurrent("lstm", 3, 4).layers[0][0]
    assert (layer.bias_ih_l0 + layer.bias_hh_l0).tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_gates_that_remember_for_many_steps_keep_between_half_and_all(cell):
    """Keeping k = 1 - 1 / (u + 1), u from 1 to 99, is remembering for u + 1 steps, 2 to 100."""
    torch.manual_seed(0)
    biases = Recurrent(cell, 3, 500, memory_steps=100).layers[0][0].bias_ih_l0.split(500)
    steps = 1 / (1 - biases[1].sigmoid())
    assert 2 <= steps.min() < 4 and 98 < steps.max() <= 100 + 1e-3
    assert steps.mean().item() == pytest.approx(51, abs=3)
    others = [-biases[1]] if cell == "lstm" else [torch.zeros(500)]
    assert torch.equal(biases[0], others[0]) and all(not part.any() for part in biases[2:])


@pytest.mark.parametrize(("key", "options"), [("hidden_dim", (0, 1)), ("num_layers", (4, 0))])
def test_a_value_out_of_range_is_named(key, options):
    with pytest.raises(ValueError, match=f"model.{key}: expected at least 1, got 0"):
        Recurrent("lstm", 3, *options)


def test_no_memory_is_shorter_than_three_steps():
    with pytest.raises(ValueError, match=r"model.memory_steps: expected 0, or at least 3, got 2"):
        Recurrent("lstm", 3, 4, memory_steps=2)


def test_the_readable_lstm_is_pytorch_s_to_a_millionth():
    torch.manual_seed(0)
    fused = nn.LSTM(8, 16, batch_first=True)
    inputs = torch.randn(5, 40, 8, requires_grad=True)
    copy = inputs.detach().clone().requires_grad_()
    want, (hidden, memory) = fused(inputs)
    (want**2).sum().backward()
    theirs = gradients(fused)
    fused.zero_grad()
    gates = LSTMCell.of(fused).unroll(copy)
    (gates.hidden**2).sum().backward()
    torch.testing.assert_close(gates.hidden, want, atol=1e-6, rtol=0)
    torch.testing.assert_close(gates.hidden[:, -1], hidden[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(gates.memory[:, -1], memory[0], atol=1e-6, rtol=0)
    scale = max(float(g.abs().max()) for g in theirs)
    torch.testing.assert_close(gradients(fused), theirs, atol=1e-6 * scale, rtol=0)
    torch.testing.assert_close(copy.grad, inputs.grad, atol=1e-6, rtol=0)
    assert gates.forget.detach().min() > 0 and gates.forget.detach().max() < 1


def test_a_gate_does_what_its_name_says():
    cell = LSTMCell(1, 1)
    for parameter in cell.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        cell.from_input.bias.copy_(torch.tensor([-50.0, 50.0, 0.3, 50.0]))  # input shut, forget open, output open
    step = cell(torch.zeros(1, 1), torch.zeros(1, 1), torch.tensor([[0.7]]))
    assert step.memory.item() == pytest.approx(0.7) and step.hidden.item() == pytest.approx(
        torch.tensor(0.7).tanh().item()
    )
