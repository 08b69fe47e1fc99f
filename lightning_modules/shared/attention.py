"""Attention of a decoder over what an encoder has read.

Shapes: B batch, S steps of the source, T steps of the decoder, H hidden.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

AttentionKind = Literal["luong", "bahdanau"]

MIXED_FEATURES = 1 << 25
"""Features of pairs of states and source steps, B * T * S * H, that bahdanau holds at once: 128 MiB of float32."""


class Memory(NamedTuple):
    """What is attended to.

    Args:
        values_BSH: Outputs of the encoder.
        keys_BSH: What the decoder's states are compared with.
        padding_BS: Where there is nothing.
    """

    values_BSH: Tensor
    keys_BSH: Tensor
    padding_BS: Tensor

    def repeated(self, times: int) -> "Memory":
        """Each example ``times`` times, side by side: one for each beam of a search."""
        return Memory(*(part.repeat_interleave(times, dim=0) for part in self)) if times > 1 else self


class Attention(nn.Module):
    """Weights over the source for each state of a decoder.

    Args:
        kind: luong scores a state h and a source step s by h W s (Luong et al. 2015, arXiv:1508.04025, "general");
            bahdanau by v tanh(W h + U s) (Bahdanau et al. 2015, arXiv:1409.0473), here with the state that follows the
            step and not the one before it, so that all steps of a known target are one computation.
        dim: H.
    """

    def __init__(self, kind: AttentionKind, dim: int) -> None:
        super().__init__()
        self.key = nn.Linear(dim, dim, bias=False)
        self.query = nn.Linear(dim, dim) if kind == "bahdanau" else None
        self.energy = nn.Linear(dim, 1, bias=False) if kind == "bahdanau" else None

    def memory(self, values_BSH: Tensor, padding_BS: Tensor) -> Memory:
        """What all steps of a decoder share."""
        return Memory(values_BSH, self.key(values_BSH), padding_BS)

    def forward(self, state_BTH: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Means of the source weighted for each state, (B, T, H), and the weights, (B, T, S), float32.

        The weights of a state sum to 1, and are 0 on padding.
        """
        if self.query is None:
            score_BTS = state_BTH @ memory.keys_BSH.transpose(1, 2)
        else:
            score_BTS = self._mixed(self.query(state_BTH), memory.keys_BSH)
        weight_BTS = score_BTS.float().masked_fill(memory.padding_BS[:, None], -torch.inf).softmax(dim=-1)
        return weight_BTS.to(memory.values_BSH.dtype) @ memory.values_BSH, weight_BTS

    def _mixed(self, query_BTH: Tensor, keys_BSH: Tensor) -> Tensor:
        """Scores by a layer, (B, T, S): of long sequences some states at a time, computed again backwards."""

        def some(query_BTH: Tensor, keys_BSH: Tensor) -> Tensor:
            return self.energy(torch.tanh(query_BTH[:, :, None] + keys_BSH[:, None])).squeeze(-1)

        parts = query_BTH.split(max(1, MIXED_FEATURES // keys_BSH.numel()), dim=1)
        if len(parts) == 1:
            return some(query_BTH, keys_BSH)
        return torch.cat([checkpoint(some, part, keys_BSH, use_reentrant=False) for part in parts], dim=1)
