"""Optuna's samplers: they learn, they go on where an earlier start stopped, and they ask for nothing unbuildable."""

import math

import pytest
from ray import tune

import workloads
from cluster.building import Builder
from cluster.ledger import Record, trial_name
from cluster.optuna_search import OptunaSearch
from cluster.spaces import Space
from tune_spaces import Given, Several

SPACE = Space(
    {
        "model.hidden_dims": Several(0, 2, tune.choice([8, 16])),
        "model.optimizer": tune.choice(["adamw", "sgd"]),
        "model.lr": Given("model.optimizer", {"adamw": tune.loguniform(1e-4, 1e-1), "sgd": tune.uniform(0.1, 0.5)}),
        "data.batch_size": tune.choice([16, 32]),
    }
)


def searching(space=SPACE, objectives=None, records=(), seed=0):
    workload = workloads.load("mlp")
    decided = {"input_shape": (4,), "output": "multiclass", "num_outputs": 3, "target_scale": 1.0}
    objectives = objectives or {"val/loss": "min"}
    builder = Builder(workload, workload.config(), space, decided)
    return OptunaSearch(builder, objectives=objectives, seed=seed, max_epochs=9, records=list(records))


def loss(point):
    rate = point.get("model.lr|adamw")
    return 3.0 if rate is None else abs(math.log10(rate) + 2)


def run(search, count, first=0):
    """Ask for trials one after the other; returns their points."""
    points = []
    for k in range(first, first + count):
        asked = search.suggest(f"tune-{k}")["asked"]
        assert asked["trial"] == trial_name(k)
        points.append(asked["point"])
        search.on_trial_complete(f"tune-{k}", {"best": loss(asked["point"]), "epoch": 9})
    return points


def test_it_finds_the_branch_and_the_rate_that_are_good():
    points = run(searching(), 40)
    early, late = ([loss(point) for point in part] for part in (points[:10], points[-10:]))
    assert sum(late) < sum(early) / 2
    assert sum("model.lr|adamw" in point for point in points[-10:]) >= 8


def test_an_earlier_start_is_learnt_from_and_what_had_not_ended_is_asked_again():
    points = run(searching(), 30)
    records = [Record(trial_name(k), p, "finished", best=loss(p), epochs=9) for k, p in enumerate(points)]
    records[5].status, records[5].best = "running", None
    records[7] = Record(trial_name(7), points[7], "failed", error="out of memory")
    search = searching(records=records, seed=1)
    again = search.suggest("tune-0")["asked"]
    assert again == {"trial": trial_name(5), "point": points[5]}
    search.on_trial_complete("tune-0", {"best": loss(points[5]), "epoch": 9})
    more = run(search, 5, first=30)
    assert sum(loss(point) for point in more) < sum(loss(point) for point in points[:10]) / 4


def test_stopped_and_failed_trials_are_told_as_what_they_are():
    search = searching()
    for trial, result, error in (
        ("whole", {"best": 0.5, "epoch": 9}, False),
        ("stopped", {"best": 0.7, "epoch": 3}, False),
        ("diverged", {"best": None, "epoch": 1}, False),
        ("failed", {"best": 0.5, "epoch": 2}, True),
    ):
        search.suggest(trial)
        search.on_trial_complete(trial, result, error)
    assert [trial.state.name for trial in search.study.trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]
    assert search.study.trials[1].intermediate_values == {3: 0.7}


def test_what_cannot_be_built_is_never_asked_for():
    space = Space({"model.dropout": tune.uniform(0.5, 1.5)})
    search = searching(space)
    rates = [search.suggest(str(k))["asked"]["point"]["model.dropout"] for k in range(15)]
    assert all(0.5 <= rate < 1 for rate in rates)
    with pytest.raises(ValueError, match=r"100 points of the space in a row cannot be built; the last: model.dropout"):
        searching(Space({"model.dropout": tune.uniform(1.0, 1.5)})).suggest("0")


def test_several_objectives_are_all_told():
    search = searching(objectives={"val/accuracy": "max", "num_parameters": "min"})
    search.suggest("a")
    search.on_trial_complete("a", {"best": 0.1, "epoch": 9, "values": {"val/accuracy": 0.9, "num_parameters": 100.0}})
    assert search.study.trials[0].values == [0.9, 100.0]
    assert [direction.name for direction in search.study.directions] == ["MAXIMIZE", "MINIMIZE"]
