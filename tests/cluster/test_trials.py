"""Trials in Ray's actors: pbt takes weights over for real, stopped ones end, and nothing leaks. One Ray cluster."""

import csv
import json
import os
import statistics
from dataclasses import replace

import pytest
import torch

import workloads
from cluster.checkpoints import WEIGHTS
from cluster.folder import Folder
from cluster.runs import Run
from cluster.session import LocalSession
from cluster.sweep import parse, tune
from cluster.worker import fit

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(280),
    # Ray leaves sockets and log files to the garbage collector when it shuts down.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # Ray 2.60 announces changes of its own defaults.
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    import ray

    before = {key: os.environ.pop(key) for key in list(os.environ) if key in ("RAY_ADDRESS", "RAY_TMPDIR")}
    # Just enough CPUs for one trial with two workers.
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    os.environ.update(before)


def sweep(folder, *flags):
    return parse(["mlp", "--name", "s", "--storage", str(folder), "--data.source", "breast_cancer", *flags])[0]


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def saved(trial, step):
    return torch.load(trial / "checkpoints" / f"step-{step:09d}" / WEIGHTS, weights_only=True)


ONE_NETWORK = (
    "--space.model.hidden_dims", "[8]", "--space.model.optimizer", "adamw", "--space.model.lr", "1e-4..3e-2:log",
    "--space.model.weight_decay", "1e-3..1:log", "--space.model.schedule", "constant", "--space.data.batch_size", "32",
    "--model.warmup", "0",
)  # fmt: skip


@pytest.mark.parametrize(("workers", "trials"), [(1, 4), pytest.param(2, 2, marks=pytest.mark.slow)])
def test_pbt_takes_over_the_donor_s_weights_and_trains_on_with_the_altered_settings(tmp_path, workers, trials):
    # With this seed the second rate is a hundredth of the first: the second trial takes over from it.
    flags = ("--trials", str(trials), "--max-epochs", "6", "--scheduler", "pbt", "--perturb-every", "3",
             "--workers", str(workers), "--keep-trials", "0", "--checkpoint.keep", "9", "--seed", "36")  # fmt: skip
    result = tune(sweep(tmp_path, *flags, *ONE_NETWORK))
    assert (result["status"], result["num_trials"], result["num_failed"]) == ("finished", trials, 0)
    taken = rows(tmp_path / "s" / "perturbations.csv")
    assert len(taken) == result["num_perturbations"] >= 1

    last = {row["trial"]: row for row in taken}
    by_trial = {name: tmp_path / "s" / "trials" / name for name in {*last, *(row["from"] for row in taken)}}
    compared = 0
    for name, row in last.items():
        epoch, step, altered = int(row["epoch"]), int(row["step"]), json.loads(row["altered"])
        history = rows(by_trial[name] / "metrics.csv")
        assert [int(r["epoch"]) for r in history] == list(range(1, 7))
        stored = Run(Folder(str(by_trial[name]))).stored()[1]
        assert json.loads((by_trial[name] / "result.json").read_text())["world_size"] == workers
        # The settings that were drawn are in force, not those in the checkpoint it went on from.
        assert altered and stored["model"]["lr"] == altered.get("model.lr", [0, stored["model"]["lr"]])[1]
        assert [float(r["train/lr"]) for r in history[epoch:]] == [stored["model"]["lr"]] * (6 - epoch)
        groups = saved(by_trial[name], int(history[-1]["step"]))["optimizer_states"][0]["param_groups"]
        assert [group["lr"] for group in groups] == [stored["model"]["lr"]] * len(groups)
        assert groups[0]["weight_decay"] == stored["model"]["weight_decay"]
        if last.get(row["from"], {"epoch": 0})["epoch"] == 0:  # a donor that was not itself altered since
            donor = rows(by_trial[row["from"]] / "metrics.csv")
            assert history[:epoch] == donor[:epoch] and history[epoch:] != donor[epoch:]
            mine, theirs = (saved(by_trial[n], step)["state_dict"] for n in (name, row["from"]))
            assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
            compared += 1
    assert compared >= 1


@pytest.mark.slow
def test_asha_stops_a_trial_with_two_workers_and_the_next_one_finds_the_cpus(tmp_path):
    result = tune(
        sweep(
            tmp_path, "--max-epochs", "9", "--scheduler", "asha", "--workers", "2", *ONE_NETWORK,
            "--search", "grid", "--space.model.lr", "1e-2,1e-6", "--space.model.dropout", "0.1",
            "--space.model.weight_decay", "0.0", "--space.model.label_smoothing", "0.0",
            "--space.model.activation", "relu",
        )
    )  # fmt: skip
    assert (result["num_trials"], result["num_failed"]) == (2, 0)
    trials = {row["model.lr"]: row for row in rows(tmp_path / "s" / "trials.csv")}
    assert trials["1e-06"]["status"] == "stopped early" and int(trials["1e-06"]["epochs"]) < 9
    assert trials["0.01"]["status"] == "finished" and trials["0.01"]["epochs"] == "9"
    assert json.loads((tmp_path / "s/trials" / trials["0.01"]["trial"] / "result.json").read_text())["world_size"] == 2


