"""Axes of parallel coordinates: where a value stands between 0 and 1, and what is written beside it."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.importance import INACTIVE, categories, is_log, is_number

# Where trials stand that do not have the key, below the axis.
UNSET = -0.13
MOST_LABELS = 10


@dataclass(frozen=True)
class Axis:
    """One axis.

    Args:
        name: What is written above.
        places: Each trial's place on it, from 0 to 1, or ``UNSET``.
        ticks: Places and what is written there.
    """

    name: str
    places: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]


def shorten(text: str, width: int) -> str:
    """Text of at most so many characters, its end cut."""
    return text if len(text) <= width else text[: width - 1] + "…"


def wrap(name: str, width: int) -> str:
    """A name on at most two lines, parted after a dot, an underscore or a slash."""
    lines = [""]
    for part in re.split(r"(?<=[._/])", name):
        if lines[-1] and len(lines) < 2 and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(shorten(line, width) for line in lines)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Keys without the part before the first dot, unless two would then be one."""
    names = {key: key.split(".", 1)[-1] for key in keys}
    count = Counter(names.values())
    return {key: name if count[name] == 1 else key for key, name in names.items()}


def figures(value: float) -> str:
    """A number to three figures, a whole one in full."""
    return f"{value:,}" if isinstance(value, int) and abs(value) < 1e6 else f"{value:.3g}"


def say_value(value: Any) -> str:
    """A searched value as people write it."""
    if is_number(value):
        return figures(value)
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value, separators=(",", ":"))


def ordered(points: Sequence[Mapping[str, Any]], importances: Mapping[str, float]) -> list[str]:
    """Keys, the most important first; those that never vary last."""
    values: dict[str, set[str]] = {}
    for point in points:
        for key, value in point.items():
            values.setdefault(key, set()).add(json.dumps(value))
    return sorted(values, key=lambda key: (-importances.get(key, 0.0), len(values[key]) == 1, key))


def key_axis(name: str, values: Sequence[Any], width: int) -> Axis:
    """The axis of a key.

    Args:
        name: What is written above.
        values: A trial's value each, or ``INACTIVE``.
        width: Most characters of a label.
    """
    active = [value for value in values if value is not INACTIVE]
    numeric = all(is_number(value) for value in active)
    places, ticks = _numbers(values, active) if numeric else _categories(values, active)
    if len(active) < len(values):
        ticks = [(UNSET, "unset"), *ticks]
    return Axis(name, tuple(places), tuple((place, shorten(text, width)) for place, text in ticks))


def _categories(values: Sequence[Any], active: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    known = categories(active)
    place = {text: i / (len(known) - 1) if len(known) > 1 else 0.5 for i, text in enumerate(known)}
    places = [UNSET if value is INACTIVE else place[json.dumps(value)] for value in values]
    shown = {known[i] for i in np.linspace(0, len(known) - 1, min(len(known), MOST_LABELS)).round().astype(int)}
    return places, [(place[text], say_value(json.loads(text))) for text in known if text in shown]


def _numbers(values: Sequence[Any], active: Sequence[float]) -> tuple[list[float], list[tuple[float, str]]]:
    low, high = min(active), max(active)
    log = is_log(active)

    def place(value: float) -> float:
        if low == high:
            return 0.5
        return math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)

    distinct = sorted(set(active))
    if len(distinct) > 5:
        distinct = [low, math.sqrt(low * high) if log else (low + high) / 2, high]
    ticks: list[tuple[float, str]] = []
    for value in distinct:
        if not ticks or place(value) - ticks[-1][0] > 0.06:
            ticks.append((place(value), figures(value)))
    return [UNSET if value is INACTIVE else place(value) for value in values], ticks


def score_axis(name: str, scores: Sequence[float | None], good: float, bad: float) -> Axis:
    """The axis of the score: the best on top, and at the bottom whatever is as bad as the range shows, or worse.

    Args:
        name: What is written above.
        scores: A trial's score each; None where it has none.
        good: Score at the top.
        bad: Score at the bottom.
    """

    def place(score: float) -> float:
        return 0.5 if good == bad else min(1.0, max(0.0, (score - bad) / (good - bad)))

    ends = [good] if good == bad else [bad, (good + bad) / 2, good]
    ticks = [(place(end), figures(float(end))) for end in ends if any(score is not None for score in scores)]
    if None in scores:
        ticks = [(UNSET, "no score"), *ticks]
    return Axis(name, tuple(UNSET if score is None else place(score) for score in scores), tuple(ticks))
