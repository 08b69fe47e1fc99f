"""The command line as people use and misuse it. In this process where imports would cost more than the test."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cluster.cli import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for key in [key for key in os.environ if key.startswith("RAY_")]:
        monkeypatch.delenv(key)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Smoke runs of ``mlp`` on iris and ``cnn`` on digits."""
    storage = tmp_path_factory.mktemp("storage")
    for name in ("mlp", "cnn"):
        assert main(["train", name, "--smoke", "--name", name, "--storage", str(storage), "--baselines", "false"]) == 0
    return storage


def refused(capsys, *arguments):
    """Run a command that a user got wrong; returns its one line."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("raydeck: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    "arguments", [["list"], ["--help"], ["train", "--help"], ["tune", "-h"], ["list", "--json"], ["jobs"]]
)
def test_what_needs_neither_torch_nor_ray_does_not_import_them(arguments):
    code = (
        "import sys; from cluster.cli import main; main(sys.argv[1:]); "
        "heavy = {'torch', 'ray', 'pytorch_lightning', 'jsonargparse', 'numpy'} & set(sys.modules); "
        "print(); print(heavy or 'light')"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "light"


def test_list_names_every_workload(capsys):
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"mlp", "mlp_images", "cnn"} <= {row["name"] for row in rows}
    assert all(row["task"] and row["architecture"] and row["data"] for row in rows)
    assert main(["list"]) == 0
    assert "cnn\t" in capsys.readouterr().out


def test_show_prints_yaml_that_config_takes_back(folder, capsys):
    assert main(["show", "mlp", "--model.lr", "0.005", "--model.hidden_dims", "[7]"]) == 0
    text = capsys.readouterr().out
    Path("shown.yaml").write_text(text)
    assert yaml.safe_load(text)["model"]["lr"] == 0.005
    assert main(["show", "mlp", "--config", "shown.yaml"]) == 0
    assert capsys.readouterr().out == text
    assert main(["show", "mlp", "--config", "shown.yaml", "--model.lr", "0.1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["config"]["model"]["lr"], shown["config"]["model"]["hidden_dims"]) == (0.1, [7])


def test_flags_come_after_the_config_file_wherever_they_stand(folder, capsys):
    Path("c.yaml").write_text("model:\n  lr: 0.005\n  dropout: 0.4\n")
    assert main(["show", "mlp", "--model.lr", "0.1", "--config", "c.yaml", "--json"]) == 0
    model = json.loads(capsys.readouterr().out)["config"]["model"]
    assert (model["lr"], model["dropout"]) == (0.1, 0.4)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["mlp", "--input-shape", "[4]", "--model.hidden_dims", "[4]", "--model.hidden_bias", "false"], 21),
        (["mlp", "--input-shape", "[480000]", "--model.hidden_dims", "[1000]"], 480_000 * 1_000 + 1_000 + 1_001),
        (
            ["mlp", "--input-shape", "[480000]", "--model.hidden_dims", "[480000]", "--model.hidden_bias", "false"],
            480_000 * 480_000 + 480_000 + 1,
        ),
    ],
)
def test_the_deck_s_figures_come_out_without_allocating(capsys, arguments, count):
    assert main(["show", *arguments, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["num_parameters"] == count == sum(layer["num_parameters"] for layer in shown["layers"])
    assert shown["weights_bytes"] == 4 * count


def test_the_deck_s_stack_is_expressible(capsys):
    channels = [64, 64, 128, 256, 256, 512, 512, 512]
    assert main(["show", "cnn", "--input-shape", "[3,224,224]", "--output", "multiclass", "--num-outputs", "5",
                 "--model.convs_per_block", "1", "--model.channels", json.dumps(channels), "--json"]) == 0  # fmt: skip
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert [layer["output"][0] for layer in layers if layer["kind"] == "Conv2d"] == channels


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian", "mlp"], "did you mean 'train'"),
        (["train", "cn"], "no workload 'cn'; did you mean 'cnn'?"),
        (["train", "mlp", "--model.lrr", "1"], "no key 'model.lrr'; did you mean 'model.lr'?"),
        (["train", "mlp", "--model.hidden", "[3]"], "did you mean 'model.hidden_dims'?"),
        (["train", "mlp", "--hidden_dims", "[3]"], "did you mean --model.hidden_dims?"),
        (["train", "mlp", "--model.lr", "fast"], "--model.lr: expected a number, got 'fast'"),
        (["train", "mlp", "--model.activation", "swish"], "expected one of relu, sigmoid, tanh, gelu, got 'swish'"),
        (["train", "mlp", "--model.hidden_dims", "64,64"], "expected a list such as [64,64], got '64,64'"),
        (["train", "mlp", "--model.num_outputs", "3"], "is decided by the data (Tables)"),
        (["train", "mlp", "--workers", "0"], "--workers: expected a number of at least 1"),
        (["train", "mlp", "--workers", "999"], "999 workers are asked for and this machine has CPUs for"),
        (["train", "mlp", "--gpus-per-worker", "1"], "1 GPUs are asked for"),
        (["train", "mlp", "--cpus-per-worker", "999"], "999 CPUs are asked for"),
        (["train", "mlp", "--accelerator", "gpu"], "no GPU here"),
        (["train", "mlp", "--trainer.precision", "16-mixed"], "16-mixed needs a GPU"),
        (["train", "mlp", "--trainer.max_epochs", "0"], "trainer.max_epochs: expected at least 1"),
        (["train", "mlp", "--name", "../x"], "--name '../x'"),
        (["train", "mlp", "--storage", "/proc/none"], "cannot be written"),
        (["train", "mlp", "--config", "none.yaml"], "--config none.yaml: cannot be read"),
        (["train", "mlp", "--config", "cnn.yaml"], "is a config of 'cnn', not of 'mlp'"),
        (["train", "mlp", "--config", "torn.yaml"], "not YAML"),
        (["train", "mlp", "--data.source", "none.csv"], "none.csv"),
        (["train", "mlp", "--data.source", "empty"], "empty"),
        (["train", "mlp", "--data.source", "t.csv", "--data.target", "clas"], "class"),
        (["train", "mlp", "--data.source", "one.csv", "--data.target", "class"], "one class"),
        (["train", "mlp", "--data.batch_size", "0"], "data.batch_size: expected at least 1"),
        (["train", "cnn", "--data.source", "empty"], "empty"),
        (["evaluate", "none"], "none does not exist"),
        (["evaluate", "empty"], "not a run directory"),
        (["predict", "none", "x.png"], "none does not exist"),
        (["tune", "mlp", "--trials", "0"], "--trials: expected at least 1"),
        (["tune", "mlp", "--time-budget", "0"], "--time-budget: expected more than 0 minutes"),
        (["tune", "mlp", "--scheduler", "best"], "expected one of asha, hyperband, median, pbt, fifo"),
        (["tune", "cnn", "--search", "grid"], "the grid has"),
        (["tune", "mlp", "--workers", "0"], "--workers: expected a number of at least 1"),
        (["submit", "train", "mlp", "--model.lrr", "1"], "did you mean 'model.lr'?"),
        (["list", "everything"], "list takes --json only"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_line_and_leaves_nothing(folder, capsys, arguments, said):
    Path("cnn.yaml").write_text("workload: cnn\nseed: 1\n")
    Path("torn.yaml").write_text("model: [")
    Path("t.csv").write_text("a,class\n" + "1,x\n2,y\n" * 20)
    Path("one.csv").write_text("a,class\n" + "1,x\n2,x\n" * 20)
    Path("empty").mkdir()
    there = sorted(folder.iterdir())
    assert said in refused(capsys, *arguments)
    assert sorted(folder.iterdir()) == there


def test_predict_and_evaluate_a_table(folder, trained, capsys, sample_inputs):
    run = str(trained / "mlp")
    (table,) = sample_inputs("Tables", folder)
    assert main(["predict", run, table, "--output", "answers.csv"]) == 0
    printed = capsys.readouterr().out.splitlines()
    rows = list(csv.DictReader(Path("answers.csv").read_text().splitlines()))
    assert len(rows) == 3 and len(printed) == 4
    assert {row["label"] for row in rows} <= {"setosa", "versicolor", "virginica"}
    assert main(["predict", run, table, "--output", "answers.json"]) == 0
    assert [row["label"] for row in json.loads(Path("answers.json").read_text())] == [row["label"] for row in rows]

    capsys.readouterr()
    assert main(["evaluate", run, "--json"]) == 0
    test = json.loads(capsys.readouterr().out)
    assert test["test"] == json.loads((trained / "mlp" / "result.json").read_text())["test"]
    assert "make no picture" in refused(capsys, "predict", run, table, "--output", "x.png")
    assert "cannot be changed" in refused(capsys, "evaluate", run, "--model.lr", "1")
    assert "did you mean 'data.source'" in refused(capsys, "evaluate", run, "--data.sorce", "x.csv")
    assert "expected a whole number, got 'x'" in refused(capsys, "evaluate", run, "--data.batch_size", "x")


def test_predict_images_draws_a_contact_sheet(folder, trained, capsys, sample_inputs):
    from PIL import Image

    images = sample_inputs("Images", folder)
    assert main(["predict", str(trained / "cnn"), *images, "--output", "sheet.png", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [Path(answer["input"]).name for answer in answers] == ["digit-0.png", "digit-1.png", "digit-2.png"]
    for answer in answers:
        assert answer["label"] in set("0123456789") and 0.1 <= answer["probability"] <= 1
    with Image.open("sheet.png") as sheet:
        assert min(sheet.size) > 100
    Path("broken.png").write_bytes(Path(images[0]).read_bytes()[:40])
    assert "broken.png" in refused(capsys, "predict", trained / "cnn", "broken.png")
    assert "nowhere.png" in refused(capsys, "predict", trained / "cnn", "nowhere.png")
    assert "ends in .csv, .json or .png" in refused(capsys, "predict", trained / "cnn", images[0], "--output", "x.gif")


def test_evaluate_on_other_data_uses_all_of_it(folder, trained, capsys):
    from sklearn.datasets import load_iris

    frame = load_iris(as_frame=True).frame
    frame["target"] = [load_iris().target_names[k] for k in frame["target"]]
    frame.iloc[::3].to_csv("other.csv", index=False)
    arguments = ["--data.source", "other.csv", "--data.target", "target"]
    assert main(["evaluate", str(trained / "mlp"), *arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 50
    Path("odd.csv").write_text(Path("other.csv").read_text().replace("setosa", "tulip"))
    arguments[1] = "odd.csv"
    assert "tulip" in refused(capsys, "evaluate", trained / "mlp", *arguments)


def test_the_same_command_again_does_nothing(folder, capsys):
    command = ["train", "mlp", "--smoke"]
    assert main(command) == 0
    first = capsys.readouterr()
    assert "majority" in first.out and "next:" in first.out
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*") if path.is_file()}
    assert main(command) == 0
    again = capsys.readouterr()
    assert "is finished; nothing to do" in again.err and again.out == first.out
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*") if path.is_file()} == before


def test_a_missing_extra_is_named(folder):
    """In an interpreter that cannot find scikit-learn, as after a bare `pip install raydeck`."""
    code = "import sys; sys.modules['sklearn'] = None; from cluster.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, "train", "mlp"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'raydeck[data]'" in done.stderr.splitlines()[-1]
