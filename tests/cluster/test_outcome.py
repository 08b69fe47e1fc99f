"""What a sweep makes of its records: the front of several objectives, improvements, the table as a file."""

import csv
import io

import pytest
from ray import tune

from cluster.folder import Folder
from cluster.ledger import Ledger, Record
from cluster.outcome import as_csv, deviation, improvements, pareto
from cluster.placement import Placement, Search
from cluster.spaces import Space
from cluster.sweep import objectives_of
from cluster.trial import Sweep
from cluster.worker import Job
from tune_spaces import Several


def record(name, **values):
    return Record(name, {}, "finished", best=0.0, values=values)


def test_the_front_holds_what_nothing_beats_in_everything():
    aims = {"val/accuracy": "max", "num_parameters": "min"}
    points = [(0.9, 100), (0.9, 200), (0.95, 300), (0.8, 50), (0.7, 60), (0.99, 1000), (0.99, 1000)]
    trials = [record(str(k), **{"val/accuracy": a, "num_parameters": n}) for k, (a, n) in enumerate(points)]
    trials.append(Record("running", {}, "running", values={"val/accuracy": 1.0, "num_parameters": 1}))
    trials.append(record("unmeasured", **{"val/accuracy": 1.0}))
    assert [r.trial for r in pareto(trials, aims)] == ["5", "6", "2", "0", "3"]
    assert pareto(trials, {"val/loss": "min"}) == []


def test_improvements_are_in_the_order_in_which_trials_ended():
    ended = [("0001", 0.5, 90.0), ("0002", 0.7, 30.0), ("0003", 0.6, 60.0), ("0004", 0.4, 120.0), ("0005", 0.45, 150.0)]
    trials = [Record(name, {}, "finished", best=best, until=until) for name, best, until in ended]
    trials.append(Record("0006", {}, "failed", until=10.0))
    steps = improvements(trials, "min")
    assert [(s["trial"], s["trials"], s["minutes"], s["best"]) for s in steps] == [
        ("0002", 1, 0.5, 0.7), ("0003", 2, 1.0, 0.6), ("0001", 3, 1.5, 0.5), ("0004", 4, 2.0, 0.4),
    ]  # fmt: skip
    assert [s["trial"] for s in improvements(trials, "max")] == ["0002"]


def test_the_csv_has_the_best_first_and_leaves_out_what_a_trial_did_not_choose(tmp_path):
    space = Space({"model.hidden_dims": Several(1, 2, tune.choice([8, 16])), "model.lr": tune.uniform(0, 1)})
    sweep = Sweep(
        job=Job(workload="mlp", config={}, directory=str(tmp_path), placement=Placement(cpus_per_worker=1)),
        search=Search(seeds=2, scheduler="fifo"), space=space, objectives={"val/loss": "min"},
    )  # fmt: skip
    book = Ledger(Folder(str(tmp_path)), "min", seeds=2, keep=0, spent=0)
    one = {"model.hidden_dims.length": 1, "model.hidden_dims.0": 8, "model.lr": 0.5}
    two = {"model.hidden_dims.length": 2, "model.hidden_dims.0": 8, "model.hidden_dims.1": 16, "model.lr": 0.25}
    book.put(Record("0001", one, "finished", best=0.6, scores=[0.5, 0.7], epochs=3))
    book.put(Record("0002", two, "finished", best=0.3, scores=[0.3, 0.3], epochs=3))
    book.put(Record("0003", one, "failed", error='a line, with "quotes"'))
    rows = list(csv.DictReader(io.StringIO(as_csv(sweep, book))))
    assert [row["trial"] for row in rows] == ["0002", "0001", "0003"]
    assert (rows[0]["model.hidden_dims"], rows[0]["model.lr"], rows[0]["std"]) == ("[8, 16]", "0.25", "0.0")
    assert float(rows[1]["std"]) == pytest.approx(0.1414, abs=1e-4) and rows[1]["seeds"] == "2"
    assert rows[2]["error"] == 'a line, with "quotes"' and rows[2]["best"] == ""
    assert deviation(Record("0004", {}, scores=[0.5])) is None


class Monitored:
    monitor, mode = "val/loss", "min"


def test_objectives_say_what_is_better_or_are_asked():
    def aims(text):
        return objectives_of(Search(objectives=text), Monitored)

    assert objectives_of(Search(), Monitored) == {"val/loss": "min"}
    assert aims("val/accuracy,num_parameters") == {"val/accuracy": "max", "num_parameters": "min"}
    assert aims("val/loss, val/strange:max") == {"val/loss": "min", "val/strange": "max"}
    for text, fault in (
        ("val/strange,num_parameters", "is more or less of 'val/strange' better"),
        ("val/loss", "expected at least two"),
        ("test/accuracy,num_parameters", "no 'test/accuracy'"),
    ):
        with pytest.raises(ValueError, match=fault):
            aims(text)
