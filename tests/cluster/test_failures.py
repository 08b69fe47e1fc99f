"""Failures told apart, each caused for real: the line, what is written down, and what another attempt finds."""

import csv
import json
import multiprocessing
import os
import pickle
import subprocess
import time
from datetime import timedelta

import pytest
import torch

from cluster.checkpoints import WEIGHTS
from cluster.cli import main
from cluster.failures import Failure, RunFailed, classify
from cluster.folder import Folder
from cluster.runs import Run
from cluster.watchdog import Watchdog, stacks_of

RUN = ("train", "mlp", "--name", "r", "--baselines", "false", "--cpus-per-worker", "1")
# torchmetrics' word on what we refuse ourselves, and numpy's on the numbers that a test makes huge.
not_finite = (
    pytest.mark.filterwarnings("ignore:Encountered `nan` values"),
    pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning"),
)


@pytest.fixture
def train(tmp_path):
    def run(*flags, storage=tmp_path):
        return main([*RUN, "--storage", str(storage), *map(str, flags)])

    return run


def result(tmp_path):
    return json.loads((tmp_path / "r" / "result.json").read_text())


def epochs(tmp_path):
    return list(csv.DictReader((tmp_path / "r" / "metrics.csv").read_text().splitlines()))


def last_line(capsys):
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


# Not finite.


@pytest.mark.usefixtures("no_cluster")
@not_finite[0]
def test_a_loss_that_is_not_finite_goes_back_once_with_half_the_learning_rate(train, tmp_path, capsys):
    # Plain SGD on a linear model: 0.3 is beyond the largest rate at which it converges, 0.15 is not.
    flags = ("--data.source", "diabetes", "--model.hidden_dims", "[]", "--model.optimizer", "sgd", "--model.lr", "0.3",
             "--model.schedule", "constant", "--model.warmup", "0", "--data.batch_size", "32",
             "--trainer.max_epochs")  # fmt: skip
    assert train(*flags, 7) == 0
    err = capsys.readouterr().err
    told = "warning: the training loss is not finite (NaN or infinite) in epoch 5; lower --model.lr or set "
    assert err.count(told) == 1 and "going back to the last checkpoint, once, with half the learning rate" in err
    assert "going on from epoch 4, step 40" in err
    rows = epochs(tmp_path)
    assert [row["epoch"] for row in rows] == list("1234567")
    assert [float(row["train/lr"]) for row in rows] == [0.3] * 4 + [0.15] * 3
    done = result(tmp_path)
    assert (done["status"], done["failure"], done["attempts"], done["steps"]) == ("finished", None, 2, 70)
    assert 1 <= done["steps_redone"] <= 10
    # The rate stays halved when the run is taken up again.
    assert train(*flags, 8) == 0
    assert float(epochs(tmp_path)[-1]["train/lr"]) == 0.15


def table(path, scale):
    """Two columns and a label. With a scale of 2e307 every number is finite, and their sum is not."""
    rows = [f"{(i % 7 + 1) * scale},{i % 5},{'x' if (i % 7) + (i % 5) > 4 else 'y'}" for i in range(200)]
    path.write_text("\n".join(["a,b,label", *rows]) + "\n")


@pytest.mark.usefixtures("no_cluster")
@not_finite[0]
@not_finite[1]
def test_nan_from_the_data_is_never_saved_and_stops_the_run_after_one_rollback(train, tmp_path, capsys):
    data = tmp_path / "t.csv"
    flags = ("--data.source", data, "--data.target", "label", "--data.batch_size", "16", "--trainer.max_epochs")
    table(data, 1)
    assert train(*flags, 2) == 0
    good = result(tmp_path)
    table(data, 2e307)  # the file is replaced before the run goes on
    capsys.readouterr()
    assert train(*flags, 5) == 1
    line = last_line(capsys)
    assert line == (
        "raydeck: failed: the training loss is not finite (NaN or infinite) in epoch 3, again after going back with "
        "half the learning rate; lower --model.lr or set --trainer.gradient_clip_val, and look at the data"
    )
    failed = result(tmp_path)
    assert failed["failure"] == {"kind": "nan_loss", "message": line.partition("failed: ")[2], "exit_code": 1}
    assert (failed["status"], failed["attempts"]) == ("failed", 3)
    assert failed["steps_redone"] > 0 and failed["seconds_lost"] > 0 and 0 < failed["goodput"] < 1
    assert train(*flags, 5) == 1  # not rolled back once more
    assert "going back to" not in capsys.readouterr().err

    store = Run(Folder(str(tmp_path / "r"))).checkpoints("min")
    assert max(c.step for c in store.committed()) == good["steps"]
    with store.best() as (best, path):
        assert best.score == good["monitor"]["best"]
        state = torch.load(path / WEIGHTS, weights_only=True)["state_dict"]
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    table(data, 1)
    assert train(*flags, 5) == 0
    assert [row["epoch"] for row in epochs(tmp_path)] == list("12345")
    assert result(tmp_path)["status"] == "finished"


