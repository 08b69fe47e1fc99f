"""Who is in which split: cut by seed, stratified, with copies of one example kept on one side.

Shapes: N examples, D features of an example, C classes, G groups, S splits.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, Self, TypeVar

import numpy as np

from workloads._extras import need

SPLITS = ("train", "validation", "test")

PAIRS = 1 << 22
"""Distances held at once while near-duplicates are looked for: 16 MiB of float32."""


def cut(
    num_examples: int,
    *,
    classes: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Cut examples into training, validation and test.

    Sizes are exact and classes' shares exact to one example, unless groups forbid it. Every class is trained on.

    Args:
        num_examples: N.
        classes: Class of each example, any sortable type, shape (N,). Stratifies.
        groups: Group of each example, shape (N,). Members of one are never in two splits.
        fractions: Shares of the splits. A share of 0 leaves that split empty.
        seed: Decides the cut.

    Returns:
        ``train``, ``validation``, ``test``: ascending int64 indices, each example once.

    Raises:
        ValueError: A split with a share would be empty.
    """
    shares = np.asarray(fractions, dtype=float) / sum(fractions)
    if num_examples < (least := int(np.ceil(0.5 / shares[shares > 0].min()))):
        raise ValueError(f"{num_examples} examples are too few to cut into {_named(shares)}; it takes at least {least}")
    random = np.random.default_rng(seed)
    code_N = np.zeros(num_examples, dtype=np.int64) if classes is None else _codes(classes)
    wanted_CS = _quotas(np.bincount(code_N), np.floor(shares * num_examples + 0.5).astype(np.int64))
    split_N = np.full(num_examples, -1)
    if groups is not None:
        wanted_CS = _place_groups(split_N, code_N, _codes(groups), wanted_CS, random)
    _place_single(split_N, code_N, wanted_CS, random)
    parts = {name: np.flatnonzero(split_N == s) for s, name in enumerate(SPLITS)}
    empty = [name for name, share in zip(SPLITS, shares, strict=True) if share > 0 and len(parts[name]) == 0]
    if empty:
        raise ValueError(_no_split(empty[0], num_examples, classes, groups))
    return parts


def _no_split(name: str, num_examples: int, classes: np.ndarray | None, groups: np.ndarray | None) -> str:
    kinds = "" if classes is None else f" of {len(np.unique(classes))} classes"
    apart = "" if groups is None else f" with only {len(np.unique(groups))} that are not near-identical"
    return f"{num_examples} examples{kinds}{apart} leave no {name} split; add examples"


def _named(shares: np.ndarray) -> str:
    return ", ".join(name for name, share in zip(SPLITS, shares, strict=True) if share > 0)


def _codes(values: np.ndarray) -> np.ndarray:
    return np.unique(values, return_inverse=True)[1].reshape(-1)


