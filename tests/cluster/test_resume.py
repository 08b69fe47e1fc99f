"""Faults are injected for real: a killed process, a torn checkpoint, signals; the same command goes on."""

import json
import os
import re
import signal
import time

import pytest
import torch

# 398 steps an epoch with dropout: a wrong order of examples or a lost random state would show in the weights.
LONG = ("train", "mlp", "--data.source", "breast_cancer", "--data.batch_size", "1", "--model.dropout", "0.2",
        "--trainer.max_epochs", "3", "--cpus-per-worker", "1", "--storage", "runs", "--baselines", "false")  # fmt: skip
STEPS_AN_EPOCH = 398


def checkpoint_steps(run):
    return sorted(int(p.name[5:]) for p in (run / "checkpoints").glob("step-*") if (p / "manifest.json").exists())


def wait_for_mid_epoch(run, process, least=STEPS_AN_EPOCH):
    """Wait until a checkpoint from the middle of the second epoch, or later, is there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        steps = checkpoint_steps(run) if run.exists() else []
        if steps and steps[-1] > least and steps[-1] % STEPS_AN_EPOCH:
            return steps[-1]
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint in mid-epoch: {process.communicate()}")


def weights(run):
    newest = run / "checkpoints" / f"step-{checkpoint_steps(run)[-1]:09d}" / "model.ckpt"
    return torch.load(newest, weights_only=True)["state_dict"]


def metrics(run):
    """metrics.csv without the seconds."""
    lines = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    return [[cell for name, cell in zip(lines[0], line, strict=True) if name != "seconds"] for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(raydeck_in, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    raydeck_in(folder)(*LONG, "--name", "whole")
    return folder / "runs" / "whole"


def assert_same_as(uninterrupted, run):
    ours, theirs = weights(run), weights(uninterrupted)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert metrics(run) == metrics(uninterrupted)
    assert json.loads((run / "result.json").read_text())["status"] == "finished"


def test_kill_9_in_mid_epoch_and_the_same_command_again(raydeck, tmp_path, uninterrupted):
    run = tmp_path / "runs" / "killed"
    command = (*LONG, "--name", "killed", "--checkpoint.every_minutes", "0.002")
    process = raydeck.start(*command)
    wait_for_mid_epoch(run, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    saved = checkpoint_steps(run)[-1]
    assert json.loads((run / "result.json").read_text())["status"] == "running"

    _, err = raydeck(*command)
    went_on = re.search(r"going on from epoch \d, step (\d+)", err)
    assert went_on and int(went_on[1]) == saved and saved % STEPS_AN_EPOCH
    assert_same_as(uninterrupted, run)
    whole, done = (json.loads((folder / "result.json").read_text()) for folder in (uninterrupted, run))
    assert (whole["attempts"], whole["steps_redone"], done["attempts"]) == (1, 0, 2)
    assert 0 <= done["steps_redone"] < STEPS_AN_EPOCH
    assert whole["seconds_lost"] < 0.5 < done["seconds_lost"]  # to start Python again takes longer
    assert 0 < done["goodput"] < whole["goodput"] <= 1

    _, err = raydeck(*command)
    assert "is finished; nothing to do" in err


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_same_command_goes_on(raydeck, tmp_path, uninterrupted, signum, code):
    run = tmp_path / "runs" / "stopped"
    command = (*LONG, "--name", "stopped")
    process = raydeck.start(*command, "--checkpoint.every_minutes", "0.002")
    wait_for_mid_epoch(run, process)
    os.kill(process.pid, signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "the same command goes on" in err and "Traceback" not in err
    assert json.loads((run / "result.json").read_text())["status"] == "stopped"
    raydeck(*command)
    assert_same_as(uninterrupted, run)


def test_a_bit_flipped_in_the_newest_checkpoint_costs_only_the_way_from_the_one_before(
    raydeck, tmp_path, uninterrupted
):
    run = tmp_path / "runs" / "flipped"
    command = (*LONG, "--name", "flipped", "--checkpoint.every_minutes", "0.002")
    process = raydeck.start(*command)
    wait_for_mid_epoch(run, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before, newest = checkpoint_steps(run)[-2:]
    file = run / "checkpoints" / f"step-{newest:09d}" / "model.ckpt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    _, err = raydeck(*command)
    assert f"step-{newest:09d} is not used" in err and "SHA-256" in err
    assert f"step {before} (" in err
    assert_same_as(uninterrupted, run)


def test_a_running_name_is_refused(raydeck, tmp_path):
    command = (*LONG, "--name", "busy", "--trainer.max_epochs", "1000")
    process = raydeck.start(*command, "--checkpoint.every_minutes", "0.002")
    try:
        wait_for_mid_epoch(tmp_path / "runs" / "busy", process, least=0)
        _, err = raydeck(*command, code=2)
        assert f"running already (process {process.pid} " in err
    finally:
        process.kill()
        process.communicate()


def test_more_epochs_go_on_with_a_finished_run_and_other_changes_are_refused(raydeck, tmp_path):
    command = ("train", "mlp", "--smoke", "--name", "more", "--baselines", "false")
    first = raydeck.json(*command, "--trainer.max_epochs", "1")
    second = raydeck.json(*command, "--trainer.max_epochs", "3")
    assert (first["epochs"], second["epochs"]) == (1, 3)
    assert second["steps"] == 3 * first["steps"]
    _, err = raydeck(*command, "--trainer.max_epochs", "3", "--model.lr", "0.5", code=2)
    assert "model.lr" in err and "another --name" in err


def test_the_recorded_training_loss_does_not_depend_on_accumulation(raydeck, tmp_path):
    command = ("train", "mlp", "--baselines", "false", "--trainer.max_epochs", "1", "--model.lr", "1e-12",
               "--model.dropout", "0", "--data.batch_size", "7")  # fmt: skip
    raydeck(*command, "--name", "one")
    raydeck(*command, "--name", "five", "--trainer.accumulate_grad_batches", "5")
    one, five = (float(metrics(tmp_path / "runs" / name)[1][2]) for name in ("one", "five"))
    assert one == pytest.approx(five, rel=1e-6)
