"""The long short-term memory, readable: what ``torch.nn.LSTM`` computes, gate by gate.

The fused kernel trains; this one explains, and a test holds the two equal. S. Hochreiter and J. Schmidhuber 1997, "Long
Short-Term Memory"; the forget gate is of F. Gers, J. Schmidhuber and F. Cummins 2000, "Learning to Forget".

Shapes: B batch, T steps, D input, H hidden.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Gates(NamedTuple):
    """A step of the cell, or all steps of a sequence; each of shape (B, H), or (B, T, H).

    Args:
        input: How much of the candidate enters the memory, in (0, 1).
        forget: How much of the memory stays, in (0, 1).
        candidate: What would be remembered, in (-1, 1).
        output: How much of the memory is shown, in (0, 1).
        memory: The memory cell after the step.
        hidden: What is shown: the step's output, in (-1, 1).
    """

    input: Tensor
    forget: Tensor
    candidate: Tensor
    output: Tensor
    memory: Tensor
    hidden: Tensor


class LSTMCell(nn.Module):
    """One step of a long short-term memory.

    Args:
        input_dim: D.
        hidden_dim: H.
    """

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.from_input = nn.Linear(input_dim, 4 * hidden_dim)
        self.from_hidden = nn.Linear(hidden_dim, 4 * hidden_dim)

    @classmethod
    def of(cls, layer: nn.LSTM) -> "LSTMCell":
        """The cell of a fused layer of one direction, with the layer's own parameters, which are shared."""
        cell = cls(layer.input_size, layer.hidden_size)
        cell.from_input.weight, cell.from_input.bias = layer.weight_ih_l0, layer.bias_ih_l0
        cell.from_hidden.weight, cell.from_hidden.bias = layer.weight_hh_l0, layer.bias_hh_l0
        return cell

    def forward(self, input_BD: Tensor, hidden_BH: Tensor, memory_BH: Tensor) -> Gates:
        """The gates, and the memory and hidden state after the step."""
        both_B4H = self.from_input(input_BD) + self.from_hidden(hidden_BH)
        input_BH, forget_BH, candidate_BH, output_BH = both_B4H.chunk(4, dim=1)
        input_BH, forget_BH, output_BH = input_BH.sigmoid(), forget_BH.sigmoid(), output_BH.sigmoid()
        candidate_BH = candidate_BH.tanh()
        memory_BH = forget_BH * memory_BH + input_BH * candidate_BH
        return Gates(input_BH, forget_BH, candidate_BH, output_BH, memory_BH, output_BH * memory_BH.tanh())

    def unroll(self, inputs_BTD: Tensor) -> Gates:
        """All steps of sequences, from an empty memory; each of shape (B, T, H)."""
        hidden_BH = memory_BH = inputs_BTD.new_zeros(len(inputs_BTD), self.from_hidden.in_features)
        steps: list[Gates] = []
        for input_BD in inputs_BTD.unbind(dim=1):
            steps.append(self(input_BD, hidden_BH, memory_BH))
            hidden_BH, memory_BH = steps[-1].hidden, steps[-1].memory
        return Gates(*(torch.stack(values, dim=1) for values in zip(*steps, strict=True)))
