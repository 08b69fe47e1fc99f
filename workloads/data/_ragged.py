"""Examples whose lengths vary, as sequences of tokens: held end to end, padded a whole batch at a time.

Shapes: N examples, S tokens of all of them, B examples of a batch, T tokens of its longest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from workloads.data._batches import Batch, Examples

PAD = 0
"""The token that fills up a batch; no text has it."""


@dataclass(frozen=True)
class Sequences:
    """Sequences of tokens, end to end.

    Args:
        flat: All tokens, int32, shape (S,).
        offsets: Where in ``flat`` each sequence begins, and S, int64, shape (N + 1,).
    """

    flat: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, flat: Tensor, lengths: Tensor) -> Self:
        """Sequences of known lengths."""
        return cls(flat.to(torch.int32), torch.cat([torch.zeros(1, dtype=torch.int64), lengths.long().cumsum(0)]))

    @classmethod
    def join(cls, parts: Iterable[Self]) -> Self:
        """Several one after the other."""
        parts = list(parts)
        return cls.of(torch.cat([p.flat for p in parts]), torch.cat([p.lengths for p in parts]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """Tokens of each sequence, int64, shape (N,)."""
        return self.offsets.diff()

    def __getitem__(self, i: int) -> Tensor:
        """The tokens of one sequence."""
        return self.flat[self.offsets[i] : self.offsets[i + 1]]

    def take(self, index: Tensor) -> Self:
        """The sequences at ``index``, in that order."""
        length_B = self.lengths[index]
        begin_B = length_B.cumsum(0) - length_B
        # Each token's place within its sequence, counted from where the sequence stood before.
        shift_S = torch.repeat_interleave(self.offsets[index] - begin_B, length_B)
        return type(self).of(self.flat[torch.arange(int(length_B.sum())) + shift_S], length_B)

    def first(self, most: int) -> Self:
        """Each with its first tokens alone, ``most`` of them or as many as it has."""
        place_S = torch.arange(len(self.flat)) - torch.repeat_interleave(self.offsets[:-1], self.lengths)
        return type(self).of(self.flat[place_S < most], self.lengths.clamp(max=most))

    def framed(self, start: int | None = None, end: int | None = None) -> Self:
        """Each with a token before its first, or after its last, or both."""
        length_N = self.lengths + (start is not None) + (end is not None)
        framed = type(self).of(torch.empty(int(length_N.sum()), dtype=torch.int32), length_N)
        inside_S = torch.ones(len(framed.flat), dtype=torch.bool)
        for token, place_N in ((start, framed.offsets[:-1]), (end, framed.offsets[1:] - 1)):
            if token is not None:
                framed.flat[place_N] = token
                inside_S[place_N] = False
        framed.flat[inside_S] = self.flat
        return framed

    def padded(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The sequences at ``index``, filled up with ``PAD``: int64, shape (B, T), T at least 1; and lengths (B,)."""
        length_B = self.lengths[index]
        position_T = torch.arange(max(1, int(length_B.max())))
        inside_BT = position_T < length_B[:, None]
        place_BT = (self.offsets[index, None] + position_T).clamp_(max=max(0, len(self.flat) - 1))
        tokens_BT = self.flat[place_BT] if len(self.flat) else torch.zeros_like(place_BT)
        return tokens_BT.long().masked_fill_(~inside_BT, PAD), length_B


class Ragged(Examples):
    """Examples of one or more sequences each, and of columns of fixed shape.

    ``gather`` hands out each sequence ``x`` as ``x``, (B, T) int64, padded to the longest of the batch, and
    ``x_length``, (B,) int64. Like lengths share a batch.

    Args:
        sequences: Name to sequences.
        columns: Name to tensor, e.g. ``target``.

    Raises:
        ValueError: Their numbers of examples differ.
    """

    def __init__(self, sequences: Mapping[str, Sequences], columns: Batch | None = None) -> None:
        self.sequences, self.columns = dict(sequences), dict(columns or {})
        sizes = {name: len(part) for name, part in (self.sequences | self.columns).items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"columns of different lengths: {sizes}")
        held = [*self.columns.values(), *(t for s in self.sequences.values() for t in (s.flat, s.offsets))]
        self.num_bytes = sum(tensor.nbytes for tensor in held)
        self.lengths = torch.stack([s.lengths for s in self.sequences.values()]).sum(dim=0)

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, index: Tensor) -> Batch:
        batch: Batch = {}
        for name, sequences in self.sequences.items():
            batch[name], batch[f"{name}_length"] = sequences.padded(index)
        return batch | {name: column[index] for name, column in self.columns.items()}
