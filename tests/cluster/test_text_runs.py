"""Runs on texts: predicted and explained in a terminal and redirected, evaluated on other data, stopped and resumed."""

import json
import os
import pty
import subprocess
import sys

import pytest
import torch
from stopped import StopsAfter

import workloads
from cluster.checkpoints import WEIGHTS
from cluster.cli import main
from cluster.folder import Folder
from cluster.placement import Placement
from cluster.runs import Run
from cluster.session import LocalSession, Stopped
from cluster.worker import Job, fit


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A run on a user's own texts, of which one word each decides, and its folder."""
    folder = tmp_path_factory.mktemp("planted")
    generator = torch.Generator().manual_seed(0)
    lines = ["text,label"]
    for i in range(400):
        words = [f"w{k}" for k in torch.randint(0, 30, (int(torch.randint(4, 12, (), generator=generator)),),
                                                generator=generator).tolist()]  # fmt: skip
        words.insert(len(words) // 2, ("dreadful", "splendid")[i % 2])
        lines.append(f"{' '.join(words)},{('bad', 'good')[i % 2]}")
    (folder / "texts.csv").write_text("\n".join(lines))
    (folder / "vectors.txt").write_text("dreadful " + "0.1 " * 7 + "1\n" + "w1 " + "0.1 " * 7 + "0\n")
    code = main(["train", "text_classifier", "--smoke", "--data.source", str(folder / "texts.csv"),
                 "--data.vectors", str(folder / "vectors.txt"), "--data.num_examples", "0", "--data.batch_size", "16",
                 "--model.lr", "0.03", "--trainer.max_epochs", "4", "--name", "run", "--storage", str(folder),
                 "--baselines", "false", "--cpus-per-worker", "1"])  # fmt: skip
    assert code == 0
    (folder / "vectors.txt").unlink()  # what was learned is in the checkpoint
    return folder


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("raydeck: ")]
    return line


def test_the_vectors_of_the_file_begin_and_are_trained(planted):
    run = Run(Folder(str(planted / "run")))
    result = json.loads(run.folder.read("result.json"))
    assert result["test"]["accuracy"] >= 0.95
    with run.checkpoints("min").best() as (_, path):
        saved = torch.load(path / WEIGHTS, weights_only=True)
    assert saved["hyper_parameters"]["vectors_dim"] == 8 and saved["state_dict"]["embedding.weight"].shape[1] == 8


def test_predict_explains_where_it_is_redirected(planted, capsys, tmp_path):
    (tmp_path / "asked.txt").write_text("w1 w2 splendid w3\n\nw4 dreadful, unheard-of w5\n")
    command = ["predict", str(planted / "run"), str(tmp_path / "asked.txt"), "--explain"]
    assert main([*command, "--output", str(tmp_path / "words.png")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "input\tlabel\tprobability"
    assert "line 1\tgood\t0." in out and "line 3\tbad\t0." in out
    assert "[+++splendid]" in out and "[+++dreadful]" in out and "unheard-of" in out.replace("[", "").replace("]", "")
    assert (tmp_path / "words.png").read_bytes()[:4] == b"\x89PNG"
    assert main([*command, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    most = [max(answer["words"], key=lambda word: word["influence"]) for answer in answers]
    assert [word["word"] for word in most] == ["splendid", "dreadful"]
    assert all(0 < word[gate] < 1 for word in most for gate in ("input_gate", "forget_gate", "output_gate"))
    assert main([*command[:-1], "--output", str(tmp_path / "a.csv")]) == 0
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == (
        "input,label,probability,probabilities.bad,probabilities.good"
    )
    assert "[" not in capsys.readouterr().out
    assert "make no picture" in refused(capsys, *command[:-1], "--output", tmp_path / "x.png")


def test_answers_come_in_the_order_of_the_inputs_whatever_their_lengths(planted, capsys):
    texts = ["w1 " * k + word for k, word in zip((40, 1, 9, 20, 3) * 8, ("splendid", "dreadful") * 20, strict=True)]
    assert main(["predict", str(planted / "run"), *texts, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [answer["input"] for answer in answers] == texts
    short = [a["label"] == ("good" if "splendid" in a["input"] else "bad") for a in answers if len(a["input"]) < 40]
    assert len(short) == 24 and all(short)


def test_marks_are_colours_in_a_terminal_and_a_text_does_not_steer_it():
    pieces = [("fine", 1.0), (" \x1b[2J", 0.0), ("dull", -0.9), ("so", 0.05)]
    ours, theirs = pty.openpty()
    code = f"from cluster.console import marked; marked('good 0.9 \\x1b[H', {pieces!r})"
    environ = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], stdout=theirs, env=environ, check=True)
    os.close(theirs)
    shown = os.read(ours, 4096)
    os.close(ours)
    text = shown.decode()
    assert "48;2;100;230;100mfine" in text and "48;2;240;115;115mdull" in text and "[2J" in text
    assert "\x1b[2J" not in text and "\x1b[H" not in text and "good 0.9" in text and "[+" not in text


def test_evaluate_on_other_data(planted, capsys, tmp_path):
    run = str(planted / "run")
    (tmp_path / "other.csv").write_text("text,label\nw1 splendid zebra,good\ndreadful,bad\nwhat a dreadful w2,bad\n")
    assert main(["evaluate", run, "--data.source", str(tmp_path / "other.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["examples"] == 3 and found["test"]["accuracy"] == 1
    (tmp_path / "other.csv").write_text("text,label\nsplendid,good\ndreadful,meh\n")
    said = refused(capsys, "evaluate", run, "--data.source", tmp_path / "other.csv")
    assert "other.csv, row 2: target 'meh' is none of the 2 classes of training: bad, good" in said
    said = refused(capsys, "evaluate", run, "--data.source", "short")
    assert "short, row 1: target 'positive' is none of the 2 classes" in said


@pytest.mark.parametrize(
    ("asked", "says"),
    [("", "an input is empty"), ("nothing.csv", "no file nothing.csv"), ("latin.txt", "latin.txt, line 1: not UTF-8")],
)
def test_what_cannot_be_read_is_said_in_one_line(planted, capsys, tmp_path, monkeypatch, asked, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    assert says in refused(capsys, "predict", planted / "run", asked)


def test_a_run_stopped_in_mid_epoch_and_resumed_is_the_uninterrupted_one(tmp_path):
    workload = workloads.load("text_classifier")
    config = workload.config(workload.smoke, {"data.source": "short", "data.batch_size": 8})
    ends = {}
    for name in ("whole", "cut"):
        job = Job(workload="text_classifier", config=config, directory=str(tmp_path / name), baselines=False,
                  placement=Placement(cpus_per_worker=1))  # fmt: skip
        if name == "cut":
            for batches_till_stop in (7, 20):  # of 20 an epoch: in the first epoch, and in the second
                with pytest.raises(Stopped):
                    fit(job, StopsAfter(batches_till_stop))
        result = fit(job, LocalSession())
        with Run(Folder(job.directory)).checkpoints("min").latest() as (_, path):
            ends[name] = torch.load(path / WEIGHTS, weights_only=True)["state_dict"], result["test"], result["steps"]
    assert ends["cut"][1:] == ends["whole"][1:] and ends["whole"][2] == 40
    assert all(torch.equal(ends["cut"][0][key], value) for key, value in ends["whole"][0].items())
