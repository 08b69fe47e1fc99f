"""What simple and classical methods reach on the same splits: the figures that stand beside a network's.

Every function takes a prepared data module, trains on its training split alone, and returns name to value of
``data.metric`` on its test split. All are deterministic.

Shapes: N examples, F features, C channels, H rows, W columns.
"""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from workloads._extras import need
from workloads.data._base import DataModule
from workloads.data._splits import subset

MOST = 20_000
"""Training examples that a method beyond the majority sees; more would take longer than the network."""

LARGEST, SMALLEST = 64, 8
"""Sides in pixels between which images are scaled before their gradients are counted."""

CHUNK = 4096
"""Examples held as float32 images at once."""

Split = tuple[np.ndarray, np.ndarray]
"""Features, float32, shape (N, F); and targets, shape (N,)."""


def tables(data: DataModule) -> dict[str, float]:
    """Majority class, logistic regression and random forest; of numbers: mean, ridge regression and random forest."""
    methods = {linear_name(data): _linear(data, 1.0), "random forest": _forest(data)}
    return constant(data) | _scores(data, methods, _flat)


def images(data: DataModule) -> dict[str, float]:
    """Majority class, and histograms of oriented gradients (HOG) with an SVM and with a random forest.

    Of numbers: mean, and HOG with ridge regression and with a random forest. The methods of N. Dalal and B. Triggs,
    "Histograms of Oriented Gradients for Human Detection", 2005, as scikit-image and scikit-learn implement them.
    """
    svm = need("sklearn.svm", extra="vision").SVC(C=10)
    first = {"HOG + SVM": svm} if data.classes else {"HOG + ridge regression": _linear(data, 1.0)}
    return constant(data) | _scores(data, first | {"HOG + random forest": _forest(data)}, _hog)


def logistic(data: DataModule) -> dict[str, float]:
    """Majority class, logistic regression on pixels and 3 nearest neighbours; of numbers: mean, ridge, 3 neighbours."""
    neighbors = need("sklearn.neighbors", extra="data")
    kind = neighbors.KNeighborsClassifier if data.classes else neighbors.KNeighborsRegressor
    methods = {linear_name(data): _linear(data, 0.1), "3 nearest neighbours": kind(n_neighbors=3)}
    return constant(data) | _scores(data, methods, _flat)


def constant(data: DataModule) -> dict[str, float]:
    """The majority class, or the mean, of all training targets."""
    target_N = _targets(data, "train")
    test_N = _targets(data, "test")
    answer = np.bincount(target_N).argmax() if data.classes else target_N.mean()
    name = "majority class" if data.classes else "mean"
    return {name: metric(data, test_N, np.full(len(test_N), answer))}


def _scores(
    data: DataModule, methods: dict[str, Any], features: Callable[[DataModule, torch.Tensor], np.ndarray]
) -> dict[str, float]:
    """Fit each method and score it. ``features`` makes an (N, F) matrix of gathered ``inputs``."""
    target_N = _targets(data, "train")
    some = subset(len(target_N), target_N if data.classes else None, MOST, seed=0)
    suffix = f" ({MOST:,} examples)" if len(some) < len(target_N) else ""
    train, test = _split(data, "train", some, features), _split(data, "test", None, features)
    scores = {}
    for name, method in methods.items():
        # BLAS would start a thread a core and let them spin, also where the cores belong to others.
        limit = need("threadpoolctl", extra="data").threadpool_limits(data.machine.num_threads)
        with limit, warnings.catch_warnings():
            # A baseline that has used up its iterations is as good as it will get.
            warnings.simplefilter("ignore", need("sklearn.exceptions", extra="data").ConvergenceWarning)
            method.fit(*train)
        scores[name + suffix] = metric(data, test[1], method.predict(test[0]))
    return scores


def _split(
    data: DataModule,
    name: str,
    index: np.ndarray | None,
    features: Callable[[DataModule, torch.Tensor], np.ndarray],
) -> Split:
    split = data.splits[name]
    order = torch.arange(len(split)) if index is None else torch.from_numpy(index)
    parts = [split.gather(some) for some in order.split(CHUNK)]
    target_N = torch.cat([part["target"] for part in parts]).cpu().numpy()
    return np.concatenate([features(data, part["inputs"].cpu()) for part in parts]), target_N


def _targets(data: DataModule, name: str) -> np.ndarray:
    split = data.splits[name]
    parts = [split.gather(some)["target"].cpu() for some in torch.arange(len(split)).split(CHUNK)]
    return torch.cat(parts).numpy()


def metric(data: DataModule, target_N: np.ndarray, answer_N: np.ndarray) -> float:
    """The value of ``data.metric``."""
    metrics = need("sklearn.metrics", extra="data")
    score = {"accuracy": metrics.accuracy_score, "r2": metrics.r2_score, "mae": metrics.mean_absolute_error}
    return float(score[data.metric](target_N, answer_N))


def linear_name(data: DataModule) -> str:
    """What the linear method is called, of classes or of numbers."""
    return "logistic regression" if data.classes else "ridge regression"


def _linear(data: DataModule, strength: float) -> Any:
    """Logistic regression at an inverse penalty ``strength``; of numbers: ridge, which finds its own."""
    linear = need("sklearn.linear_model", extra="data")
    if data.classes:
        return linear.LogisticRegression(C=strength, max_iter=200)
    return linear.RidgeCV(alphas=np.logspace(-3, 3, 13))


def _forest(data: DataModule) -> Any:
    ensemble = need("sklearn.ensemble", extra="data")
    kind = ensemble.RandomForestClassifier if data.classes else ensemble.RandomForestRegressor
    return kind(100, random_state=0, n_jobs=data.machine.num_threads)


def _flat(data: DataModule, inputs: torch.Tensor) -> np.ndarray:
    pixels = inputs.dtype == torch.uint8
    return inputs.reshape(len(inputs), -1).float().div(255 if pixels else 1).numpy()


def _hog(data: DataModule, images_NCHW: torch.Tensor) -> np.ndarray:
    hog = need("skimage.feature", extra="vision").hog
    grey_N1HW = images_NCHW.float().mean(dim=1, keepdim=True) / 255
    size = [min(max(side, SMALLEST), LARGEST) for side in grey_N1HW.shape[2:]]
    if size != list(grey_N1HW.shape[2:]):
        grey_N1HW = torch.nn.functional.interpolate(grey_N1HW, size, mode="area")
    cell = max(2, min(size) // 5)

    def count(image_HW: np.ndarray) -> np.ndarray:
        return hog(image_HW, pixels_per_cell=(cell, cell), cells_per_block=(2, 2)).astype(np.float32)

    # Its loops in C leave Python to other threads: two take 0.55 of the time of one.
    with ThreadPoolExecutor(max(2, data.machine.num_threads)) as pool:
        return np.stack(list(pool.map(count, grey_N1HW[:, 0].numpy())))
