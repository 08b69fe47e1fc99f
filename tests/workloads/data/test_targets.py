"""Targets: what values are taken for, their encoding, and the way back."""

import math

import numpy as np
import pytest
import torch

from workloads.data._targets import Target, natural


def row(i: int) -> str:
    return f"pets.csv, row {i + 1}"


@pytest.mark.parametrize(
    ("values", "kind", "output", "num_outputs", "classes"),
    [
        (["10", "2", "1", "2"], "auto", "multiclass", 3, ["1", "2", "10"]),
        (["dog", "cat"], "auto", "binary", 1, ["cat", "dog"]),
        (["dog", "cat"], "multiclass", "multiclass", 2, ["cat", "dog"]),
        ([True, False, None], "auto", "binary", 1, ["false", "true"]),
        (np.arange(20), "auto", "multiclass", 20, [str(i) for i in range(20)]),
        (np.arange(21), "auto", "regression", 1, []),
        ([1.0, 2.0, 3.0, None], "auto", "multiclass", 3, ["1", "2", "3"]),
        ([1.5, 2.0, 3.0], "auto", "regression", 1, []),
        ([4, 0, 7], "count", "count", 1, []),
    ],
)
def test_what_values_are_taken_for(values, kind, output, num_outputs, classes):
    target = Target.fit(values, kind)
    assert (target.output, target.num_outputs, target.classes) == (output, num_outputs, classes)


def test_classes_are_encoded_by_name_whatever_their_type():
    target = Target.fit(["10", "2", "1"])
    for values in (["1", "10", "2"], [1, 10, 2], np.array([1.0, 10.0, 2.0])):
        encoded = target.encode(values, row)
        assert encoded.dtype == torch.int64 and encoded.tolist() == [0, 2, 1]


def test_regression_is_standardised_by_training_and_answered_in_its_own_units():
    target = Target.fit([10.5, 20.0, 29.5])
    scale = math.sqrt((9.5**2 + 9.5**2) / 3)
    assert (target.mean, target.scale, target.metric) == (20.0, pytest.approx(scale), "r2")
    encoded = target.encode([20.0, 29.5, 39.0], row)
    assert encoded.dtype == torch.float32
    assert encoded.tolist() == pytest.approx([0.0, 9.5 / scale, 19.0 / scale])
    assert [answer["value"] for answer in target.answers({"value": encoded})] == pytest.approx([20.0, 29.5, 39.0])


def test_counts_stay_raw():
    target = Target.fit([3, 0, 12], "count")
    assert target.encode([5, 0], row).tolist() == [5.0, 0.0]
    assert (target.scale, target.metric) == (1.0, "mae")
    assert target.answers({"value": torch.tensor([2.5])}) == [{"value": 2.5}]


def test_answers_name_the_class_with_its_probability():
    answers = Target.fit(["cat", "dog"]).answers({"probability": torch.tensor([[0.25, 0.75], [1.0, 0.0]])})
    assert answers[0] == {"label": "dog", "probability": 0.75, "probabilities": {"cat": 0.25, "dog": 0.75}}
    assert answers[1]["label"] == "cat"


@pytest.mark.parametrize("values", [["a", "b", "c"], [0.5, 1.5, 9.0]])
def test_a_restored_target_is_equal_and_its_state_is_plain(values, tmp_path):
    target = Target.fit(values)
    torch.save(target.state(), tmp_path / "state")
    assert Target.restore(torch.load(tmp_path / "state", weights_only=True)) == target


@pytest.mark.parametrize(
    ("values", "kind", "says"),
    [
        (["cat", "cat"], "auto", "one class only, 'cat'"),
        ([1, 1, 1], "auto", "one class only, '1'"),
        ([2.5, 2.5], "auto", "every training target is 2.5"),
        ([1, 2, 3], "binary", "binary takes two classes, and there are 3: 1, 2, 3"),
        (["a", "b"], "regression", "no target is a number"),
        ([f"name {i}" for i in range(150)], "auto", "150 distinct targets in 150"),
        ([], "auto", "no target"),
    ],
)
def test_what_cannot_be_learned_is_refused(values, kind, says):
    with pytest.raises(ValueError, match=says):
        Target.fit(values, kind)


@pytest.mark.parametrize(
    ("training", "kind", "values", "says"),
    [
        (["cat", "dog"], "auto", ["dog", "bird"], "pets.csv, row 2: target 'bird' is none of the 2 .*: cat, dog"),
        (["cat", "dog"], "auto", ["", "cat"], "pets.csv, row 1: the target is missing"),
        ([0, 1, 2], "auto", [0, 1, 7], "row 3: target '7' is none of the 3"),
        ([0.5, 1.5], "auto", [0.5, float("inf")], "row 2: target 'inf' is not a finite number"),
        ([0.5, 1.5], "auto", [float("nan")], "row 1: the target is missing"),
        ([0.5, 1.5], "auto", ["much"], "row 1: target 'much' is not a finite number"),
        ([0, 5], "count", [3, -1], "row 2: target '-1' is not a count"),
        ([0, 5], "count", [1.5], "row 1: target '1.5' is not a count"),
    ],
)
def test_a_bad_value_is_named_with_its_row(training, kind, values, says):
    with pytest.raises(ValueError, match=says):
        Target.fit(training, kind).encode(values, row)


def test_faults_lists_every_bad_value():
    target = Target.fit(["a", "b"])
    assert list(target.faults(["a", "x", None, "b", "y"])) == [1, 2, 4]


def test_natural_order():
    labels = ["img10", "img2", "-1", "10", "9.5", "B", "a"]
    assert sorted(labels, key=natural) == ["-1", "9.5", "10", "a", "B", "img2", "img10"]
