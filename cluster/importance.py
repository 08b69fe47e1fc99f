"""How much of a sweep's outcome each searched choice explains by itself."""

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from workloads._extras import need

# A forest over fewer trials says nothing; fANOVA's time grows with the square of the trials of a tree.
FEWEST_TRIALS, MOST_TRIALS = 8, 1000
MOST_TREES, NODES = 64, 16_000
# Numbers that span less than this factor look much the same on a log scale.
LOG_SPAN = 20


class _Inactive:
    """What stands for a key that a trial does not have; None is a value that a trial can try."""


INACTIVE = _Inactive()


def importance(points: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> dict[str, float]:
    """Share of the scores' variance that each choice explains by itself.

    This is fANOVA (Hutter, Hoos, Leyton-Brown 2014): a random forest learns the score from the choices, and its
    variance is taken apart. Effects that only a combination of choices explains are left out, and the rest is scaled
    to a sum of 1.

    Scores are clipped 1.5 interquartile ranges beyond the quartiles. A diverged trial with a loss of 1e6 is then only
    a bad trial, where it would otherwise own the variance. Ranks would do so too, but would count a difference of
    0.001 among good trials as much as one that matters; they stand in only where half of the scores are equal. If more
    than a quarter of the trials diverge, what explains that takes most, as it should.

    A choice that is inactive in a trial takes part as the middle of its active numbers, so that what its owner explains
    is not credited to it, or as a category of its own. More than 1,000 trials are thinned evenly.

    Args:
        points: What each trial tried: dotted key to JSON value; keys may be missing where they are inactive.
        scores: Finite, one a trial; whether lower or higher is better does not matter.

    Returns:
        Key to share, the most important first. Keys with one value only are left out. Empty if there are fewer than 8
        trials, or all scores are equal, or no key varies.
    """
    if len(points) < FEWEST_TRIALS or min(scores) == max(scores):
        return {}
    kept = np.unique(np.linspace(0, len(points) - 1, min(len(points), MOST_TRIALS)).round().astype(int))
    points, scores = [points[i] for i in kept], [scores[i] for i in kept]
    keys = sorted({key for point in points for key in point})
    columns = {key: column for key in keys if (column := encode([point.get(key, INACTIVE) for point in points]))}
    if not columns or min(scores) == max(scores):
        return {}
    shares = _fanova(columns, _tamed(scores))
    return {key: float(share) for key, share in sorted(shares.items(), key=lambda item: (-item[1], item[0]))}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_log(numbers: Sequence[float]) -> bool:
    """Whether numbers are to be seen on a log scale: all positive, far apart, and more even there.

    Many uniform draws from 0 to 1 also lie far apart, but their median is the middle of the linear scale.
    """
    low, high = min(numbers), max(numbers)
    if low <= 0 or high / low <= LOG_SPAN:
        return False
    median = float(np.median(numbers))
    return abs(math.log(median / low) / math.log(high / low) - 0.5) < abs((median - low) / (high - low) - 0.5)


def categories(values: Sequence[Any]) -> list[str]:
    """The different values as JSON text: numbers by size, the rest short before long, so that neighbours are alike."""
    texts = {json.dumps(value): value for value in values}
    return sorted(texts, key=lambda t: (is_number(texts[t]), texts[t] if is_number(texts[t]) else len(t), t))


def encode(values: Sequence[Any]) -> list[float]:
    """A key's values as numbers from 0 to 1; empty if its active values do not vary.

    Categories become equally wide steps of one column. optuna's own columns, one a category, would cost time
    exponential in the number of categories.
    """
    active = [value for value in values if value is not INACTIVE]
    known = categories(active)
    if len(known) < 2:
        return []
    if not all(is_number(value) for value in active):
        steps = ([None] if len(active) < len(values) else []) + known
        place = {text: (i + 0.5) / len(steps) for i, text in enumerate(steps)}
        return [place[None if value is INACTIVE else json.dumps(value)] for value in values]
    scale = math.log if is_log(active) else float
    scaled = [None if value is INACTIVE else scale(value) for value in values]
    numbers = [value for value in scaled if value is not None]
    low, high, middle = min(numbers), max(numbers), float(np.median(numbers))
    if low == high:
        return []
    return [((middle if value is None else value) - low) / (high - low) for value in scaled]


def _tamed(scores: Sequence[float]) -> np.ndarray:
    """Scores without outliers, from 0 to 1."""
    low, high = np.quantile(scores, [0.25, 0.75])
    if low == high:
        # No spread to measure outliers by: ranks, where equal scores share the middle of theirs.
        ordered = np.sort(scores)
        return (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / 2 / len(ordered)
    clipped = np.clip(scores, low - 1.5 * (high - low), high + 1.5 * (high - low))
    return (clipped - clipped.min()) / (clipped.max() - clipped.min())


def _fanova(columns: Mapping[str, Sequence[float]], targets: np.ndarray) -> dict[str, float]:
    """optuna's fANOVA of columns between 0 and 1."""
    optuna = need("optuna", "search")
    need("sklearn.ensemble", "search")
    scale = optuna.distributions.FloatDistribution(0.0, 1.0)
    trees = min(MOST_TREES, NODES // len(targets))
    with _silent(optuna):
        study = optuna.create_study()
        study.add_trials(
            optuna.trial.create_trial(
                params={key: column[i] for key, column in columns.items()},
                distributions=dict.fromkeys(columns, scale),
                value=float(target),
            )
            for i, target in enumerate(targets)
        )
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=trees, seed=0)
        return optuna.importance.get_param_importances(study, evaluator=evaluator)


@contextmanager
def _silent(optuna: Any) -> Iterator[None]:
    """Without optuna's log and its notes that an interface is experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
