"""Runs of several players and phases: resumed anywhere, in step on all ranks, watched as they go, and asked after."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from stopped import RANKS, StopsAfter, assert_equal_checkpoints, newest, rows
from two_ranks import run as run_two_ranks

import workloads
from cluster.cli import main
from cluster.placement import Placement
from cluster.session import LocalSession, Stopped
from cluster.worker import Job, fit

SMALL = {
    "gan": {
        "data.source": "digits", "data.num_examples": 400, "data.batch_size": 32, "model.discriminator_steps": 2,
        "model.gradient_penalty": 1.0, "trainer.sample_every_n_steps": 5, "trainer.log_gradient_norms": True,
    },
    "stacked_autoencoder": {
        "data.source": "digits", "data.num_examples": 600, "data.batch_size": 32, "data.unlabelled_epochs": 3,
        "trainer.max_epochs": 5, "trainer.sample_every_n_steps": 20,
    },
    "text_gan": {"data.batch_size": 32, "trainer.max_epochs": 4, "model.likelihood_weight": 0.1},
}  # fmt: skip
"""What each of them is trained with here, beside its smoke settings."""

STOPS = {"gan": (5, 9), "stacked_autoencoder": (7, 20, 30), "text_gan": (4, 14, 10)}
"""Batches after which it is stopped, one after the other: in the middle of every phase."""


def size_of(path):
    with Image.open(path) as picture:
        return picture.size


names = pytest.mark.parametrize("name", SMALL)


def job_of(name, folder, *layers):
    workload = workloads.load(name)
    cache = {"data.cache_dir": str(folder.parent / "cache")}
    config = workload.config(workload.smoke, SMALL[name], cache, *layers)
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
def test_a_run_stopped_in_the_middle_of_its_phases_and_resumed_is_the_uninterrupted_one(name, whole, tmp_path):
    expected, result = whole(name)
    job = job_of(name, tmp_path / name)
    for batches in STOPS[name]:
        with pytest.raises(Stopped):
            fit(job, StopsAfter(batches))
    again = fit(job, LocalSession())
    assert again["test"] == result["test"] and again["steps"] == result["steps"] > sum(STOPS[name])
    assert rows(job) == rows(expected)
    assert_equal_checkpoints(job, expected)
    assert len(newest(job)["lr_schedulers"]) >= 2


@names
def test_a_batch_is_one_step_whoever_moves_in_it(name, whole):
    job, result = whole(name)
    steps = [int(row["step"]) for row in rows(job)]
    assert steps == [steps[0] * k for k in range(1, len(steps) + 1)] and result["steps"] == steps[-1]


def test_each_phase_tells_what_it_is_about_and_nothing_of_the_others(whole):
    told = rows(whole("stacked_autoencoder")[0])
    phases = ["layer_1", "layer_1", "layer_2", None, None]
    for row, phase in zip(told, phases, strict=True):
        for layer in ("layer_1", "layer_2"):
            assert bool(row[f"val/denoising_{layer}"]) == (layer == phase)
        assert bool(row["val/accuracy"]) == (phase is None)
    told = rows(whole("text_gan")[0])
    assert [bool(row["train/reward"]) for row in told] == [False, False, True, True]
    assert [bool(row["train/made_accuracy"]) for row in told] == [False, True, True, True]


def test_gradient_norms_are_each_player_s_own(whole):
    row = rows(whole("gan")[0])[-1]
    assert float(row["train/grad_norm/generator"]) > 0 and float(row["train/grad_norm/discriminator"]) > 0
    assert "train/grad_norm/averaged" not in row


def test_what_is_made_is_drawn_every_so_many_steps(whole):
    for name, every in (("gan", 5), ("stacked_autoencoder", 20)):
        job, result = whole(name)
        found = sorted(path.name for path in (Path(job.directory) / "samples").iterdir())
        assert found == [f"step-{step:08}.png" for step in range(every, result["steps"] + 1, every)]
        assert size_of(Path(job.directory) / "samples" / found[0])[0] > 500


def test_two_workers_keep_all_networks_in_step(tmp_path):
    configs = {name: job_of(name, tmp_path / "cache" / name).config for name in SMALL}
    # Stopped at step 30, after the generator's move of an epoch of 35: the rest of it knows no loss of the generator.
    seldom = {"data.batch_size": 8, "model.discriminator_steps": 25}
    configs["gan-stopped"] = job_of("gan", tmp_path / "cache" / "gan", seldom).config
    run_two_ranks(RANKS, str(tmp_path), json.dumps(configs), "3")
    for name in configs:
        ranks = [torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in range(2)]
        assert len(ranks[0]) > 5
        # Statistics of a batch are each rank's own, and so are their averages: rank 0's are those that are kept.
        compared = [key for key in ranks[0] if "running_" not in key]
        assert all(torch.equal(ranks[0][key], ranks[1][key]) for key in compared), name


def test_pictures_are_asked_of_runs(whole, tmp_path, capsys):
    gan = whole("gan")[0].directory
    assert main(["predict", gan, "--num-samples", "6", "--output", str(tmp_path / "grid.png")]) == 0
    assert main(["predict", gan, "--show", "interpolations", "--output", str(tmp_path / "ways.png")]) == 0
    sizes = [size_of(tmp_path / name) for name in ("grid.png", "ways.png")]
    assert sizes[0][0] < sizes[1][0] and sizes[0][1] < sizes[1][1]
    capsys.readouterr()
    assert main(["predict", gan, "3"]) == 2
    assert "trained without --model.conditional" in capsys.readouterr().err
    assert main(["predict", gan, "three"]) == 2
    assert "three: no such class; there are: 0, 1, 2" in capsys.readouterr().err
    assert main(["evaluate", gan, "--data.source", "mnist-5k"]) == 2
    assert "compared with the pictures that it was trained on" in capsys.readouterr().err


def test_lines_are_asked_of_a_run(whole, capsys):
    run = whole("text_gan")[0].directory
    assert main(["predict", run, "--num-lines", "3", "--seed", "5", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert len(first) == 3 and all(len(answer["text"].split()) == 6 for answer in first)
    assert main(["predict", run, "--num-lines", "3", "--seed", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert main(["predict", run, "hello"]) == 2
    assert "leave inputs out" in capsys.readouterr().err


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    """A variational autoencoder of digits, trained without the eights."""
    folder = tmp_path_factory.mktemp("codes")
    code = main(["train", "autoencoder", "--data.source", "digits", "--data.leave_out", "8", "--model.variational",
                 "true", "--model.hidden_dims", "[64]", "--model.code_dim", "8", "--model.kl_weight", "0.1",
                 "--model.lr", "0.01", "--trainer.max_epochs", "60", "--storage", str(folder), "--name", "run",
                 "--cpus-per-worker", "1"])  # fmt: skip
    assert code == 0
    return folder / "run"


def test_an_autoencoder_stands_beside_principal_components_and_finds_what_it_never_saw(codes):
    result = json.loads((codes / "result.json").read_text())
    assert result["metric"] == "mse" and set(result["baselines"]) == {"mean image", "PCA, 8 components"}
    assert result["test"]["mse"] < result["baselines"]["mean image"] / 2
    assert result["test"]["probe_accuracy"] > 0.7 and result["test"]["kl"] > 1
    assert result["test"]["anomaly_auroc"] > 0.6


@pytest.mark.parametrize("show", ["reconstructions", "map", "neighbours", "interpolations", "samples"])
def test_codes_are_shown_in_five_ways(codes, tmp_path, show):
    picture = tmp_path / f"{show}.png"
    assert main(["predict", str(codes), "--show", show, "--num-images", "16", "--output", str(picture)]) == 0
    assert min(size_of(picture)) > 100


def test_what_cannot_be_shown_is_said_in_one_line(codes, tmp_path, capsys):
    Image.new("L", (8, 8)).save(tmp_path / "one.png")
    for show, least in (("map", "expected at least 3 images"), ("neighbours", "expected at least 2 images")):
        code = main(["predict", str(codes), str(tmp_path / "one.png"), "--show", show, "--output", f"{tmp_path}/x.png"])
        assert code == 2 and least in capsys.readouterr().err
