"""``raydeck diagnose``: what it measures, what it trains once only, and what it refuses."""

import csv
import json
import time

import pytest

from cluster.cli import main
from cluster.diagnose import parse
from cluster.flags import Flags
from cluster.folder import Folder
from cluster.runs import Run
from workloads import load

NAME = "diagnose"
SMALL = ("--smoke", "--examples", "4", "--cpus-per-worker", "1", "--accelerator", "cpu")


def diagnosed(capsys, storage, *flags):
    capsys.readouterr()
    assert (
        main(["diagnose", "long_dependency", "--storage", str(storage), "--name", NAME, *SMALL, *flags, "--json"]) == 0
    )
    out, err = capsys.readouterr()
    return json.loads(out), err


def refused(capsys, *arguments):
    """Run a command that a user got wrong; returns its one line."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("raydeck: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("storage")


def test_every_cell_is_measured_before_and_after_training_and_trained_once(capsys, storage):
    told, err = diagnosed(capsys, storage, "--distances", "12,14")
    curves = {(c["cell"], c["weights"], c["state"]): c for c in told["gradients"]}
    cells = ("rnn-sigmoid", "rnn-relu", "rnn-tanh", "gru", "lstm")
    pairs = [(cell, weights) for cell in cells for weights in ("initial", "trained")]
    wanted = [(*pair, "hidden") for pair in pairs] + [("lstm", weights, "memory") for weights in ("initial", "trained")]
    assert sorted(curves) == sorted(wanted)
    assert all(len(c["norms"]) == 13 and c["counts"] == [4] * 13 for c in curves.values())
    assert curves["gru", "initial", "hidden"]["norms"] != curves["gru", "trained", "hidden"]["norms"]
    scores = {(row["cell"], row["distance"]): row["accuracy"] for row in told["distances"]}
    assert len(scores) == 10 and all(0 <= value <= 1 for value in scores.values())
    folder = storage / NAME
    rows, of_distances = (
        list(csv.DictReader((folder / name).read_text().splitlines())) for name in ("gradients.csv", "distances.csv")
    )
    assert len(rows) == 12 * 13
    for row in rows:
        curve = curves[row["cell"], row["weights"], row["state"]]
        assert float(row["norm"]) == curve["norms"][int(row["distance"])]
    assert len(of_distances) == 10
    for name in ("gradients.png", "distances.png"):
        assert (folder / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    runs = sorted(path.name for path in (folder / "runs").iterdir())
    assert runs == sorted([*cells, *(f"{cell}-distance-14" for cell in cells)])  # 12 is the smoke setting's own
    assert err.count("epoch 2 ") == 10

    began = time.time()
    again, err = diagnosed(capsys, storage, "--distances", "12,14")
    assert again == told and "epoch" not in err
    assert all(path.stat().st_mtime < began for path in folder.glob("runs/*/checkpoints/*/*"))

    more, err = diagnosed(capsys, storage, "--cells", "gru", "--max-epochs", "3")
    assert err.count("epoch 3 ") == 1 and "going on from epoch 2" in err
    assert [c["cell"] for c in more["gradients"]] == ["gru", "gru"]


def test_a_run_is_measured_at_its_best_checkpoint_and_at_what_it_began_with(capsys, storage):
    told, _ = diagnosed(capsys, storage, "--cells", "lstm")
    run = storage / NAME / "runs" / "lstm"
    assert main(["diagnose", str(run), "--examples", "4", "--json", "--accelerator", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["gradients"] == told["gradients"]
    assert (run / "gradients.png").exists() and (run / "gradients.csv").exists()
    assert Run(Folder(str(run))).result()["status"] == "finished"


def test_nothing_is_trained_with_no_epochs(capsys, tmp_path):
    told, err = diagnosed(capsys, tmp_path, "--max-epochs", "0", "--cells", "rnn-tanh,gru")
    assert [(c["cell"], c["weights"]) for c in told["gradients"]] == [("rnn-tanh", "initial"), ("gru", "initial")]
    assert "epoch" not in err and not (tmp_path / NAME / "runs").exists()


@pytest.mark.filterwarnings("ignore:Encountered `nan` values")  # torchmetrics says what the test is about
def test_a_cell_that_diverges_is_told_of_and_the_others_are_measured(capsys, tmp_path):
    told, err = diagnosed(capsys, tmp_path, "--cells", "rnn-relu,gru", "--model.lr", "1e30", "--distances", "12",
                          "--trainer.gradient_clip_val", "0")  # fmt: skip
    assert "runs/rnn-relu: the training loss is not finite (NaN or infinite) in epoch 1" in err
    assert [(c["cell"], c["weights"]) for c in told["gradients"]][:2] == [("rnn-relu", "initial"), ("gru", "initial")]
    assert {row["cell"]: row["status"] for row in told["distances"]}["rnn-relu"] == "failed"
    assert told["distances"][0]["accuracy"] is None


def test_the_table_says_the_norms_at_round_distances(capsys, tmp_path):
    command = ["diagnose", "long_dependency", "--storage", str(tmp_path), *SMALL, "--max-epochs", "0"]
    assert main(command) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["cell", "weights", "state", "0", "1", "10", "a step"]
    assert [line[0] for line in lines[1:7]] == ["rnn-sigmoid", "rnn-relu", "rnn-tanh", "gru", "lstm", "lstm"]
    assert float(lines[1][5]) < 1e-4 < float(lines[4][5])


def test_what_is_compared_reads_in_one_direction_and_ends_with_the_last_word_unless_told_otherwise():
    diagnosis, _ = parse(["text_classifier", "--smoke"])
    assert {config["model"]["pooling"] for config in diagnosis.cells.values()} == {"last"}
    assert not any(config["model"]["bidirectional"] for config in diagnosis.cells.values())
    assert Flags("train", load("text_classifier"), {}).parse([])[0]["model"]["pooling"] != "last"
    diagnosis, _ = parse(["text_classifier", "--model.pooling", "mean", "--model.bidirectional", "true"])
    config = diagnosis.cells["rnn-relu"]["model"]
    assert (config["pooling"], config["bidirectional"], config["activation"]) == ("mean", True, "relu")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cnn"], "diagnose compares recurrent cells, and cnn has no model.cell to choose one"),
        (["nothing"], "no workload 'nothing'"),
        (["runs/nothing"], "runs/nothing does not exist"),
        (["long_dependency", "--cells", "lstm,elman"], "--cells: no 'elman'; there are: rnn-sigmoid, rnn-relu"),
        (["long_dependency", "--distances", "10,far"], "--distances: expected whole numbers such as 10,25,50"),
        (["long_dependency", "--distances", "5"], "data.distance: expected at least 10, got 5"),
        (["long_dependency", "--max-epochs", "-1"], "--max-epochs: expected at least 0, got -1"),
        (["long_dependency", "--examples", "0"], "--examples: expected at least 1, got 0"),
        (["text_classifier", "--distances", "10"], "--distances: text_classifier has no data.distance"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, "diagnose", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_a_module_without_recurrence_is_refused(capsys, tmp_path):
    assert main(["train", "mlp", "--smoke", "--name", "mlp", "--storage", str(tmp_path), "--baselines", "false"]) == 0
    line = refused(capsys, "diagnose", tmp_path / "mlp")
    assert "is a run of mlp, whose module is not recurrent" in line
    assert not (tmp_path / "mlp" / "gradients.csv").exists()


def test_the_lstm_learns_a_distance_at_which_the_rnn_is_at_chance(capsys, tmp_path):
    command = ["diagnose", "long_dependency", "--storage", str(tmp_path), "--name", NAME, "--cpus-per-worker", "1",
               "--cells", "rnn-sigmoid,lstm", "--distances", "60", "--data.distance", "60", "--max-epochs", "3",
               "--json"]  # fmt: skip
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    scores = {row["cell"]: row["accuracy"] for row in told["distances"]}
    assert scores["lstm"] > 0.95 and scores["rnn-sigmoid"] < 0.35  # of four classes
    norms = {(c["cell"], c["weights"], c["state"]): c["norms"] for c in told["gradients"]}
    for weights in ("initial", "trained"):
        sigmoid, memory = norms["rnn-sigmoid", weights, "hidden"], norms["lstm", weights, "memory"]
        assert sigmoid[60] < 1e-10 * sigmoid[0] and memory[60] > 1e-3 * memory[0]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_lstm_and_gru_bridge_400_steps_and_no_rnn_does(raydeck):
    """The README's command."""
    distances = (10, 25, 50, 100, 200, 400)
    told = raydeck.json(
        "diagnose", "long_dependency", "--max-epochs", "10", "--distances", ",".join(map(str, distances)),
        "--cpus-per-worker", "1", timeout=2900,
    )  # fmt: skip
    scores = {(row["cell"], row["distance"]): row["accuracy"] for row in told["distances"]}
    assert min(scores[cell, distance] for cell in ("lstm", "gru") for distance in distances) > 0.95
    # Of four classes; what tanh reaches at a distance varies with the settings, from two classes' worth down to chance.
    assert max(scores[cell, distance] for cell in ("rnn-sigmoid", "rnn-relu") for distance in distances[2:]) < 0.35
    assert scores["rnn-tanh", 400] < 0.8
    norms = {(c["cell"], c["weights"], c["state"]): c["norms"] for c in told["gradients"]}
    for weights in ("initial", "trained"):
        sigmoid, memory = norms["rnn-sigmoid", weights, "hidden"], norms["lstm", weights, "memory"]
        assert sigmoid[100] < 1e-10 * sigmoid[0] and memory[100] > 1e-2 * memory[0]
