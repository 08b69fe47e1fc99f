"""Importance of searched choices, against functions that are planted."""

import math
import random
import time

import pytest

from cluster.importance import INACTIVE, encode, importance

DRAW = {
    "model.lr": lambda r: 10 ** r.uniform(-5, -1),
    "model.dropout": lambda r: r.uniform(0, 0.5),
    "model.activation": lambda r: r.choice(["relu", "gelu", "tanh"]),
    "model.head_dims": lambda r: r.choice([[], [64], [64, 32]]),
    "data.shuffle": lambda r: r.choice([True, False]),
}


def draw(count, seed=0):
    random_state = random.Random(seed)
    return [{key: one(random_state) for key, one in DRAW.items()} for _ in range(count)]


def log_lr(point):
    """A loss with its best learning rate at 1e-3, which only the log scale sees, and a little dropout."""
    return (math.log10(point["model.lr"]) + 3) ** 2 + point["model.dropout"]


def test_the_planted_key_comes_first_and_irrelevant_ones_last():
    points = draw(60)
    shares = importance(points, [log_lr(p) for p in points])
    assert next(iter(shares)) == "model.lr" and shares["model.lr"] > 0.6
    assert shares["model.activation"] < 0.1 and shares["data.shuffle"] < 0.1
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert sum(shares.values()) == pytest.approx(1) and set(shares) == set(DRAW)


@pytest.mark.parametrize("key, good", [("model.head_dims", [64]), ("model.activation", "tanh"), ("data.shuffle", True)])
def test_categories_of_any_kind_can_come_first(key, good):
    points = draw(60)
    shares = importance(points, [float(p[key] == good) + 0.1 * p["model.dropout"] for p in points])
    assert next(iter(shares)) == key and shares[key] > 0.6


def test_a_diverged_trial_does_not_flip_the_order():
    points = draw(40)
    scores = [log_lr(p) for p in points]
    calm = importance(points, scores)
    wild = importance(points, [1e6 if i == 7 else score for i, score in enumerate(scores)])
    assert next(iter(wild)) == next(iter(calm)) == "model.lr" and wild["model.lr"] > 0.6


def test_where_most_scores_are_equal_the_others_still_count():
    points = draw(60)
    shares = importance(points, [max(0.0, log_lr({**p, "model.dropout": 0}) - 1) for p in points])
    assert next(iter(shares)) == "model.lr" and shares["model.lr"] > 0.6


def test_better_upwards_or_downwards_and_the_same_twice():
    points = draw(40)
    scores = [log_lr(p) for p in points]
    assert importance(points, scores) == importance(points, scores)
    upwards = importance(points, [-score for score in scores])
    assert upwards["model.lr"] == pytest.approx(importance(points, scores)["model.lr"], abs=0.02)


def test_a_conditional_key_takes_part():
    points = draw(120)
    random_state = random.Random(1)
    for point in points:
        point["model.channels.length"] = random_state.choice([2, 3])
        if point["model.channels.length"] == 3:
            point["model.channels.2"] = random_state.choice([8, 16, 32, 64, 128, 256])
    scores = [p.get("model.channels.2", 32) + 20 * p["model.dropout"] for p in points]
    shares = importance(points, scores)
    assert next(iter(shares)) == "model.channels.2"
    # What the owner explains is not credited to what it switches on.
    owner = importance(points, [p["model.channels.length"] + 0.1 * p["model.dropout"] for p in points])
    assert next(iter(owner)) == "model.channels.length" and owner["model.channels.2"] < 0.1


def test_what_says_nothing_gives_nothing():
    points = draw(20)
    assert importance([], []) == {} == importance(points[:7], [float(i) for i in range(7)])
    assert importance(points, [1.0] * 20) == {}
    assert importance([{"model.lr": 1e-3}] * 20, [float(i) for i in range(20)]) == {}
    fixed = [{**point, "model.depth": 3} for point in points]
    assert "model.depth" not in importance(fixed, [log_lr(p) for p in points])


def test_values_become_places_between_0_and_1():
    assert encode([0, 5, 10]) == [0.0, 0.5, 1.0]
    assert encode([1e-4, 1e-3, 1e-2]) == pytest.approx([0.0, 0.5, 1.0])
    assert encode([0.01, 0.5, 1.0])[1] == pytest.approx(0.49 / 0.99)  # Far apart, but evenly so.
    assert encode([0, 10, INACTIVE, 10]) == [0.0, 1.0, 1.0, 1.0]
    assert encode(["b", INACTIVE, "a"]) == pytest.approx([5 / 6, 1 / 6, 1 / 2])
    assert encode([None, 2, 10]) == pytest.approx([1 / 6, 1 / 2, 5 / 6])
    assert encode([[16], [16, 32]]) == pytest.approx([1 / 4, 3 / 4])
    assert encode([3, INACTIVE, 3]) == []


def test_many_categories_and_trials_take_seconds():
    points = [{**point, "model.widths": [i % 40]} for i, point in enumerate(draw(1000))]
    start = time.monotonic()
    shares = importance(points, [log_lr(p) for p in points])
    assert next(iter(shares)) == "model.lr" and time.monotonic() - start < 60
