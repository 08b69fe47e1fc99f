"""How much made lines have in common with real ones, and with each other: BLEU, with all lines as references at once.

BLEU of each line (Papineni et al. 2002) against a whole set of lines, averaged over lines, as is customary for
generators of text (Zhu et al. 2018, arXiv:1802.01886). Counting what the references have once makes it linear in their
number. Where no run of an order matches, a tenth of one is counted, so that a line is not nothing at once (floor
smoothing).
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

FLOOR = 0.1
"""What stands in for no match at all."""

Gram = tuple[str, ...]


def grams(line: Sequence[str], n: int) -> Counter[Gram]:
    """How often each run of ``n`` tokens stands in a line."""
    return Counter(zip(*(line[k:] for k in range(n)), strict=False))


def bleu(
    lines: Sequence[Sequence[str]], references: Sequence[Sequence[str]], orders: Iterable[int]
) -> dict[int, float]:
    """BLEU of each order, in [0, 1].

    Args:
        lines: Made lines, as tokens.
        references: Real lines, as tokens.
        orders: Longest runs to count.
    """
    most: list[dict[Gram, int]] = []
    for n in range(1, max(orders) + 1):
        found: dict[Gram, int] = {}
        for line in references:
            for gram, count in grams(line, n).items():
                if count > found.get(gram, 0):
                    found[gram] = count
        most.append(found)
    lengths = sorted({len(line) for line in references})
    scores = [_score(line, [partial(_of_any, found) for found in most], lengths, orders) for line in lines]
    return {n: sum(score[n] for score in scores) / len(scores) for n in orders}


def self_bleu(lines: Sequence[Sequence[str]], orders: Iterable[int]) -> dict[int, float]:
    """BLEU of each line against all others: 1 where all are alike."""
    best: list[dict[Gram, tuple[int, int, int]]] = []  # the two largest counts, and whose the largest is
    for n in range(1, max(orders) + 1):
        found: dict[Gram, tuple[int, int, int]] = {}
        for i, line in enumerate(lines):
            for gram, count in grams(line, n).items():
                first, second, whose = found.get(gram, (0, 0, -1))
                if count > first:
                    found[gram] = (count, first, i)
                elif count > second:
                    found[gram] = (first, count, whose)
        best.append(found)
    every = Counter(len(line) for line in lines)
    scores = []
    for i, line in enumerate(lines):
        lengths = sorted(size for size, count in every.items() if count > (size == len(line)))

        scores.append(_score(line, [partial(_of_others, found, i) for found in best], lengths, orders))
    return {n: sum(score[n] for score in scores) / len(scores) for n in orders}


def _of_others(found: dict[Gram, tuple[int, int, int]], i: int, gram: Gram) -> int:
    """How often a run stands in that line other than the i-th that has it most."""
    first, second, whose = found.get(gram, (0, 0, -1))
    return second if whose == i else first


def _of_any(found: dict[Gram, int], gram: Gram) -> int:
    return found.get(gram, 0)


def _score(line: Sequence[str], most: Sequence, lengths: Sequence[int], orders: Iterable[int]) -> dict[int, float]:
    """BLEU of one line: ``most`` says of each order how often a run stands in that reference that has it most."""
    if not line or not lengths:
        return dict.fromkeys(orders, 0.0)
    closest = _closest(lengths, len(line))
    brevity = 1.0 if len(line) >= closest else math.exp(1 - closest / len(line))
    logs = []
    for n in range(1, max(orders) + 1):
        counts = grams(line, n)
        total = sum(counts.values())
        matched = sum(min(count, most[n - 1](gram)) for gram, count in counts.items())
        logs.append(math.log(max(matched, FLOOR) / total) if total else -math.inf)
    return {n: brevity * math.exp(sum(logs[:n]) / n) for n in orders}


def _closest(lengths: Sequence[int], length: int) -> int:
    """The length of the references that is nearest, the shorter of two."""
    place = bisect_left(lengths, length)
    near = lengths[max(0, place - 1) : place + 1]
    return min(near, key=lambda size: (abs(size - length), size))
