"""Recurrent layers of every cell, over padded batches, with the fused kernels.

Shapes: B batch, T steps, D input, H hidden, L layers times directions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_modules.shared.lstm import LSTMCell

Cell = Literal["rnn", "gru", "lstm"]
CellActivation = Literal["tanh", "relu", "sigmoid"]
State = tuple[Tensor, ...]
"""The hidden state (L, B, H); of an LSTM the hidden state and the memory."""


@dataclass
class Trace:
    """What :meth:`Recurrent.traced` writes down of a forward pass.

    Attributes:
        states: Of each layer and direction, in order, the state after each step in the order of reading; tensors of
            shape (B, H).
        length_B: Length of each sequence; None where all are of full length.
    """

    states: list[list[State]] = field(default_factory=list)
    length_B: Tensor | None = None


class Recurrent(nn.Module):
    """Layers of recurrent cells.

    Padding changes nothing: of a padded batch each sequence is reversed by its own length for the backward direction.
    That is exact, and on a CPU five to seven times as fast as a packed sequence, which misses the fused kernel.

    Args:
        cell: rnn (Elman 1990), gru (Cho et al. 2014, arXiv:1406.1078) or lstm (Hochreiter and Schmidhuber 1997).
        input_dim: D.
        hidden_dim: H, of each direction.
        num_layers: Layers, each above the one before.
        bidirectional: Whether a second set of cells reads from the end; outputs then have 2 H features.
        dropout: Probability that a feature is left out of a training step between two layers.
        activation: Of rnn: tanh, relu or sigmoid.
        memory_steps: Steps for which gates remember before training, from 3: a gate that keeps what is remembered (of
            lstm the forget gate, of gru the update gate) begins with the bias log(u), u drawn between 1 and one less
            than this, and an lstm's input gate with the opposite ("chrono", Tallec and Ollivier 2018,
            arXiv:1804.11188). With 0 the bias is 1 of lstm's forget gate (Jozefowicz, Zaremba and Sutskever 2015),
            which remembers for three or four steps, and else 0.

    Raises:
        ValueError: A value is out of range; one line that names its key.
    """

    def __init__(
        self,
        cell: Cell,
        input_dim: int,
        hidden_dim: int,
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        activation: CellActivation = "tanh",
        memory_steps: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("hidden_dim", hidden_dim), ("num_layers", num_layers)):
            if value < 1:
                raise ValueError(f"model.{name}: expected at least 1, got {value}")
        if memory_steps and memory_steps < 3:
            raise ValueError(f"model.memory_steps: expected 0, or at least 3, got {memory_steps}")
        if not 0 <= dropout < 1:
            raise ValueError(f"model.dropout: expected a fraction from 0 to below 1, got {dropout}")
        self.cell, self.activation, self.hidden_dim = cell, activation, hidden_dim
        self.memory_steps = memory_steps
        self.trace: Trace | None = None
        self.num_directions = 2 if bidirectional else 1
        self.output_dim = hidden_dim * self.num_directions
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList()
        for number in range(num_layers):
            width = input_dim if number == 0 else self.output_dim
            self.layers.append(nn.ModuleList(self._layer(width) for _ in range(self.num_directions)))

    def _layer(self, input_dim: int) -> nn.RNNBase:
        if self.cell == "rnn":
            # A sigmoid is a tanh of other weights: see `_run`.
            kind = "relu" if self.activation == "relu" else "tanh"
            layer: nn.RNNBase = nn.RNN(input_dim, self.hidden_dim, batch_first=True, nonlinearity=kind)
        else:
            layer = {"gru": nn.GRU, "lstm": nn.LSTM}[self.cell](input_dim, self.hidden_dim, batch_first=True)
        for name, parameter in layer.named_parameters():
            if name.startswith("weight_ih"):
                nn.init.xavier_uniform_(parameter)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(parameter)  # Saxe et al. 2014: neither shrinks nor grows what it carries
            else:
                nn.init.zeros_(parameter)
        if self.cell != "rnn":
            self._remember(layer)
        return layer

    @torch.no_grad()
    def _remember(self, layer: nn.RNNBase) -> None:
        """Set the biases of the gates; in PyTorch's order the one that keeps is the second, of lstm and gru."""
        first_H, keeps_H, *_ = layer.bias_ih_l0.split(self.hidden_dim)
        if self.memory_steps:
            keeps_H.uniform_(1, self.memory_steps - 1).log_()
            if self.cell == "lstm":
                first_H.copy_(-keeps_H)
        elif self.cell == "lstm":
            keeps_H.fill_(1.0)

    def forward(
        self, inputs_BTD: Tensor, length_B: Tensor | None = None, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Run all layers.

        Args:
            inputs_BTD: Inputs; what is beyond a sequence's length does not matter.
            length_B: Length of each sequence, at least 1; None where all are T. Needed to read backward.
            state: State to go on from; None begins with zeros.

        Returns:
            Outputs, shape (B, T, directions * H), and the state after step T. Of sequences shorter than T that state
            is of no use: see :func:`last`.
        """
        reverse_BT1 = _reversal(length_B, inputs_BTD) if self.num_directions == 2 else None
        if self.trace is not None:
            self.trace.length_B = length_B
        outputs_BTH, states = inputs_BTD, []
        for number, directions in enumerate(self.layers):
            layer_input = self.dropout(outputs_BTH) if number else outputs_BTH
            parts = []
            for way, layer in enumerate(directions):
                place = number * self.num_directions + way
                before = None if state is None else tuple(part[place : place + 1].contiguous() for part in state)
                read = layer_input if way == 0 else _reordered(layer_input, reverse_BT1)
                run = self._run if self.trace is None else self._run_traced
                part, after = run(layer, read, before)
                parts.append(part if way == 0 else _reordered(part, reverse_BT1))
                states.append(after)
            outputs_BTH = torch.cat(parts, dim=2) if len(parts) == 2 else parts[0]
        return outputs_BTH, tuple(torch.cat(part) for part in zip(*states, strict=True))

    @contextmanager
    def traced(self) -> Iterator[Trace]:
        """Run step by step while inside, and write each state down.

        The results are the same. Every path through time leads through the tensors of the trace, an LSTM's memory among
        them, so that the loss can be differentiated by each.
        """
        self.trace = Trace()
        try:
            yield self.trace
        finally:
            self.trace = None

    def _run_traced(self, layer: nn.RNNBase, inputs_BTD: Tensor, state: State | None) -> tuple[Tensor, State]:
        assert self.trace is not None
        # Within a fused step the hidden state would not be seen to depend on the memory.
        cell = LSTMCell.of(layer) if isinstance(layer, nn.LSTM) else None
        now = None if state is None else tuple(part[0] for part in state)
        states: list[State] = []
        for step_B1D in inputs_BTD.split(1, dim=1):
            if cell is None:
                _, after = self._run(layer, step_B1D, None if now is None else (now[0][None],))
                now = (after[0][0],)
            else:
                gates = cell(step_B1D[:, 0], *(now or 2 * (step_B1D.new_zeros(len(step_B1D), self.hidden_dim),)))
                now = gates.hidden, gates.memory
            states.append(now)
        self.trace.states.append(states)
        return torch.stack([hidden for hidden, *_ in states], dim=1), tuple(part[None] for part in states[-1])

    def _run(self, layer: nn.RNNBase, inputs_BTD: Tensor, state: State | None) -> tuple[Tensor, State]:
        if self.cell == "lstm":
            return layer(inputs_BTD, state)
        hidden = None if state is None else state[0]
        if self.cell == "gru" or self.activation != "sigmoid":
            outputs_BTH, hidden = layer(inputs_BTD, hidden)
            return outputs_BTH, (hidden,)
        # There is no fused kernel of a sigmoid. With h = (1 + g) / 2, h = sigmoid(W x + U h + b) is
        # g = tanh((W x + b + U 1 / 2) / 2 + U g / 4), for which there is one.
        weights = [
            layer.weight_ih_l0 / 2,
            layer.weight_hh_l0 / 4,
            (layer.bias_ih_l0 + layer.weight_hh_l0.sum(dim=1) / 2) / 2,
            layer.bias_hh_l0 / 2,
        ]
        if hidden is None:
            hidden = inputs_BTD.new_zeros(1, len(inputs_BTD), self.hidden_dim)
        outputs_BTH, hidden = torch.rnn_tanh(
            inputs_BTD, 2 * hidden - 1, weights, has_biases=True, num_layers=1, dropout=0.0, train=self.training,
            bidirectional=False, batch_first=True,
        )  # fmt: skip
        return (1 + outputs_BTH) / 2, ((1 + hidden) / 2,)


def last(outputs_BTH: Tensor, length_B: Tensor, num_directions: int = 1) -> Tensor:
    """What each sequence's last step says, and of a second direction its first step, where that one has read all.

    Args:
        outputs_BTH: Outputs of :class:`Recurrent`.
        length_B: Length of each sequence, at least 1.
        num_directions: 1 or 2.

    Returns:
        Shape (B, directions * H).
    """
    half = outputs_BTH.shape[2] // num_directions
    end_B = outputs_BTH[torch.arange(len(length_B), device=outputs_BTH.device), length_B - 1, :half]
    return end_B if num_directions == 1 else torch.cat([end_B, outputs_BTH[:, 0, half:]], dim=1)


def mask(length_B: Tensor, num_steps: int) -> Tensor:
    """Which steps are within each sequence, bool, shape (B, T)."""
    return torch.arange(num_steps, device=length_B.device) < length_B[:, None]


def _reversal(length_B: Tensor | None, inputs_BTD: Tensor) -> Tensor:
    """Where each step of a sequence reversed by its own length comes from, int64, shape (B, T, 1)."""
    num_steps = inputs_BTD.shape[1]
    step_T = torch.arange(num_steps, device=inputs_BTD.device)
    if length_B is None:
        return step_T.flip(0)[None, :, None].expand(len(inputs_BTD), -1, -1)
    end_B1 = length_B[:, None]
    return torch.where(step_T < end_B1, end_B1 - 1 - step_T, step_T)[:, :, None]


def _reordered(values_BTD: Tensor, place_BT1: Tensor) -> Tensor:
    return values_BTD.gather(1, place_BT1.expand(-1, -1, values_BTD.shape[2]))
