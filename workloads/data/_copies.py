"""How much of a text is copied from another: the longest span that both have.

Shapes: W places in what was written, S places in the source.
"""

import numpy as np

BLOCK = 1 << 22
"""Of four million characters the hashes take 32 MiB for each length."""

PLACES = 1 << 12
"""Places that are compared at once."""

BASE = np.uint64(0x9E3779B97F4A7C15)
"""Of the polynomial hash, modulo 2^64; any large odd number."""


def longest_copy(written: str, source: str, block: int = BLOCK) -> str:
    """The longest span of ``written`` that stands in ``source``; of equally long ones, the source's first.

    Exact: hashes of all spans of a length, which are made from those of half the length, only propose places, and what
    stands there is compared. A source of four million characters takes about a second.

    Args:
        written: What may have been copied.
        source: From what.
        block: Characters of the source that are looked through at once.
    """
    best = ""
    for begin in range(0, max(1, len(source) - len(written)), block):
        found = _longest(written, source[begin : begin + block + len(written)])
        best = found if len(found) > len(best) else best
    return best


def _longest(written: str, source: str) -> str:
    """Double the length while there is a common span, then halve the steps in which it grows."""
    levels = [(_code_points(written), _code_points(source))]
    found, length = _common(*levels[0], 1, written, source), 1
    while found and 2 * length <= min(len(written), len(source)):
        longer = tuple(_extended(half, half, length, length) for half in levels[-1])
        span = _common(*longer, 2 * length, written, source)
        if not span:
            break
        levels.append(longer)
        found, length = span, 2 * length
    current = levels[-1]
    for k in range(len(levels) - 1, -1, -1):
        if length + 2**k > min(len(written), len(source)):
            continue
        longer = tuple(_extended(hash_, step, length, 2**k) for hash_, step in zip(current, levels[k], strict=True))
        if span := _common(*longer, length + 2**k, written, source):
            current, found, length = longer, span, length + 2**k
    return found


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64) + np.uint64(1)


def _extended(first: np.ndarray, then: np.ndarray, length: int, more: int) -> np.ndarray:
    """Hashes of spans of ``length + more`` characters from those of ``length`` and of ``more``."""
    then = then[length:]
    return first[: len(then)] * np.uint64(pow(int(BASE), more, 2**64)) + then


def _common(written_W: np.ndarray, source_S: np.ndarray, length: int, written: str, source: str) -> str:
    """The source's first span of that length that is also in what was written; empty if there is none."""
    shift = np.uint64(44)
    seen = np.zeros(1 << 20, dtype=bool)  # a look-up by a hash's upper bits, before any comparison
    seen[written_W * BASE >> shift] = True
    places = np.flatnonzero(seen[source_S * BASE >> shift])
    for some in np.split(places, range(PLACES, len(places), PLACES)):  # of short spans the first few will do
        for place in some[np.isin(source_S[some], written_W)].tolist():
            if (span := source[place : place + length]) in written:
                return span
    return ""