@pytest.mark.usefixtures("no_cluster")
@not_finite[0]
@not_finite[1]
def test_nan_is_not_saved_in_the_middle_of_an_epoch(train, tmp_path, capsys):
    table(tmp_path / "t.csv", 2e307)
    flags = ("--data.source", tmp_path / "t.csv", "--data.target", "label", "--data.batch_size", "1")
    assert train(*flags, "--checkpoint.every_minutes", "0.00001") == 1
    assert "in epoch 1" in last_line(capsys)
    assert not list(tmp_path.glob("r/checkpoints/step-*"))


# Memory and disk.


@pytest.mark.usefixtures("no_cluster")
def test_more_memory_than_there_is(train, tmp_path, capsys):
    assert train("--model.hidden_dims", "[3000000,3000000]") == 1
    line = last_line(capsys)
    assert line == (
        "raydeck: failed: out of memory (tried to allocate 36000000000000 bytes); lower data.batch_size or the size of "
        "the model"
    )
    failed = result(tmp_path)
    assert (failed["failure"]["kind"], failed["attempts"], failed["goodput"]) == ("out_of_memory", 1, 0)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MiB in memory, and a way to make it larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def enlarge(disk):
    subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)


@pytest.mark.usefixtures("no_cluster")
def test_a_full_disk_ends_the_run_and_room_lets_it_go_on(train, small_disk, capsys):
    # 1.2 MB a checkpoint, of which the last two and the best are kept.
    flags = ("--data.source", "wine", "--model.hidden_dims", "[300,300]", "--trainer.max_epochs", "8",
             "--model.schedule", "constant", "--model.lr", "1e-5")  # fmt: skip
    assert train(*flags, storage=small_disk) == 1
    line = last_line(capsys)
    assert line.startswith(f"raydeck: failed: disk full at {small_disk / 'r' / 'checkpoints'}")
    assert line.endswith("free some space or name another --storage; the same command goes on from the last checkpoint")
    failed = result(small_disk)
    assert (failed["status"], failed["attempts"]) == ("failed", 1)
    assert failed["failure"] == {"kind": "disk_full", "message": line.partition("failed: ")[2], "exit_code": 1}
    with Run(Folder(str(small_disk / "r"))).checkpoints("min").latest() as (checkpoint, _):
        assert 1 <= checkpoint.epoch < 8
    enlarge(small_disk)
    assert train(*flags, storage=small_disk) == 0
    assert f"going on from epoch {checkpoint.epoch}," in capsys.readouterr().err
    assert [row["epoch"] for row in epochs(small_disk)] == list("12345678")
    done = result(small_disk)
    assert (done["status"], done["failure"], done["attempts"]) == ("finished", None, 2)
    assert done["seconds_lost"] > 0


