"""Sweeps on the command line: killed and gone on with, stopped, extended, with failing trials, and refused."""

import csv
import json
import os
import re
import signal
import time
from dataclasses import asdict

import pytest
from processes import descendants

import workloads
from cluster.cli import main
from cluster.sweep import parse

SWEEP = ("tune", "mlp", "--scheduler", "fifo", "--concurrent", "1", "--storage", "runs")


def trials_csv(folder, name="s"):
    return list(csv.DictReader((folder / "runs" / name / "trials.csv").read_text().splitlines()))


def status(folder):
    return json.loads((folder / "trial.json").read_text())["status"] if (folder / "trial.json").exists() else "none"


def wait_for(process, done, seconds=120):
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert done(), process.communicate()


def actors(process):
    return [pid for pid, command in descendants(process.pid).items() if "ResourceTrainable" in command]


def best_of(folder, name="s"):
    result = json.loads((folder / "runs" / name / "result.json").read_text())
    return result["best_trial"], result["monitor"]["best"], (folder / "runs" / name / "best.yaml").read_text()


@pytest.mark.ray
def test_a_sweep_killed_at_half_of_its_trials_ends_as_one_that_never_was(raydeck, raydeck_in, tmp_path):
    command = (*SWEEP, "--name", "s", "--trials", "6", "--max-epochs", "40", "--seed", "3", "--keep-trials", "2")
    process = raydeck.start(*command)
    trials = tmp_path / "runs" / "s" / "trials"

    def ended():
        return sorted(p.name for p in trials.glob("*") if status(p) == "finished")

    def halfway():
        running = [p for p in trials.glob("*") if status(p) == "running" and list(p.glob("checkpoints/step-*"))]
        return len(ended()) >= 3 and running

    wait_for(process, halfway)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = ended()
    assert 3 <= len(done) < 6
    written = {p: p.stat().st_mtime_ns for name in done for p in (trials / name).glob("metrics.csv")}
    (begun,) = [p for p in trials.glob("*") if status(p) == "running"]
    before = len((begun / "metrics.csv").read_text().splitlines()) if (begun / "metrics.csv").exists() else 0

    raydeck(*command)
    assert {p: p.stat().st_mtime_ns for p in written} == written  # finished trials were not run again
    whole = raydeck_in(tmp_path / "whole")
    (tmp_path / "whole").mkdir()
    whole(*command)
    assert best_of(tmp_path) == best_of(tmp_path / "whole")
    ours, theirs = trials_csv(tmp_path), trials_csv(tmp_path / "whole")
    same = [{k: v for k, v in row.items() if k not in ("seconds", "minutes")} for row in ours]
    assert same == [{k: v for k, v in row.items() if k not in ("seconds", "minutes")} for row in theirs]
    assert len(same) == 6 and before <= 41
    # Within the disk budget only the two best keep their checkpoints, and the best can be evaluated.
    assert sorted(p.parent.name for p in trials.glob("*/checkpoints")) == sorted(row["trial"] for row in ours[:2])
    assert "accuracy" in raydeck("evaluate", f"runs/s/trials/{ours[0]['trial']}")[0]

    _, err = raydeck(*command)
    assert "is finished; nothing to do" in err


@pytest.mark.ray
def test_ctrl_c_saves_says_how_to_go_on_and_more_trials_extend(raydeck, tmp_path):
    command = (*SWEEP, "--name", "s", "--max-epochs", "120", "--trials")
    process = raydeck.start(*command, "2")
    trials = tmp_path / "runs" / "s" / "trials"
    wait_for(process, lambda: list(trials.glob("0001/metrics.csv")))
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command goes on with the sweep in runs/s" in err
    assert json.loads((tmp_path / "runs" / "s" / "result.json").read_text())["status"] == "stopped"
    out, err = raydeck(*command, "3")
    assert [row["status"] for row in trials_csv(tmp_path)] == ["finished"] * 3
    assert "best of 3 trials" in out or "trial\tstatus" in out
    epochs = [line.split(",")[0] for line in (trials / "0001" / "metrics.csv").read_text().splitlines()[1:]]
    assert epochs == [str(k) for k in range(1, 121)]


@pytest.mark.ray
def test_a_failing_trial_is_recorded_with_its_reason_and_the_others_go_on(raydeck, tmp_path):
    (tmp_path / "t.csv").write_text("a,b,label\n" + "1,2,x\n3,4,y\n2,1,x\n4,4,y\n" * 10)
    # The data is named from where the command is typed, and trials find it. A rate of 1e25 diverges at once.
    out, _ = raydeck(
        *SWEEP, "--name", "s", "--search", "grid", "--max-epochs", "4", "--space.model.hidden_dims", "[8]",
        "--data.source", "t.csv", "--data.target", "label",
        "--space.model.activation", "relu", "--space.model.dropout", "0.1", "--space.model.label_smoothing", "0.0",
        "--space.model.optimizer", "sgd", "--space.model.lr", "0.1,1e25", "--space.model.weight_decay", "0.0",
        "--space.model.schedule", "constant", "--space.data.batch_size", "16",
    )  # fmt: skip
    rows = {row["model.lr"]: row for row in trials_csv(tmp_path)}
    assert len(rows) == 2 and rows["0.1"]["status"] == "finished"
    failed = rows["1e+25"]
    assert failed["status"] == "failed" and "the training loss is not finite" in failed["error"]
    assert f"{failed['trial']} failed: " in out
    assert json.loads((tmp_path / "runs" / "s" / "result.json").read_text())["num_failed"] == 1


