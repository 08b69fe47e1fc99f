"""Sweeps: grids, spaces, and one that is killed and goes on."""

import csv
import json
import os
import signal
import time

import pytest
from ray import tune

import workloads
from cluster.sweep import _points, grid, space


def test_a_range_gives_a_grid_its_ends_and_its_middle_on_its_own_scale():
    assert _points(tune.choice([[8], [16]])) == [[8], [16]]
    assert _points(tune.uniform(0.0, 1.0)) == [0.0, 0.5, 1.0]
    assert _points(tune.loguniform(1e-4, 1e-2)) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert _points(tune.randint(1, 6)) == [1, 3, 5]
    assert _points(7) == [7]


def test_a_grid_is_every_combination_and_one_too_large_is_refused():
    combinations = grid({"a": tune.choice([1, 2, 3]), "b": tune.uniform(0, 1)})
    assert len(combinations) == 9 and {"a": 2, "b": 0.5} in combinations
    with pytest.raises(ValueError, match=r"1,024 combinations.*--search random"):
        grid({str(k): tune.choice([1, 2]) for k in range(10)})


def test_a_space_with_a_key_that_data_decides_is_refused():
    workload = workloads.load("mlp")
    assert "model.lr" in space(workload)
    with pytest.raises(ValueError, match="decided by the data"):
        workload.check_keys({"model.num_outputs": None})


@pytest.mark.ray
def test_a_killed_sweep_goes_on_and_does_no_trial_twice(raydeck, tmp_path):
    command = ("tune", "mlp", "--name", "s", "--trials", "5", "--concurrent", "1", "--scheduler", "fifo",
               "--trainer.max_epochs", "60", "--seed", "3")  # fmt: skip
    process = raydeck.start(*command)
    trials = tmp_path / "runs" / "s" / "trials"

    def finished():
        results = [json.loads(p.read_text()) for p in trials.glob("*/result.json")] if trials.exists() else []
        return sum(result["status"] == "finished" for result in results)

    deadline = time.monotonic() + 120
    while finished() < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert 2 <= finished() < 5
    done = {p: p.stat().st_mtime_ns for p in trials.glob("*/metrics.csv") if is_finished(p.parent)}

    _, err = raydeck(*command)
    assert {p: p.stat().st_mtime_ns for p in done} == done
    rows = list(csv.DictReader((tmp_path / "runs" / "s" / "trials.csv").read_text().splitlines()))
    assert len(rows) == len({row["model.lr"] for row in rows}) == len(list(trials.iterdir())) == 5
    assert {row["status"] for row in rows} == {"finished"} and all(row["best"] for row in rows)
    _, err = raydeck(*command)
    assert "is finished; nothing to do" in err


def is_finished(folder):
    return json.loads((folder / "result.json").read_text())["status"] == "finished"
