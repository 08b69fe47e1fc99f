"""Tables: rows of numbers and categories, and a column to predict.

Shapes: N rows, B rows of a batch, F features.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import torch

from workloads._extras import need
from workloads.data._base import DataModule, Inputs
from workloads.data._batches import Examples, InMemory
from workloads.data._columns import Cells, Features, parse, target_values
from workloads.data._rows import Rows, read_file, read_splits
from workloads.data._sources import OnError, Rejects, resolve
from workloads.data._splits import completed, exact_duplicates, portion
from workloads.data._targets import Kind, Target, as_labels, listed

EMBEDDED = {"breast_cancer": "diagnosis", "diabetes": "progression", "iris": "species", "wine": "cultivar"}
"""Tables of scikit-learn, each with what to call the column that it predicts."""


@dataclass(frozen=True)
class _Part:
    """Rows, and what was read of them: the cells of each feature column, and target values."""

    rows: Rows
    cells: list[Cells]
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: np.ndarray) -> Self:
        return type(self)(self.rows.take(index), [c.take(index) for c in self.cells], self.values[index])


class Tables(DataModule):
    """A table. Embedded: iris, wine, breast_cancer (classes) and diabetes (regression), of scikit-learn.

    Numeric columns are standardised by training statistics; a missing number (an empty cell, NA, null, ?) takes the
    training mean, with a feature beside it that says so where training has missing ones. A number that is written and
    is not finite (nan, inf) stops the run. Categorical columns become one feature a category, "missing" among them; a
    category that training never saw has 0 in all. Columns that are the same in every training row are left out. Splits
    that the source lacks are cut by ``split_seed``, stratified where there are classes, with equal rows on one side.

    Args:
        source: An embedded table; a .csv, .tsv, .parquet, .jsonl or .json file; a folder with train, validation and
            test files; or hf://owner/name.
        target: Column to predict. Required but for the embedded tables.
        output: What to make of the target. auto: classes of text and of at most 20 distinct whole numbers, regression
            of other numbers.
        batch_size: Rows of a batch, over all workers.
        num_examples: Rows to use, stratified; 0 uses all.
        split_seed: Decides the splits, apart from the run's seed.
        categorical: Numeric columns to take as categories.
        ignore: Columns to leave out.
        on_error: Whether a bad row stops the run or is skipped and counted; more than 5 % always stop it.
        revision: Commit, tag or branch of a hub source.
    """

    def __init__(
        self,
        source: str = "iris",
        target: str | None = None,
        output: Literal["auto", "binary", "multiclass", "regression", "count"] = "auto",
        batch_size: int = 32,
        num_examples: int = 0,
        split_seed: int = 0,
        categorical: tuple[str, ...] = (),
        ignore: tuple[str, ...] = (),
        on_error: OnError = "stop",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        self.source, self.target, self.batch_size = source, target, batch_size
        self.kind: Kind = output
        self.num_examples, self.split_seed = num_examples, split_seed
        self.categorical, self.ignore = tuple(categorical), tuple(ignore)
        self.on_error, self.revision = on_error, revision
        self.fitted_target: Target | None = None
        self.features: Features | None = None

    @property
    def decided(self) -> Target:
        """What the training rows decided of the target."""
        assert self.fitted_target is not None, "not set up"
        return self.fitted_target

    @property
    def input_shape(self) -> tuple[int]:
        """``(F,)``."""
        assert self.features is not None, "not set up"
        return (self.features.width,)

    @property
    def output(self) -> str:
        """binary, multiclass, regression or count."""
        return self.decided.output

    @property
    def num_outputs(self) -> int:
        """Classes of a multiclass target, else 1."""
        return self.decided.num_outputs

    @property
    def target_scale(self) -> float:
        """Standard deviation of a regression target in its own units, else 1."""
        return self.decided.scale

    @property
    def metric(self) -> str:
        """accuracy, r2 or mae."""
        return self.decided.metric

    @property
    def classes(self) -> list[str]:
        """Names of the classes; empty of numbers."""
        return self.decided.classes

    def state_dict(self) -> dict[str, Any]:
        if self.features is None:
            return {}
        return {"column": self.target, "target": self.decided.state(), "features": self.features.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self.target = self.target or state_dict["column"]
            self.fitted_target = Target.restore(state_dict["target"])
            self.features = Features.restore(state_dict["features"])

    def load(self, whole: bool = False) -> dict[str, Examples]:
        rejects = Rejects(self.on_error)
        rows = self._read(rejects)
        total = sum(map(len, rows.values())) + rejects.count
        if whole:
            rows = {"test": rows["test"] if "test" in rows else Rows.join(list(rows.values()))}
        parts = self._parse(rows, whole)
        # Of all training rows, to know the classes; the one that counts is fitted once they are cut.
        target = self.fitted_target or Target.fit(next(iter(parts.values())).values, self.kind)
        parts = {name: _sound(part, target, rejects) for name, part in parts.items()}
        rejects.finish(total)
        self.skipped = rejects.count
        keys = {"classes": partial(_strata, target=target), "seed": self.split_seed}
        parts = portion(parts, self.num_examples, **keys)
        if not whole:
            parts = completed(parts, groups=lambda part: _copies(part.cells), **keys)
        if self.features is None:
            self._fit(parts["train"])
        return {name: self._examples(part) for name, part in parts.items()}

    def encode(self, inputs: Sequence[str]) -> Inputs:
        assert self.features is not None, "not set up"
        names, matrices = [], []
        for path in inputs:
            rows = read_file(path, Rejects("stop"))
            cells = self._fitted_cells(rows)
            for i, reason in _wrong(rows, cells).items():
                raise ValueError(f"{path}, row {rows.where(i)[1]}: {reason}")
            matrices.append(self.features.encode(cells, len(rows)))
            prefix = f"{path} " if len(inputs) > 1 else ""
            names += [f"{prefix}row {number}" for number in rows.number_N.tolist()]
        return Inputs(names, InMemory({"inputs": torch.from_numpy(np.concatenate(matrices))}))

    def answers(self, outputs: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
        return self.decided.answers(outputs)

    def _read(self, rejects: Rejects) -> dict[str, Rows]:
        """All rows of the source, by split; one part where it has no splits. Settles what the target is."""
        where, name = resolve(self.source, list(EMBEDDED))
        if where == "embedded":
            self.target = self.target or EMBEDDED[name]
            return {"train": _embedded(name)}
        rows = read_splits(where, name, self.revision, rejects)
        if self.target is None:
            columns = next(iter(rows.values())).table.column_names
            raise ValueError(f"data.target: name the column of {self.source} to predict; there are {listed(columns)}")
        return rows

    def _parse(self, rows: dict[str, Rows], whole: bool) -> dict[str, _Part]:
        """Read the columns, training's first, which decide for all what is a number.

        Only other data is read by what training left of the columns: the cut depends on all that were there.
        """
        parts: dict[str, _Part] = {}
        kind: Kind = self.decided.output if self.fitted_target else self.kind
        for name, part in rows.items():
            values, kind = target_values(part.column(self.target, "target"), self.target, kind)
            if whole and self.features is not None:
                cells = self._fitted_cells(part)
            elif parts:
                cells = _like(part, next(iter(parts.values())).cells)
            else:
                cells = self._first_cells(part)
            parts[name] = _Part(part, cells, values)
        self.kind = kind
        return parts

    def _first_cells(self, rows: Rows) -> list[Cells]:
        for key, columns in (("categorical", self.categorical), ("ignore", self.ignore)):
            for name in columns:
                rows.column(name, key)
        names = [name for name in rows.table.column_names if name != self.target and name not in self.ignore]
        return [parse(rows.table[name], name, False if name in self.categorical else None) for name in names]

    def _fitted_cells(self, rows: Rows) -> list[Cells]:
        assert self.features is not None, "not set up"
        for column in self.features.columns:
            rows.column(column.name)
        return self.features.parse(rows.table)

    def _fit(self, train: _Part) -> None:
        self.fitted_target = Target.fit(train.values, self.kind)
        self.features = Features.fit(train.cells)
        if self.features.dropped:
            warnings.warn(
                f"{self.source}: left out {listed(self.features.dropped)}, the same in every training row", stacklevel=2
            )

    def _examples(self, part: _Part) -> InMemory:
        assert self.features is not None, "not set up"
        inputs = torch.from_numpy(self.features.encode(part.cells, len(part.rows)))
        target = self.decided.encode(part.values, lambda i: ", row ".join(map(str, part.rows.where(i))))
        return InMemory({"inputs": inputs, "target": target})


def _embedded(name: str) -> Rows:
    import pyarrow as pa

    loaded = getattr(need("sklearn.datasets", extra="data"), f"load_{name}")()
    values = loaded.target if name == "diabetes" else np.asarray(loaded.target_names, dtype=object)[loaded.target]
    columns = {str(column): loaded.data[:, i] for i, column in enumerate(loaded.feature_names)}
    return Rows.of(pa.table({**columns, EMBEDDED[name]: values}), name)


def _like(rows: Rows, others: Sequence[Cells]) -> list[Cells]:
    return [parse(rows.column(other.name), other.name, other.vocabulary is None) for other in others]


def _wrong(rows: Rows, cells: Sequence[Cells]) -> dict[int, str]:
    """Row to the first cell in it that is not a finite number though its column is numeric."""
    reasons: dict[int, str] = {}
    for column in cells:
        for i in np.flatnonzero(column.wrong_N).tolist():
            said = rows.table[column.name][i].as_py()
            reasons.setdefault(
                i,
                f"column {column.name!r} holds {said!r}, which is not a finite number (an empty cell is a missing one; "
                f"--data.categorical {column.name} takes all as categories)",
            )
    return reasons


def _sound(part: _Part, target: Target, rejects: Rejects) -> _Part:
    """The part without rows that hold a bad cell or target, each of which is rejected in the order of the file."""
    bad = target.faults(part.values) | _wrong(part.rows, part.cells)
    for i in sorted(bad):
        rejects.reject(*part.rows.where(i), bad[i])
    return part.take(np.setdiff1d(np.arange(len(part.rows)), list(bad))) if bad else part


def _strata(part: _Part, target: Target) -> np.ndarray | None:
    return as_labels(part.values).astype(str) if target.classes else None


def _copies(cells: Sequence[Cells]) -> np.ndarray | None:
    """Groups of equal rows; None where most rows equal others, as those of a few categories do without being copies."""
    if not cells:
        return None
    groups = exact_duplicates(np.stack([column.value_N.astype(np.float64) for column in cells], axis=1))
    return groups if 2 * (groups.max() + 1) > len(groups) else None