@pytest.mark.ray
@pytest.mark.parametrize("retries", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_trial_whose_process_is_killed_is_told_and_the_sweep_goes_on(raydeck, tmp_path, retries):
    process = raydeck.start(
        *SWEEP, "--name", "s", "--trials", "2", "--max-epochs", "120", "--max-failures", str(retries)
    )
    trials = tmp_path / "runs" / "s" / "trials"
    wait_for(process, lambda: list(trials.glob("0001/metrics.csv")))
    found = []
    # Ray rewrites an actor's title as it works: for a moment there is none.
    wait_for(process, lambda: found or found.extend(actors(process)))
    os.kill(found[0], signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    rows = {row["trial"]: row for row in trials_csv(tmp_path)}
    assert rows["0002"]["status"] == "finished"
    if retries:
        assert rows["0001"]["status"] == "finished"
        epochs = [line.split(",")[0] for line in (trials / "0001" / "metrics.csv").read_text().splitlines()[1:]]
        assert epochs == [str(k) for k in range(1, 121)]
    else:
        assert rows["0001"]["status"] == "failed"
        assert "0001 failed: its process died (out of memory, or killed)" in out


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--scheduler", "ashaa"], r"--scheduler: expected one of asha, hyperband, median, pbt, fifo, got 'ashaa'"),
        (["--space.model.lrr", "0.1"], r"no key 'model.lrr'; did you mean 'model.lr'\?"),
        (["--space.model.num_outputs", "3"], "model.num_outputs is decided by the data"),
        (["--time-budget", "0"], "--time-budget: expected more than 0 minutes"),
        (["--search", "grid"], r"the grid has more than 1,000 combinations"),
        (["--scheduler", "pbt", "--search", "optuna"], "--search optuna: pbt needs all its trials from the start"),
        (["--scheduler", "pbt", "--seeds", "2"], "--seeds: pbt alters settings"),
        (["--objectives", "val/accuracy,num_parameters", "--scheduler", "asha"], "--scheduler asha: would stop trials"),
        (["--seeds", "0"], "--seeds: expected at least 1"),
        (["--data.source", "nowhere/"], "data.source: no 'nowhere/'"),
        (
            ["--scheduler", "pbt", "--space.model.dropout", "0.1", "--space.model.label_smoothing", "0.0",
             "--space.model.lr", "0.1", "--space.model.weight_decay", "0.0"],
            "no key of the space can change while a trial trains",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_nothing_behind(tmp_path, monkeypatch, capsys, flags, fault):
    monkeypatch.chdir(tmp_path)
    assert main(["tune", "mlp", "--trials", "2", *flags]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("raydeck: ")]
    assert re.search(fault, line), line
    assert not (tmp_path / "runs").exists()


@pytest.mark.ray
def test_more_trials_at_a_time_than_the_cluster_holds_are_refused(raydeck, tmp_path):
    _, err = raydeck("tune", "mlp", "--concurrent", "99", code=2)
    assert re.search(r"raydeck: 99 trials at a time are asked for and the cluster holds \d+; ask for fewer", err)
    assert not (tmp_path / "runs").exists()


def stored_sweep(folder):
    """A sweep's directory as another command left it."""
    sweep, _ = parse(["mlp", "--name", "s", "--storage", str(folder), "--trials", "2"])
    config = sweep.job.config | {"search": asdict(sweep.search), "space": sweep.space.told()}
    (folder / "s").mkdir()
    (folder / "s" / "config.yaml").write_text(workloads.load("mlp").to_yaml(config))


def test_a_sweep_whose_space_or_search_changed_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    stored_sweep(tmp_path / "runs")
    for flags, key in (
        (["--space.model.lr", "0.1..0.2"], "space.model.lr"),
        (["--scheduler", "fifo"], "search.scheduler"),
        (["--seed", "1"], "seed"),
    ):
        assert main(["tune", "mlp", "--name", "s", "--trials", "2", *flags]) == 2
        assert f"was started with another {key}" in capsys.readouterr().err


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_another_user_s_sweep_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    stored_sweep(tmp_path / "runs")
    os.chown(tmp_path / "runs" / "s", 12345, 12345)
    assert main(["tune", "mlp", "--name", "s", "--trials", "2"]) == 2
    assert "belongs to another user" in capsys.readouterr().err


def test_show_prints_the_space(capsys):
    assert main(["show", "mlp", "--space", "--space.model.schedule", "cosine", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model.hidden_dims"] == "0 to 3 of (one of 8, 16, 32, 64, 128)"
    assert told["model.lr"].startswith("given model.optimizer: adamw: 0.001 to 0.03, logarithmic; sgd: ")
    assert told["model.schedule"] == 'fixed at "cosine"'
    assert main(["show", "mlp", "--space", "--model.lr", "1"]) == 2
    assert "show --space takes" in capsys.readouterr().err
