"""What is to be predicted: class, number or count, between people's words and the network's tensors.

Shapes: N examples, B examples of a batch, C classes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

Kind = Literal["auto", "binary", "multiclass", "regression", "count"]

FEW = 20
"""Whole numbers with at most this many distinct values are classes, unless the kind is given."""

SHOWN = 12
"""Classes that an error message lists."""


@dataclass(frozen=True)
class Target:
    """What training values decide of the output, and the way there and back.

    Args:
        output: Kind of output; none where there are no labels.
        classes: Names of the classes in natural order ("2" before "10"); empty for numbers.
        mean: Mean of the training values of a regression, in their own units, else 0.
        scale: Standard deviation of the training values of a regression, in their own units, else 1.
    """

    output: Literal["binary", "multiclass", "regression", "count", "none"]
    classes: list[str]
    mean: float = 0.0
    scale: float = 1.0

    @classmethod
    def fit(cls, values: Sequence[Any] | np.ndarray, kind: Kind = "auto") -> Self:
        """Learn from training values. Missing and unparsable ones are passed over: :meth:`encode` refuses them.

        ``auto`` makes classes of text, of truth values and of at most 20 distinct whole numbers, and a regression of
        any other numbers; a count has to be asked for.

        Args:
            values: Text, numbers or truth values; None, NaN and "" are missing.
            kind: What to make of them.

        Raises:
            ValueError: The values are of one class or all equal, do not fit ``kind``, or are text of which every one is
                another.
        """
        array = np.asarray(values)
        labels = as_labels(array)
        labels = labels[labels != ""]
        distinct = pd.unique(labels)
        if kind in ("binary", "multiclass") or (kind == "auto" and _are_classes(array, distinct)):
            return cls._of_classes(sorted(map(str, distinct), key=natural), len(labels), kind)
        numbers = as_numbers(array)
        numbers = numbers[np.isfinite(numbers)]
        if len(numbers) == 0:
            first = repr(labels[0]) if len(labels) else "missing"
            raise ValueError(f"no target is a number, as a {kind} needs; the first is {first}")
        if numbers.min() == numbers.max():
            raise ValueError(f"every training target is {numbers[0]:g}: there is nothing to learn")
        if kind == "count":
            return cls("count", [])
        return cls("regression", [], float(numbers.mean()), float(numbers.std()))

    @classmethod
    def of_any(cls, values: Sequence[Any] | np.ndarray, kind: Kind = "auto") -> Self:
        """Learn the classes of those training values that are not missing; ``none`` where that is fewer than two."""
        labels = as_labels(np.asarray(values))
        labels = labels[labels != ""]
        return cls.fit(values, kind) if len(pd.unique(labels)) > 1 else cls("none", [])

    def encode_any(self, values: Sequence[Any] | np.ndarray) -> Tensor:
        """The classes of values that may be missing or unknown, shape (N,), int64; -1 stands for those."""
        labels = as_labels(np.asarray(values))
        return torch.from_numpy(pd.Index(self.classes, dtype=object).get_indexer(labels).astype(np.int64))

    @classmethod
    def _of_classes(cls, classes: list[str], num_examples: int, kind: str) -> Self:
        if len(classes) < 2:
            found = f"one class only, {classes[0]!r}" if classes else "no target"
            raise ValueError(f"the training examples have {found}; it takes at least two classes")
        if kind == "binary" and len(classes) > 2:
            raise ValueError(f"output binary takes two classes, and there are {len(classes)}: {listed(classes)}")
        if len(classes) > 100 and 2 * len(classes) > num_examples:
            raise ValueError(
                f"{len(classes)} distinct targets in {num_examples} training examples, such as {classes[0]!r}, are no "
                "classes; name another target, or output regression if they are numbers"
            )
        return cls("multiclass" if kind == "multiclass" or len(classes) > 2 else "binary", classes)

    @property
    def num_outputs(self) -> int:
        """Classes of a multiclass target, else 1."""
        return len(self.classes) if self.output == "multiclass" else 1

    @property
    def metric(self) -> str:
        """The metric to quote: accuracy of classes, r2 of a regression, mae of a count."""
        return {"regression": "r2", "count": "mae"}.get(self.output, "accuracy")

    def encode(self, values: Sequence[Any] | np.ndarray, describe: Callable[[int], str]) -> Tensor:
        """What the network is trained on.

        Args:
            values: N values as people write them.
            describe: Says where example i comes from, e.g. "iris.csv, row 7".

        Returns:
            Shape (N,): int64 class indices; or float32, standardised for a regression, raw for a count.

        Raises:
            ValueError: A value is missing, of an unknown class, not a number or not a count; names the first such.
        """
        array = np.asarray(values)
        for i, reason in self.faults(array, first=True).items():
            raise ValueError(f"{describe(i)}: {reason}")
        if self.classes:
            return torch.from_numpy(pd.Index(self.classes, dtype=object).get_indexer(as_labels(array)).astype(np.int64))
        return torch.from_numpy(((as_numbers(array) - self.mean) / self.scale).astype(np.float32))

    def faults(self, values: Sequence[Any] | np.ndarray, first: bool = False) -> dict[int, str]:
        """Values that :meth:`encode` would refuse.

        Args:
            values: N values.
            first: Look for no more than the first one.

        Returns:
            Position to reason, ascending.
        """
        array = np.asarray(values)
        labels = as_labels(array)
        if self.classes:
            wrong = pd.Index(self.classes, dtype=object).get_indexer(labels) < 0
            expected = f"is none of the {len(self.classes)} classes of training: {listed(self.classes)}"
        else:
            numbers = as_numbers(array)
            wrong, expected = ~np.isfinite(numbers), "is not a finite number"
            if self.output == "count":
                wrong |= (numbers < 0) | (numbers != np.floor(numbers))
                expected = "is not a count, which is a whole number from 0"
        found = np.flatnonzero(wrong)[: 1 if first else None]
        return {int(i): f"target {labels[i]!r} {expected}" if labels[i] else "the target is missing" for i in found}

    def answers(self, outputs: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """What a person would read of a module's ``predict_step`` outputs.

        Args:
            outputs: ``probability``, shape (B, C), or ``value``, shape (B,), as the network gives it.

        Returns:
            B mappings: ``label``, its ``probability`` and ``probabilities`` of all classes; or ``value`` in its own
            units.
        """
        if not self.classes:
            return [{"value": value} for value in (outputs["value"].double() * self.scale + self.mean).tolist()]
        best = outputs["probability"].max(dim=1)
        return [
            {
                "label": self.classes[index],
                "probability": probability,
                "probabilities": dict(zip(self.classes, row, strict=True)),
            }
            for index, probability, row in zip(
                best.indices.tolist(), best.values.tolist(), outputs["probability"].tolist(), strict=True
            )
        ]

    def state(self) -> dict[str, Any]:
        """Plain values, from which :meth:`restore` makes an equal target."""
        return asdict(self)

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """The target whose :meth:`state` this is."""
        return cls(**state)


def _are_classes(array: np.ndarray, distinct: np.ndarray) -> bool:
    if array.dtype.kind not in "iuf" and not _all_numbers(array):
        return True
    numbers = pd.to_numeric(pd.Series(distinct, dtype=object)).to_numpy(dtype=np.float64)
    return len(numbers) <= FEW and bool(np.all(numbers == np.floor(numbers)))


def _all_numbers(array: np.ndarray) -> bool:
    """Whether an array of mixed Python objects holds numbers alone, as one with gaps does."""
    return array.dtype.kind == "O" and pd.api.types.infer_dtype(array, skipna=True) in (
        "integer", "floating", "mixed-integer-float", "decimal",
    )  # fmt: skip


def as_labels(array: np.ndarray) -> np.ndarray:
    """Values as text, shape (N,), dtype object: "3" for 3 and for 3.0, "true" for True, "" for a missing one."""
    if array.dtype.kind == "b":
        return np.where(array, "true", "false").astype(object)
    if array.dtype.kind in "US" or (array.dtype.kind == "O" and not _all_numbers(array)):
        codes, distinct = pd.factorize(array.astype(object))
        text = pd.Series(distinct, dtype=object).astype(str).str.strip()
        is_truth = pd.api.types.infer_dtype(array, skipna=True) == "boolean"
        return np.array([*(text.str.lower() if is_truth else text), ""], dtype=object)[codes]
    numbers = array.astype(float)
    codes, distinct = pd.factorize(numbers)
    names = [str(int(v)) if np.isfinite(v) and v == np.floor(v) else repr(float(v)) for v in distinct]
    return np.array([*names, ""], dtype=object)[codes]


def as_numbers(array: np.ndarray) -> np.ndarray:
    """Values as float64, shape (N,); NaN where one is missing or is not a number."""
    if array.dtype.kind in "biuf":
        return array.astype(np.float64)
    return pd.to_numeric(pd.Series(array, dtype=object), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def natural(label: str) -> tuple[Any, ...]:
    """Sorting key: numbers by value and before text, digits within text by value."""
    if re.fullmatch(r"[+-]?\d+(\.\d+)?", label):
        return (0, float(label), label)
    parts = re.split(r"(\d+)", label.casefold())
    return (1, [int(part) if part.isdecimal() else part for part in parts], label)


def listed(names: Sequence[str]) -> str:
    """Names for a message, cut short."""
    return ", ".join(names[:SHOWN]) + (f" … ({len(names)} in all)" if len(names) > SHOWN else "")
