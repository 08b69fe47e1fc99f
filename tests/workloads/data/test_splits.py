"""Splits: exact sizes, strata, copies on one side."""

import numpy as np
import pytest

from workloads.data._splits import cut, exact_duplicates, near_duplicates, subset


def test_five_thousand_digits_are_cut_exactly_and_evenly():
    classes = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 500))
    parts = cut(5000, classes=classes)
    assert {name: len(part) for name, part in parts.items()} == {"train": 3500, "validation": 500, "test": 1000}
    for part, each in zip(parts.values(), (350, 50, 100), strict=True):
        assert np.bincount(classes[part]).tolist() == [each] * 10
        assert part.dtype == np.int64 and np.all(np.diff(part) > 0)
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(5000))


def test_the_seed_decides_the_cut():
    first, same, other = cut(200, seed=1), cut(200, seed=1), cut(200, seed=2)
    assert np.array_equal(first["test"], same["test"])
    assert not np.array_equal(first["test"], other["test"])


def test_uneven_classes_keep_their_shares_and_a_rare_one_is_trained_on():
    classes = np.array(["common"] * 131 + ["seldom"] * 67 + ["once"])
    parts = cut(199, classes=classes)
    assert [len(part) for part in parts.values()] == [139, 20, 40]
    assert "once" in classes[parts["train"]]
    assert abs((classes[parts["test"]] == "seldom").sum() - 67 * 0.2) <= 1


def test_groups_stay_whole_and_sizes_stay_exact():
    random = np.random.default_rng(0)
    groups = np.arange(1000)
    groups[:300] = np.repeat(np.arange(100), 3)
    groups = random.permutation(groups)
    parts = cut(1000, classes=groups % 7, groups=groups)
    sides = [set(groups[part]) for part in parts.values()]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert [len(part) for part in parts.values()] == [700, 100, 200]


def test_a_split_without_a_share_stays_empty():
    parts = cut(80, fractions=(0.7, 0.1, 0.0))
    assert [len(part) for part in parts.values()] == [70, 10, 0]


@pytest.mark.parametrize(
    ("num_examples", "groups", "says"),
    [(4, None, "4 examples are too few .* at least 5"), (60, np.repeat([0, 1], 30), "only 2 .* no validation split")],
)
def test_too_few_examples_are_refused(num_examples, groups, says):
    with pytest.raises(ValueError, match=says):
        cut(num_examples, groups=groups)


def test_a_subset_is_stratified_and_has_every_class():
    classes = np.repeat(np.arange(4), [600, 300, 99, 1])
    taken = subset(1000, classes, 20, seed=0)
    assert len(taken) == 20 and len(set(taken)) == 20
    assert np.bincount(classes[taken]).tolist() == [12, 6, 1, 1]
    assert np.array_equal(subset(1000, classes, 0, seed=0), np.arange(1000))


def test_equal_rows_share_a_group():
    rows = np.array([[1.0, 2.0], [0.0, np.nan], [1.0, 2.0], [-0.0, np.nan], [2.0, 1.0]])
    group = exact_duplicates(rows)
    assert group[0] == group[2] and group[1] == group[3] and len(set(group)) == 3


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 1.5, 2.0])
def test_near_duplicates_are_the_components_that_dbscan_finds(tolerance):
    from sklearn.cluster import DBSCAN
    from sklearn.datasets import load_digits

    digits = np.concatenate([load_digits().data, load_digits().data[:50]])
    group = near_duplicates(digits, tolerance)
    # A core distance of sqrt(D) times the root-mean-square difference; DBSCAN's radius must be above 0.
    reference = DBSCAN(eps=max(tolerance, 1e-6) * 8, min_samples=1).fit(digits).labels_
    pairs = set(zip(group.tolist(), reference.tolist(), strict=True))
    assert len(pairs) == len(set(group)) == len(set(reference)) < len(digits)


def test_near_duplicates_of_equal_rows_are_one_group():
    assert set(near_duplicates(np.full((5000, 16), 7, dtype=np.uint8), 0.0)) == {0}