def test_a_result_is_written_on_a_disk_without_a_byte_left(small_disk):
    run = Run(Folder(str(small_disk / "r")))
    run.start("mlp", {"seed": 0}, "workload: mlp\nseed: 0\n")
    run.write_result(status="running")
    with pytest.raises(OSError, match="No space"), (small_disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert os.statvfs(small_disk).f_bavail == 0
    run.write_result(status="failed")
    assert run.result()["status"] == "failed"


# Bad data and bad configuration.


@pytest.mark.usefixtures("no_cluster")
def test_bad_data_and_bad_configuration_leave_nothing_of_a_new_run(train, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("a,b,label\n1,2,x\n3,inf,y\n" + "5,6,x\n7,8,y\n" * 20)
    assert train("--data.source", tmp_path / "t.csv", "--data.target", "label") == 2
    assert "row 2" in last_line(capsys)
    assert train("--model.dropout", "1.5") == 2
    assert "model.dropout" in last_line(capsys)
    assert not (tmp_path / "r").exists()


@pytest.mark.usefixtures("no_cluster")
def test_bad_data_of_a_run_that_has_begun_is_written_down(train, tmp_path, capsys):
    flags = ("--data.source", tmp_path / "t.csv", "--data.target", "label", "--trainer.max_epochs")
    table(tmp_path / "t.csv", 1)
    assert train(*flags, 1) == 0
    with (tmp_path / "t.csv").open("a") as file:
        file.write("1,inf,x\n")
    capsys.readouterr()
    assert train(*flags, 2) == 2
    failed = result(tmp_path)
    assert failed["status"] == "failed"
    assert failed["failure"] == {"kind": "bad_data", "message": last_line(capsys)[9:], "exit_code": 2}
    assert "row 201" in failed["failure"]["message"]


# What errors say.


def rank(number, port, kind, told):
    import torch.distributed as dist

    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=number == 0)
    dist.init_process_group("gloo", store=store, rank=number, world_size=2, timeout=timedelta(seconds=2))
    dist.barrier()
    if number == 1:
        os._exit(1) if kind == "lost_worker" else time.sleep(60)
    try:
        for _ in range(2):
            dist.all_reduce(torch.zeros(4))
    except RuntimeError as error:
        told.put(error.args)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lost_worker", "hung"])
def test_what_gloo_says_of_a_rank_that_died_or_hangs(kind):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True)  # finds a free port
        port = store.port
        del store
        context = multiprocessing.get_context("spawn")
        told = context.Queue()
        ranks = [context.Process(target=rank, args=(number, port, kind, told)) for number in range(2)]
        for process in ranks:
            process.start()
    try:
        error = RuntimeError(*told.get(timeout=60))
    finally:
        for process in ranks:
            process.kill()
            process.join()
    found = classify(error)
    assert (found.kind, found.retried) == (kind, True), error


def raised(call):
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def write_to_full():
    with open("/dev/full", "wb", buffering=0) as file:
        file.write(b"1")


def wrapped():
    try:
        bytearray(1 << 62)
    except MemoryError as error:
        raise RuntimeError("while loading") from error


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (write_to_full, "disk_full", "disk full: free some space"),
        (lambda: bytearray(1 << 62), "out_of_memory", "out of memory; lower data.batch_size"),
        (wrapped, "out_of_memory", "out of memory; lower"),
        (lambda: torch.empty(1 << 60), "out_of_memory", "out of memory (tried to allocate "),
        (lambda: int("x"), "bad_config", "invalid literal"),
        (lambda: {}["key"], "error", "KeyError: 'key'"),
    ],
)
def test_errors_are_told_apart(call, kind, message):
    found = classify(raised(call))
    assert (found.kind, found.retried) == (kind, False)
    assert found.message.startswith(message), found.message


def test_a_gpu_s_memory():
    found = classify(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of 1"))
    assert found.kind == "out_of_memory" and "(tried to allocate 2.00 gib)" in found.message.lower()


def test_a_failure_travels_between_processes():
    error = pickle.loads(pickle.dumps(RunFailed(Failure("hung", "a worker hung"))))
    assert classify(error) == Failure("hung", "a worker hung")
    assert Failure.read(json.loads(json.dumps(error.failure.told()))) == error.failure


# Stacks.


def stuck_here(event):
    event.wait()


def test_stacks_are_taken_once_nothing_moves(tmp_path):
    import threading

    event, folder = threading.Event(), Folder(str(tmp_path / "stacks"))
    thread = threading.Thread(target=stuck_here, args=(event,))
    thread.start()
    watchdog = Watchdog(folder, 0, seconds=0.5)
    with watchdog.watching():
        watchdog.begin()
        watchdog.rest()
        time.sleep(1.2)
        assert not folder.exists()  # nothing was to be expected
        watchdog.beat()
        deadline = time.monotonic() + 10
        while not folder.exists("rank-0.txt") and time.monotonic() < deadline:
            time.sleep(0.05)
    event.set()
    thread.join()
    text = folder.read("rank-0.txt").decode()
    assert text.startswith(f"process {os.getpid()}\n") and "in stuck_here" in text


def test_a_process_that_cannot_run_is_read_from_outside(tmp_path):
    import signal
    import sys

    (tmp_path / "frozen.py").write_text("import time\ndef frozen_here():\n    time.sleep(60)\nfrozen_here()\n")
    with subprocess.Popen([sys.executable, tmp_path / "frozen.py"]) as process:
        try:
            time.sleep(1)
            os.kill(process.pid, signal.SIGSTOP)
            text = stacks_of(process.pid)
        finally:
            process.kill()
    assert text.startswith(f"process {process.pid} did not run, and")
    assert "frozen_here" in text or "could not be read" in text or "ermission" in text
