"""Runs of agents: resumed anywhere, in step on two ranks, killed, from several seeds, drawn as an animation; faults."""

import csv
import json
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from stopped import RANKS, StopsAfter, assert_equal_checkpoints, newest, rows
from two_ranks import run as run_two_ranks

import workloads
from cluster.cli import main
from cluster.placement import Placement
from cluster.seeds import curve, draw, summary
from cluster.session import LocalSession, Stopped
from cluster.worker import Job, fit

SMALL = {
    "dqn": {"data.n_step": 3, "data.priority_exponent": 0.6, "model.double": True, "trainer.max_epochs": 3},
    "actor_critic": {"data.env": "Pendulum-v1", "data.steps_per_epoch": 256, "trainer.max_epochs": 3},
}
"""What each is trained with here, beside its smoke settings."""

names = pytest.mark.parametrize("name", SMALL)
ODD = str(Path(__file__).resolve().parents[1] / "helpers")


def job_of(name, folder, *layers):
    workload = workloads.load(name)
    config = workload.config(workload.smoke, SMALL[name], *layers)
    return Job(workload=name, config=config, directory=str(folder), baselines=False,
               placement=Placement(cpus_per_worker=1))  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The job and the result of an uninterrupted run of each."""
    folder, done = tmp_path_factory.mktemp("whole"), {}

    def run(name):
        if name not in done:
            job = job_of(name, folder / name)
            done[name] = job, fit(job, LocalSession())
        return done[name]

    return run


@names
def test_a_run_stopped_anywhere_and_resumed_is_the_uninterrupted_one(name, whole, tmp_path):
    expected, result = whole(name)
    job = job_of(name, tmp_path / name)
    for batches in (1, 2, 1):
        with pytest.raises(Stopped):
            fit(job, StopsAfter(batches))
    again = fit(job, LocalSession())
    assert again["test"] == result["test"] and again["steps"] == result["steps"] > 4
    assert rows(job) == rows(expected)
    assert_equal_checkpoints(job, expected)


@names
def test_steps_in_the_environment_are_counted(name, whole):
    told = rows(whole(name)[0])
    counted = [int(row["env_steps"]) for row in told]
    data = workloads.load(name).build_data(whole(name)[0].config, None)
    first = getattr(data, "learning_starts", 0)
    for epoch, count in enumerate(counted, start=1):
        nominal = first + epoch * (data.steps_per_epoch // data.steps_per_batch * data.steps_per_batch)
        # An environment that begins an episode takes no step meanwhile.
        assert nominal - int(told[epoch - 1]["episodes"]) <= count <= nominal


def test_two_workers_share_the_environments_and_keep_in_step(tmp_path, whole):
    configs = {name: job_of(name, tmp_path / name).config for name in SMALL}
    configs |= {f"{name}-stopped": config for name, config in configs.items()}
    run_two_ranks(RANKS, str(tmp_path), json.dumps(configs), "2")
    for name in configs:
        ranks = [torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in range(2)]
        assert len(ranks[0]) > 5
        assert all(torch.equal(ranks[0][key], ranks[1][key]) for key in ranks[0]), name
    for name in SMALL:
        jobs = [Job(workload=name, config={}, directory=str(tmp_path / n)) for n in (name, f"{name}-stopped")]
        assert rows(jobs[0]) == rows(jobs[1])
        # As many steps in all as one worker takes, but for episodes that end elsewhere.
        ours, alone = (int(rows(job)[-1]["env_steps"]) for job in (jobs[0], whole(name)[0]))
        assert ours == pytest.approx(alone, rel=0.15)


def test_one_worker_goes_on_with_what_two_have_begun(tmp_path):
    config = job_of("dqn", tmp_path / "dqn").config
    run_two_ranks(RANKS, str(tmp_path), json.dumps({"dqn": config}), "0")
    more = workloads.load("dqn").config(config, {"trainer.max_epochs": 4})
    job = Job(workload="dqn", config=more, directory=str(tmp_path / "dqn"), baselines=False,
              placement=Placement(cpus_per_worker=1))  # fmt: skip
    before = rows(job)
    result = fit(job, LocalSession())
    told = rows(job)
    assert result["epochs"] == 4 and told[:3] == before
    assert int(told[3]["env_steps"]) - int(told[2]["env_steps"]) > 64
    assert newest(job)["Replay"]["experience"]["history"]["frame"].shape[1] == 4


def test_killed_and_gone_on_with(raydeck, tmp_path):
    arguments = ("train", "dqn", "--smoke", "--name", "killed", "--trainer.max_epochs", "60", "--cpus-per-worker", "1",
                 "--baselines", "false")  # fmt: skip
    process = raydeck.start(*arguments)
    table = tmp_path / "runs" / "killed" / "metrics.csv"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (table.exists() and len(table.read_text().splitlines()) > 4):
        time.sleep(0.05)
    process.kill()
    process.communicate()
    before = table.read_text().splitlines()
    assert len(before) > 4
    _, said = raydeck(*[a if a != "60" else "62" for a in arguments], timeout=400)
    assert "going on from epoch" in said
    after = table.read_text().splitlines()
    assert after[: len(before)] == before and len(after) == 63
    steps = [int(row["env_steps"]) for row in csv.DictReader(after)]
    assert all(0 < later - earlier <= 128 for earlier, later in pairwise(steps))


def test_several_seeds_and_their_learning_curves(raydeck, tmp_path):
    arguments = ("train", "dqn", "--smoke", "--seeds", "2", "--seed", "3", "--cpus-per-worker", "1")
    told = raydeck.json(*arguments)
    test = told["test"]["return"]
    assert told["seeds"] == [3, 4] and test["mean"] == pytest.approx(sum(test["values"]) / 2)
    assert {"random", "linear, by cross-entropy search"} == told["baselines"].keys()
    folder = Path(told["folder"])
    with Image.open(folder / "curves.png") as picture:
        assert picture.size == (960, 600)
    out, err = raydeck(*arguments)  # finished: the same again, at once
    assert "seed 3" in out and "±" in out and "epoch" not in err
    single = raydeck.json("train", "dqn", "--smoke", "--seed", "4", "--cpus-per-worker", "1")
    assert single["test"]["return"] == test["values"][1]
    _, err = raydeck("train", "dqn", "--smoke", "--seeds", "0", code=2)
    assert "--seeds: expected at least 1, got 0" in err


def test_a_learning_curve_s_mean_is_that_of_its_seeds(tmp_path):
    (one, along), (other, _) = (curve(table, "val/return") for table in (
        "epoch,env_steps,val/return\n1,90,1.0\n2,200,3.0\n3,310,\n4,400,7.0\n",
        "epoch,env_steps,val/return\n1,110,2.0\n2,200,5.0\n4,420,5.0\n",
    ))  # fmt: skip
    assert along == "env_steps" and one == ([90, 200, 400], [1, 3, 7])
    assert curve("epoch,val/loss\n1,2.5\n", "val/loss") == (([1], [2.5]), "epoch")
    draw([one, other], along, "val/return", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000
    results = [{"workload": "dqn", "metric": "return", "test": {"return": v}, "seconds": 2.0} for v in (1.0, 4.0)]
    told = summary(results, [0, 1])
    assert told["test"]["return"] == {"values": [1.0, 4.0], "mean": 2.5, "std": pytest.approx(4.5**0.5)}


def test_an_episode_as_an_animation(whole, tmp_path, capsys):
    directory = whole("dqn")[0].directory
    assert main(["predict", directory, "--num-episodes", "2", "--output", str(tmp_path / "a.gif")]) == 0
    out = capsys.readouterr().out
    assert "seed 2000000" in out and "seed 2000001" in out
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames > 3
    assert main(["predict", directory, "--output", str(tmp_path / "a.png")]) == 2
    assert "the name ends in .csv, .json or .gif" in capsys.readouterr().err
    assert main(["evaluate", directory, "--data.env", "Pendulum-v1"]) == 2
    assert "has input_shape (3,), and the network was made for (4,)" in capsys.readouterr().err
    assert main(["evaluate", directory, "--data.env", "Acrobot-v1"]) == 2
    assert "has input_shape (6,), and the network was made for (4,)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ("CartPole-v9", "no environment 'CartPole-v9'; did you mean CartPole-v1"),
        ("nowhere:Thing-v0", "needs a package"),
        ("Pendulum-v1", "take actor_critic"),
    ],
)
def test_environments_that_will_not_do_leave_nothing_behind(env, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "dqn", "--smoke", "--data.env", env]) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert said in err[-1] and len(err) == 2
    assert not list(tmp_path.glob("runs/*/*"))


def test_an_environment_that_fails_in_the_middle_keeps_the_run(raydeck, tmp_path):
    arguments = ("train", "dqn", "--smoke", "--name", "odd", "--data.env", "odd_environments:FailsLater-v0",
                 "--baselines", "false", "--cpus-per-worker", "1", "--trainer.max_epochs", "3")  # fmt: skip
    _, err = raydeck(*arguments, code=2, PYTHONPATH=ODD, FAILS="yes")
    last = err.strip().splitlines()[-1]
    assert last.startswith("raydeck: data.env: odd_environments:FailsLater-v0: environment ")
    assert "raised RuntimeError: worn out" in last and "Traceback" not in err
    kept = json.loads((tmp_path / "runs" / "odd" / "result.json").read_text())
    assert kept["status"] == "failed" and "worn out" in kept["failure"]["message"]
    _, err = raydeck(*arguments, PYTHONPATH=ODD)
    assert "going on from epoch 1" in err
