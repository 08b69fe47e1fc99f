"""Columns of a table as numbers: what each holds, what training rows teach of it, and its encoding.

Shapes: N rows, F features.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from workloads.data._rows import MISSING
from workloads.data._targets import FEW, Kind, listed, natural

if TYPE_CHECKING:
    import pyarrow as pa

MANY = 1000
"""Categories of a column above which one feature for each is refused."""


@dataclass(frozen=True)
class Cells:
    """The values of one column.

    Args:
        name: The column.
        value_N: Numbers as float64, or int64 codes of ``vocabulary``; shape (N,).
        missing_N: Where there is none.
        wrong_N: Where there is one, and it is not a finite number though the column is numeric.
        vocabulary: Names of the categories; None of a numeric column.
    """

    name: str
    value_N: np.ndarray
    missing_N: np.ndarray
    wrong_N: np.ndarray
    vocabulary: np.ndarray | None = None

    def take(self, index: np.ndarray) -> Self:
        """The cells at ``index``, in that order."""
        parts = (self.value_N[index], self.missing_N[index], self.wrong_N[index])
        return type(self)(self.name, *parts, self.vocabulary)


def parse(values: "pa.ChunkedArray", name: str, numeric: bool | None = None) -> Cells:
    """Read a column as numbers or as categories.

    Args:
        values: The column. Text is trimmed; see ``MISSING`` for what counts as no value.
        name: Its name.
        numeric: Read it as numbers, or as categories. None decides: text is numeric if at least half of it is numbers,
            so that the rest is at fault and not a category; truth values are categories.

    Raises:
        ValueError: It holds neither numbers nor text, but for example lists or dates.
    """
    import pyarrow as pa
    from pyarrow import types

    kind = values.type.value_type if types.is_dictionary(values.type) else values.type
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    if types.is_boolean(kind) or text or types.is_null(kind):
        values = values.cast(pa.string())
    elif not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        raise ValueError(f"column {name!r} holds {kind}, which is neither numbers nor text; use --data.ignore {name}")
    elif numeric is False:
        values = values.cast(pa.float64()).cast(pa.string())
    if numeric is False or (numeric is None and types.is_boolean(kind)):
        return _categories(_trimmed(values), name)
    try:
        values = values.cast(pa.float64())
        number_N, missing_N = values.to_numpy(), values.is_null().to_numpy()
    except pa.ArrowInvalid:
        as_text = _categories(_trimmed(values), name)
        missing_N, words = as_text.missing_N, pd.Series([*as_text.vocabulary, None], dtype=object)
        number_N = pd.to_numeric(words, errors="coerce").to_numpy(np.float64)[as_text.value_N]
        if numeric is None and 2 * np.isfinite(number_N).sum() < (~missing_N).sum():
            return as_text
    return Cells(name, number_N, missing_N, ~missing_N & ~np.isfinite(number_N))


def _trimmed(values: "pa.ChunkedArray") -> "pa.ChunkedArray":
    import pyarrow as pa
    from pyarrow import compute

    values = compute.utf8_trim_whitespace(values)
    return compute.if_else(compute.is_in(values, pa.array(MISSING, values.type)), None, values)


def _categories(text: "pa.ChunkedArray", name: str) -> Cells:
    encoded = text.combine_chunks().dictionary_encode()
    names = pd.Series(encoded.dictionary.to_pylist(), dtype=object).astype(str)
    # A column of whole numbers with gaps is written 3.0 in one file and 3 in another.
    merged, vocabulary = pd.factorize(names.str.replace(r"^(-?\d+)\.0+$", r"\1", regex=True).to_numpy(dtype=object))
    missing_N = np.asarray(encoded.is_null())
    code_N = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    code_N = np.where(missing_N, -1, merged[code_N] if len(merged) else -1)
    return Cells(name, code_N, missing_N, np.zeros(len(code_N), dtype=bool), vocabulary)


def target_values(values: "pa.ChunkedArray", name: str, kind: Kind) -> tuple[np.ndarray, Kind]:
    """Read the column to predict.

    Args:
        values: The column.
        name: Its name.
        kind: What to make of it.

    Returns:
        Values for :class:`~workloads.data._targets.Target`, shape (N,): numbers or text; and the kind, where a column
        of numbers with something else in it settles that.
    """
    cells = parse(values, name, False if kind in ("binary", "multiclass") else None)
    if kind == "auto" and cells.vocabulary is None and cells.wrong_N.any():
        # 0, 1, 2, 3+ are classes; a hundred prices and one "n.a." are prices.
        few = len(np.unique(cells.value_N[np.isfinite(cells.value_N)])) <= FEW
        cells, kind = (parse(values, name, False), kind) if few else (cells, "regression")
    if cells.vocabulary is not None:
        return np.array([*cells.vocabulary, ""], dtype=object)[cells.value_N], kind
    if not cells.wrong_N.any():
        return cells.value_N, kind
    numbers = cells.value_N.astype(object)
    for i in np.flatnonzero(cells.wrong_N):
        numbers[i] = values[int(i)].as_py()
    return numbers, kind


@dataclass(frozen=True)
class Numeric:
    """A number, standardised. A missing one takes the training mean, and says so where training has missing ones.

    Args:
        name: The column.
        mean: Mean of training, in the column's units.
        deviation: Standard deviation of training, in the column's units; 1 if all are equal.
        indicates: Whether a second feature is 1 where the value is missing.
    """

    name: str
    mean: float
    deviation: float
    indicates: bool

    @classmethod
    def fit(cls, cells: Cells) -> Self | None:
        """Learn from training cells; None if they are all the same."""
        indicates = bool(cells.missing_N.any())
        numbers = cells.value_N[~(cells.missing_N | cells.wrong_N)]
        if len(numbers) == 0 or (numbers.min() == numbers.max() and not indicates):
            return None
        return cls(cells.name, float(numbers.mean()), float(numbers.std()) or 1.0, indicates)

    @property
    def width(self) -> int:
        return 1 + self.indicates

    def encode(self, cells: Cells, out_NF: np.ndarray) -> None:
        out_NF[:, 0] = np.where(cells.missing_N, 0.0, (cells.value_N - self.mean) / self.deviation)
        if self.indicates:
            out_NF[:, 1] = cells.missing_N


@dataclass(frozen=True)
class Categorical:
    """A category, one feature for each that training has; "missing" is one of them where training has missing ones.

    A category that training never saw has 0 in all of them: a feature of its own would have untrained weights.

    Args:
        name: The column.
        categories: In natural order; "" is the missing one.
    """

    name: str
    categories: list[str]

    @classmethod
    def fit(cls, cells: Cells) -> Self | None:
        """Learn from training cells; None if they are all the same.

        Raises:
            ValueError: Too many categories for this to be a category at all.
        """
        used = np.unique(cells.value_N[~cells.missing_N])
        num_used = len(used)
        if num_used > MANY or (num_used > 100 and 2 * num_used > len(cells.value_N)):
            raise ValueError(
                f"column {cells.name!r} has {num_used} distinct texts in {len(cells.value_N)} training rows, too many "
                f"for categories; use --data.ignore {cells.name}"
            )
        assert cells.vocabulary is not None
        names = sorted(map(str, cells.vocabulary[used]), key=natural) + [""] * bool(cells.missing_N.any())
        return cls(cells.name, names) if len(names) > 1 else None

    @property
    def width(self) -> int:
        return len(self.categories)

    def encode(self, cells: Cells, out_NF: np.ndarray) -> None:
        assert cells.vocabulary is not None
        known = pd.Index(self.categories, dtype=object)
        # The last place is what code -1, a missing cell, reads.
        place = known.get_indexer(np.array([*cells.vocabulary, ""], dtype=object))[cells.value_N]
        out_NF[:] = 0
        rows = np.flatnonzero(place >= 0)
        out_NF[rows, place[rows]] = 1


@dataclass(frozen=True)
class Features:
    """All columns that a network sees, as training rows decide them.

    Args:
        columns: In the table's order.
        dropped: Columns that are the same in every training row.
    """

    columns: list[Numeric | Categorical]
    dropped: list[str]

    @classmethod
    def fit(cls, cells: Sequence[Cells]) -> Self:
        """Learn from training cells.

        Raises:
            ValueError: No column is left, or one has too many categories.
        """
        fitted = {c.name: (Numeric if c.vocabulary is None else Categorical).fit(c) for c in cells}
        columns = [column for column in fitted.values() if column is not None]
        if not columns:
            same = f"; {listed(list(fitted))}: the same value in every training row" if fitted else ""
            raise ValueError(f"the table has no column to predict from, beside the target and what is ignored{same}")
        return cls(columns, [name for name, column in fitted.items() if column is None])

    @property
    def width(self) -> int:
        """F."""
        return sum(column.width for column in self.columns)

    def parse(self, table: "pa.Table") -> list[Cells]:
        """Read the columns of another table as those of training were."""
        return [parse(table[c.name], c.name, isinstance(c, Numeric)) for c in self.columns]

    def encode(self, cells: Iterable[Cells], num_rows: int) -> np.ndarray:
        """Features of rows, float32, shape (N, F)."""
        by_name = {c.name: c for c in cells}
        out_NF = np.empty((num_rows, self.width), dtype=np.float32)
        start = 0
        for column in self.columns:
            column.encode(by_name[column.name], out_NF[:, start : start + column.width])
            start += column.width
        return out_NF

    def state(self) -> dict[str, Any]:
        """Plain values, from which :meth:`restore` makes equal features."""
        return {"columns": [asdict(column) for column in self.columns], "dropped": list(self.dropped)}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """The features whose :meth:`state` this is."""
        columns = [(Categorical if "categories" in column else Numeric)(**column) for column in state["columns"]]
        return cls(columns, list(state["dropped"]))
