"""What moved a decision on a text: each word's influence, with an LSTM's gates at it.

Shapes: T tokens of a text.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Piece = tuple[str, float]
"""A piece of a text, and how it is marked: from -1, against the answer, to 1, for it; 0 is unmarked."""

GATES = ("input_gate", "forget_gate", "output_gate")


def explained(
    text: str,
    span_T: Sequence[tuple[int, int]],
    influence_T: np.ndarray,
    gate_T3: np.ndarray | None,
    whole_words: bool,
) -> list[dict[str, Any]]:
    """The words of a text, with what is known of each.

    Args:
        text: The text.
        span_T: First character of each token, and the one after its last.
        influence_T: What each token adds to the answer's score.
        gate_T3: Input, forget and output gate of each token.
        whole_words: Put together the tokens of what stands between spaces.

    Returns:
        For each word that has a token: ``word``, ``begin`` (its first character's place), ``influence`` (the sum over
        its tokens), and the gates by name (means over its tokens).
    """
    span_W = [match.span() for match in re.finditer(r"\S+", text)] if whole_words else list(span_T)
    begin_W = np.array([begin for begin, _ in span_W])
    # A token belongs to the word in which it ends: one of bpe begins with the space before.
    end_T = np.array([max(begin, end - 1) for begin, end in span_T])
    word_T = np.maximum(np.searchsorted(begin_W, end_T, side="right") - 1, 0) if whole_words else np.arange(len(span_T))
    count_W = np.bincount(word_T, minlength=len(span_W))
    columns = {"influence": np.bincount(word_T, influence_T, minlength=len(span_W))}
    if gate_T3 is not None:
        for name, gate_T in zip(GATES, gate_T3.T, strict=True):
            columns[name] = np.bincount(word_T, gate_T, minlength=len(span_W)) / np.maximum(count_W, 1)
    return [
        {"word": text[slice(*span_W[w])], "begin": int(begin_W[w]), **{k: float(v[w]) for k, v in columns.items()}}
        for w in np.flatnonzero(count_W).tolist()
    ]


def marked(text: str, words: Sequence[Mapping[str, Any]]) -> list[Piece]:
    """The text in pieces, its words marked by their influence as a share of the largest."""
    largest = max((abs(word["influence"]) for word in words), default=0.0) or 1.0
    pieces, place = [], 0
    for word in words:
        end = word["begin"] + len(word["word"])
        pieces += [(text[place : word["begin"]], 0.0), (word["word"], word["influence"] / largest)]
        place = end
    return [(piece, mark) for piece, mark in [*pieces, (text[place:], 0.0)] if piece]