def _quotas(count_C: np.ndarray, size_S: np.ndarray) -> np.ndarray:
    """Examples of each class for each split, shape (C, S): rounded along the classes so that the sizes come out."""
    left_C, left = count_C, int(count_C.sum())
    quota_CS = np.zeros((len(count_C), len(SPLITS)), dtype=np.int64)
    for s in (2, 1):
        quota_CS[:, s] = np.diff(np.cumsum(left_C) * size_S[s] // max(left, 1), prepend=0)
        left_C, left = left_C - quota_CS[:, s], left - int(size_S[s])
    quota_CS[:, 0] = left_C
    for c in np.flatnonzero((left_C == 0) & (count_C > 0)):
        # A class that training never saw could not be predicted, so a rare one is trained on first.
        quota_CS[c, quota_CS[c].argmax()] -= 1
        quota_CS[c, 0] = 1
    return quota_CS


def _place_groups(
    split_N: np.ndarray, code_N: np.ndarray, group_N: np.ndarray, wanted_CS: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Place every group of two or more, largest first, where most of its classes is still wanted; returns the rest."""
    wanted_CS = wanted_CS.copy()
    size_G = np.bincount(group_N)
    start_G = np.cumsum(size_G) - size_G
    member_N = np.argsort(group_N, kind="stable")
    order = random.permutation(np.flatnonzero(size_G > 1))
    for g in order[np.argsort(-size_G[order], kind="stable")]:
        members = member_N[start_G[g] : start_G[g] + size_G[g]]
        s = wanted_CS[code_N[members]].sum(axis=0).argmax()
        split_N[members] = s
        np.subtract.at(wanted_CS[:, s], code_N[members], 1)
    return wanted_CS


def _place_single(split_N: np.ndarray, code_N: np.ndarray, wanted_CS: np.ndarray, random: np.random.Generator) -> None:
    free = random.permutation(np.flatnonzero(split_N < 0))
    free = free[np.argsort(code_N[free], kind="stable")]
    bounds = np.searchsorted(code_N[free], np.arange(len(wanted_CS) + 1))
    for c, wanted_S in enumerate(np.maximum(wanted_CS, 0)):
        members = free[bounds[c] : bounds[c + 1]]
        # Groups may have overfilled a split; the largest, training, then takes what is left or goes short.
        split_N[members] = 0
        split_N[members[: wanted_S[2]]] = 2
        split_N[members[wanted_S[2] : wanted_S[2] + wanted_S[1]]] = 1


def subset(num_examples: int, classes: np.ndarray | None, limit: int, seed: int) -> np.ndarray:
    """A stratified subset, with every class in it where ``limit`` allows.

    Args:
        num_examples: N.
        classes: Class of each example, shape (N,), or None.
        limit: Examples to take; 0, or N and more, takes all.
        seed: Decides which.

    Returns:
        Ascending int64 indices.
    """
    if limit <= 0 or limit >= num_examples:
        return np.arange(num_examples)
    code_N = np.zeros(num_examples, dtype=np.int64) if classes is None else _codes(classes)
    count_C = np.bincount(code_N)
    take_C = np.diff(np.cumsum(count_C) * limit // num_examples, prepend=0)
    if limit >= len(count_C):
        for c in np.flatnonzero(take_C == 0):
            take_C[take_C.argmax()] -= 1
            take_C[c] = 1
    order = np.random.default_rng(seed).permutation(num_examples)
    order = order[np.argsort(code_N[order], kind="stable")]
    rank = np.arange(num_examples) - np.repeat(np.cumsum(count_C) - count_C, count_C)
    return np.sort(order[rank < np.repeat(take_C, count_C)])


class Part(Protocol):
    """Examples of a source, of which some can be taken."""

    def __len__(self) -> int: ...

    def take(self, index: np.ndarray) -> Self:
        """Those at ``index``, in that order."""
        ...


P = TypeVar("P", bound=Part)
Of = Callable[[P], np.ndarray | None]
"""What is known of each example of a part, shape (N,), or None."""


def portion(parts: Mapping[str, P], limit: int, *, classes: Of[P], seed: int) -> dict[str, P]:
    """A stratified subset of each split, in proportion.

    Args:
        parts: Split to examples.
        limit: Examples to take of all splits together; 0 takes all.
        classes: Class of each example.
        seed: Decides which.
    """
    share = limit / max(1, sum(map(len, parts.values())))
    limits = {name: max(1, round(share * len(part))) if limit > 0 else 0 for name, part in parts.items()}
    return {
        name: part.take(subset(len(part), classes(part), limits[name], seed)) if limits[name] else part
        for name, part in parts.items()
    }


def completed(
    parts: Mapping[str, P],
    *,
    classes: Of[P],
    groups: Of[P],
    seed: int,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
) -> dict[str, P]:
    """Cut the splits that a source lacks from its training examples, or from the only ones there are.

    Args:
        parts: Split to examples.
        classes: See :func:`cut`.
        groups: See :func:`cut`.
        seed: See :func:`cut`.
        fractions: Shares of the splits; a split that is there takes none.

    Returns:
        ``train``, ``validation``, ``test``.

    Raises:
        ValueError: There are too few examples to cut.
    """
    name = "train" if "train" in parts else next(iter(parts))
    given = {other: part for other, part in parts.items() if other != name}
    if len(given) == len(SPLITS) - 1:
        return dict(parts)
    shares = zip(SPLITS, fractions, strict=True)
    whole = parts[name]
    found = cut(
        len(whole),
        classes=classes(whole),
        groups=groups(whole),
        fractions=tuple(0.0 if split in given else share for split, share in shares),
        seed=seed,
    )
    return {split: given[split] if split in given else whole.take(found[split]) for split in SPLITS}


def exact_duplicates(rows: np.ndarray) -> np.ndarray:
    """Group equal rows.

    Args:
        rows: Shape (N, D), any numeric type; NaN equals NaN.

    Returns:
        Group of each row, int64, shape (N,). Rows are compared by a 64-bit hash.
    """
    words_ND = (np.ascontiguousarray(rows, dtype=np.float64) + 0.0).view(np.uint64)  # -0.0 + 0.0 is 0.0
    hash_N = np.full(len(words_ND), 0x9E3779B97F4A7C15, dtype=np.uint64)
    for d in range(words_ND.shape[1]):
        hash_N = (hash_N ^ words_ND[:, d]) * np.uint64(0xBF58476D1CE4E5B9)
        hash_N ^= hash_N >> np.uint64(31)
    return _codes(hash_N)


def near_duplicates(features: np.ndarray, tolerance: float) -> np.ndarray:
    """Group near-identical rows: those linked by steps of at most ``tolerance``.

    Rows are sorted along their direction of greatest variance. Two rows lie no farther apart on it than in full, so
    each is compared only with those that follow it closely. Memory beyond a float32 copy of ``features`` is bounded.

    Args:
        features: Shape (N, D), e.g. grey thumbnails.
        tolerance: Largest root-mean-square difference of two near-identical rows, in units of ``features``.

    Returns:
        Group of each row, int64, shape (N,): the connected components.

    Raises:
        ValueError: SciPy is not installed.
    """
    csgraph, sparse = need("scipy.sparse.csgraph", extra="data"), need("scipy.sparse", extra="data")
    # Equal rows first, so that a thousand black pictures are one and not half a million pairs.
    _, first, copy_N = np.unique(exact_duplicates(features), return_index=True, return_inverse=True)
    row_ND = np.asarray(features[first], dtype=np.float32)
    row_ND = row_ND - row_ND.mean(axis=0)
    num_rows, dim = row_ND.shape
    position_N = row_ND @ _main_direction(row_ND)
    order = np.argsort(position_N, kind="stable")
    group_N = np.arange(num_rows)
    for a, b in _near_pairs(row_ND[order], position_N[order], float(tolerance) * dim**0.5):
        a, b = group_N[a], group_N[b]
        apart = a != b
        if apart.any():
            links = sparse.coo_matrix((np.ones(apart.sum()), (a[apart], b[apart])), shape=(num_rows, num_rows))
            group_N = csgraph.connected_components(links, directed=False)[1][group_N]
    found_N = np.empty(num_rows, dtype=np.int64)
    found_N[order] = group_N
    return _codes(found_N[copy_N])


def _main_direction(row_ND: np.ndarray) -> np.ndarray:
    """Unit direction of about the greatest variance, by power iteration on a sample."""
    sample = row_ND[:: -(-len(row_ND) // 2000)]
    direction_D = np.ones(row_ND.shape[1], dtype=np.float32)
    for _ in range(20):
        turned_D = sample.T @ (sample @ direction_D) + 1e-6
        direction_D = turned_D / np.linalg.norm(turned_D)
    return direction_D


def _near_pairs(row_ND: np.ndarray, position_N: np.ndarray, reach: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of rows at a distance of at most ``reach``, a block of rows at a time; rows ascend in ``position_N``."""
    square_N = np.einsum("nd,nd->n", row_ND, row_ND)
    # float32 rounds squares: what comes this close to the limit is measured again without cancellation.
    slack = 1e-5 * float(square_N.max(initial=0.0)) + 1e-12
    end_N = np.searchsorted(position_N, position_N + np.float32(reach + slack**0.5), side="right")
    first, num_rows = 0, len(row_ND)
    while first < num_rows:
        reached = end_N[min(first + 1024, num_rows) - 1]
        last = min(first + max(1, min(1024, PAIRS // int(reached - first))), num_rows)
        stop = end_N[last - 1]
        square = square_N[first:last, None] + square_N[first:stop] - 2 * (row_ND[first:last] @ row_ND[first:stop].T)
        a, b = np.nonzero(np.triu(square <= reach**2 + slack, k=1))
        unsure = np.flatnonzero(square[a, b] > reach**2 - slack)
        keep = np.ones(len(a), dtype=bool)
        for some in np.array_split(unsure, -(-len(unsure) // 65536) or 1):
            difference = row_ND[first + a[some]] - row_ND[first + b[some]]
            keep[some] = np.einsum("nd,nd->n", difference, difference) <= reach**2 * (1 + 1e-6)
        yield first + a[keep], first + b[keep]
        first = last