def test_hyperband_pauses_trials_and_each_goes_on_where_it_was(tmp_path):
    result = tune(
        sweep(tmp_path, "--trials", "7", "--max-epochs", "9", "--scheduler", "hyperband", "--keep-trials", "0")
    )
    assert (result["status"], result["num_trials"], result["num_failed"]) == ("finished", 7, 0)
    assert result["num_stopped_early"] >= 1
    for trial in (tmp_path / "s" / "trials").iterdir():
        epochs = [int(row["epoch"]) for row in rows(trial / "metrics.csv")]
        assert epochs == list(range(1, len(epochs) + 1))
    assert {int(row["epochs"]) for row in rows(tmp_path / "s" / "trials.csv")} >= {3, 9}


def test_a_score_is_the_mean_over_seeds_and_best_yaml_repeats_each(tmp_path):
    result = tune(sweep(tmp_path, "--trials", "2", "--max-epochs", "2", "--scheduler", "fifo", "--seeds", "3"))
    best = rows(tmp_path / "s" / "trials.csv")[0]
    trial = tmp_path / "s" / "trials" / best["trial"]
    losses = [
        min(float(row["val/loss"]) for row in rows(folder / "metrics.csv"))
        for folder in (trial, trial / "seed-1", trial / "seed-2")
    ]
    assert len(set(losses)) == 3 and best["seeds"] == "3"
    assert result["monitor"]["best"] == float(best["best"]) == statistics.fmean(losses)
    assert float(best["std"]) == pytest.approx(statistics.stdev(losses))
    # As a run of its own, outside the sweep, the third seed gives its number to the last digit.
    workload = workloads.load("mlp")
    config = workload.config(workload.read(str(tmp_path / "s" / "best.yaml")), {"seed": 2})
    job = sweep(tmp_path).job
    alone = fit(replace(job, config=config, directory=str(tmp_path / "alone")), LocalSession())
    assert alone["monitor"]["best"] == losses[2]


def test_nothing_leaks_from_trial_to_trial_over_fifty_in_one_actor(tmp_path):
    facts = tmp_path / "facts.jsonl"

    def watched(config, sweep):
        import json
        import os
        import random
        from pathlib import Path

        import numpy as np
        import torch

        from cluster.trial import train_trial

        train_trial(config, sweep)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        told = {
            "trial": config["asked"]["trial"], "pid": os.getpid(), "memory": pages * os.sysconf("SC_PAGE_SIZE"),
            "threads": len(os.listdir("/proc/self/task")), "files": len(os.listdir("/proc/self/fd")),
            "torch_threads": torch.get_num_threads(), "temporary": len(list(Path("/tmp").glob("raydeck-*"))),
            "cwd": os.getcwd(), "environment": len(os.environ), "grad": torch.is_grad_enabled(),
            "type": str(torch.get_default_dtype()),
        }  # fmt: skip
        random.random(), np.random.rand(), torch.rand(1)  # what a trial does to the generators must not matter
        with facts.open("a") as file:
            file.write(json.dumps(told) + "\n")

    flags = ("--trials", "50", "--max-epochs", "2", "--scheduler", "fifo", "--concurrent", "1")
    tune(sweep(tmp_path, *flags, "--space.model.optimizer", "adamw"), watched)
    told = [json.loads(line) for line in facts.read_text().splitlines()]
    assert len(told) == 50 and len({fact["pid"] for fact in told}) == 1
    early, late = told[9], told[49]
    for what in ("torch_threads", "cwd", "environment", "grad", "type"):
        assert early[what] == late[what], what
    for what, margin in (("threads", 2), ("files", 4), ("temporary", 2), ("memory", 40 << 20)):
        assert late[what] - early[what] <= margin, (what, [fact[what] for fact in told])
    # The fiftieth trial gives, to the last digit, the numbers of a run in a fresh process.
    trial = tmp_path / "s" / "trials" / "0050"
    config = Run(Folder(str(trial))).stored()[1]
    fit(replace(sweep(tmp_path).job, config=config, directory=str(tmp_path / "alone")), LocalSession())
    mine, theirs = (
        [{key: value for key, value in row.items() if key != "seconds"} for row in rows(folder / "metrics.csv")]
        for folder in (trial, tmp_path / "alone")
    )
    assert mine == theirs
