"""Baselines: against scikit-learn called directly, and the figures known for real digits."""

import numpy as np
import pytest
import torch

from workloads import _baselines
from workloads.data._batches import InMemory
from workloads.data.images import Images
from workloads.data.tables import Tables


def ready(data):
    data.setup()
    return data


def test_tables_agree_with_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    data = ready(Tables("breast_cancer"))
    train, test = (data.splits[name].columns for name in ("train", "test"))
    scores = _baselines.tables(data)
    expected = LogisticRegression(max_iter=200).fit(train["inputs"], train["target"])
    assert scores["logistic regression"] == expected.score(test["inputs"], test["target"]) > 0.95
    assert scores["majority class"] == pytest.approx((test["target"] == 0).double().mean().item())
    assert list(scores) == ["majority class", "logistic regression", "random forest"]
    assert scores == _baselines.tables(data)


def test_numbers_are_scored_by_r2():
    scores = _baselines.tables(ready(Tables("diabetes")))
    assert abs(scores["mean"]) < 0.05  # the mean explains nothing
    assert 0.4 < scores["ridge regression"] < 0.6


def test_digits_by_gradients_and_by_pixels():
    data = ready(Images("digits"))
    by_gradient, by_pixel = _baselines.images(data), _baselines.logistic(data)
    assert list(by_gradient) == ["majority class", "HOG + SVM", "HOG + random forest"]
    assert by_gradient["majority class"] == by_pixel["majority class"] < 0.11
    assert min(by_gradient["HOG + SVM"], by_pixel["logistic regression"]) > 0.94
    assert by_pixel["3 nearest neighbours"] > 0.975


def test_counts_are_scored_by_absolute_error():
    data = ready(Images("digits", output="count", num_examples=400))
    target = {name: data.splits[name].columns["target"].double() for name in ("train", "test")}
    scores = _baselines.images(data)
    assert scores["mean"] == pytest.approx((target["test"] - target["train"].mean()).abs().mean().item(), rel=1e-5)
    assert scores["HOG + ridge regression"] < scores["mean"]


def test_the_training_set_is_limited_and_says_so():
    data = ready(Tables("iris"))
    train = data.splits["train"].columns
    data.splits["train"] = InMemory({name: column.repeat_interleave(200, dim=0) for name, column in train.items()})
    scores = _baselines.tables(data)
    assert list(scores)[1:] == ["logistic regression (20,000 examples)", "random forest (20,000 examples)"]


def test_gradients_of_odd_sizes_are_counted_on_scaled_images():
    data = ready(Images("digits", num_examples=50))
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 150, 5), dtype=np.uint8))
    features = _baselines._hog(data, images)
    assert features.shape[0] == 3 and np.isfinite(features).all() and len(np.unique(features, axis=0)) == 3
