"""Columns: what a column is taken for, and the limits of that."""

import datetime

import numpy as np
import pyarrow as pa
import pytest

from workloads.data._columns import Categorical, Features, Numeric, parse, target_values


def column(values, kind=None):
    return pa.chunked_array([pa.array(values, kind)])


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        ([" 1", "2.5 ", "1e3", "NA", ""], [1, 2.5, 1000, np.nan, np.nan]),
        ([1, None, 3], [1, np.nan, 3]),
        (["1", "2", "x"], [1, 2, np.nan]),
    ],
)
def test_numbers_and_text_of_numbers(values, numbers):
    cells = parse(column(values), "x")
    assert cells.vocabulary is None
    np.testing.assert_array_equal(cells.value_N, numbers)
    assert cells.wrong_N.tolist() == [value == "x" for value in values]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["b", "a", None, "b"], ["b", "a", None, "b"]),
        ([True, False], ["true", "false"]),
        (["1", "a", "b", "?"], ["1", "a", "b", None]),
    ],
)
def test_text_and_truth_values_are_categories(values, words):
    cells = parse(column(values), "x")
    assert [None if code < 0 else cells.vocabulary[code] for code in cells.value_N] == words
    assert cells.missing_N.tolist() == [word is None for word in words]


@pytest.mark.parametrize("values", [[3, 10, None], [3.0, 10.0, None], ["3.0", "10", ""], ["3", " 10", "NA"]])
def test_numbers_as_categories_are_named_alike_in_every_file(values):
    cells = parse(column(values), "x", numeric=False)
    assert Categorical.fit(cells) == Categorical("x", ["3", "10", ""])


def test_truth_values_where_training_had_numbers_are_wrong():
    assert parse(column([True, None]), "x", numeric=True).wrong_N.tolist() == [True, False]


def test_dates_and_lists_are_refused():
    for values, kind in (([datetime.date(2020, 1, 1)], "date32"), ([[1, 2]], "list")):
        with pytest.raises(ValueError, match=f"column 'x' holds {kind}.*--data.ignore x"):
            parse(column(values), "x")


def test_a_target_of_few_numbers_and_something_else_is_of_classes():
    values, kind = target_values(column(["0", "1", "2", "3+"] * 3), "children", "auto")
    assert kind == "auto" and set(values) == {"0", "1", "2", "3+"}
    values, kind = target_values(column([*map(str, range(30)), "n.a.x"]), "price", "auto")
    assert kind == "regression" and values[3] == 3.0 and values[30] == "n.a.x"


def test_a_constant_number_with_gaps_keeps_its_indicator():
    column_ = Numeric.fit(parse(column([5.0, None, 5.0]), "x"))
    assert column_ == Numeric("x", 5.0, 1.0, True)
    assert Numeric.fit(parse(column([5.0, 5.0]), "x")) is None
    assert Numeric.fit(parse(column([None, None], pa.float64()), "x")) is None


def test_too_many_categories_are_refused():
    names = [f"id{i}" for i in range(150)]
    with pytest.raises(ValueError, match=r"150 distinct texts in 150 training rows.*--data.ignore x"):
        Categorical.fit(parse(column(names), "x"))
    assert Categorical.fit(parse(column(names * 3), "x")).width == 150


def test_features_survive_their_state():
    cells = [parse(column([1.0, None, 4.0]), "x"), parse(column(["a", "b", "a"]), "k"), parse(column([1, 1, 1]), "c")]
    features = Features.fit(cells)
    again = Features.restore(features.state())
    assert again == features and again.dropped == ["c"] and again.width == 4
    np.testing.assert_array_equal(again.encode(cells, 3), features.encode(cells, 3))
