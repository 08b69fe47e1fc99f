"""Runs and sweeps on s3://, against a real server of the protocol in a process of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("moto", reason="moto is not installed: pip install 'raydeck[dev]'")
pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'raydeck[s3]'")

from cluster.checkpoints import WEIGHTS, Checkpoints
from cluster.folder import Folder
from cluster.runs import Run

SECRET = "not-a-real-secret-9f3c"
KEY = "NOTAREALKEY7B21"
EPOCH = 398
LONG = ("train", "mlp", "--data.source", "breast_cancer", "--data.batch_size", "1", "--model.dropout", "0.2",
        "--trainer.max_epochs", "3", "--cpus-per-worker", "1", "--baselines", "false", "--name", "long")  # fmt: skip
RUNS = "s3://bucket/runs"
SWEEP = ("tune", "mlp", "--smoke", "--concurrent", "1", "--storage", "s3://bucket/sweeps", "--name")


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory):
    """A server with a bucket, and the environment that leads to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path_factory.mktemp("moto") / "log").open("w")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        try:
            wait_for(lambda: answers(port), 20, "no answer from moto")
            client().mkdir("bucket")
            yield
        finally:
            process.kill()
            process.wait()
            log.close()
            client().clear_instance_cache()


def client():
    import s3fs

    return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(true, seconds, otherwise):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def weights(uri):
    import torch

    with Checkpoints(Folder(f"{uri}/checkpoints"), "min").latest() as (_, path):
        return torch.load(path / WEIGHTS, weights_only=True)["state_dict"]


def everything():
    fs = client()
    return {path: fs.cat_file(path) for path in fs.find("bucket")}


@pytest.fixture(scope="module")
def killed(raydeck_in, tmp_path_factory):
    """A run on s3:// that was killed in mid-epoch and has gone on to its end; and what was said."""
    raydeck = raydeck_in(tmp_path_factory.mktemp("killed"))
    command = (*LONG, "--storage", RUNS, "--checkpoint.every_minutes", "0.002")
    process = raydeck.start(*command)
    store = Checkpoints(Folder(f"{RUNS}/long/checkpoints"), "min")

    def in_mid_epoch():
        assert process.poll() is None, process.communicate()
        return any(c.step > EPOCH and c.step % EPOCH for c in store.committed())

    wait_for(in_mid_epoch, 60, "no checkpoint in mid-epoch")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    out, err = raydeck(*command)
    return raydeck, out + err


def test_a_run_killed_in_mid_epoch_goes_on_and_ends_as_one_on_local_disk(killed, tmp_path):
    raydeck, said = killed
    assert int(re.search(r"going on from epoch \d, step (\d+)", said)[1]) % EPOCH
    raydeck(*LONG, "--storage", tmp_path)
    ours, theirs = weights(f"{RUNS}/long"), weights(str(tmp_path / "long"))
    assert all((ours[key] == theirs[key]).all() for key in theirs)
    mine, other = Run(Folder(f"{RUNS}/long")).result(), json.loads((tmp_path / "long" / "result.json").read_text())
    assert (mine["test"], mine["status"], mine["storage_errors"]) == (other["test"], "finished", 0)


def test_it_is_evaluated_and_answers_from_there(killed, sample_table):
    raydeck, _ = killed
    result = Run(Folder(f"{RUNS}/long")).result()
    assert raydeck.json("evaluate", f"{RUNS}/long")["test"] == pytest.approx(result["test"])
    assert len(raydeck.json("predict", f"{RUNS}/long", sample_table)) == 3


@pytest.fixture
def sample_table(tmp_path):
    from sklearn.datasets import load_breast_cancer

    load_breast_cancer(as_frame=True).data.iloc[[0, 75, 149]].to_csv(tmp_path / "cells.csv", index=False)
    return str(tmp_path / "cells.csv")


def test_credentials_are_neither_printed_nor_stored(killed):
    _, said = killed
    found = everything()
    assert {"bucket/runs/long/config.yaml", "bucket/runs/long/result.json"} <= set(found)
    assert not [path for path, content in found.items() if SECRET.encode() in content or KEY.encode() in content]
    assert SECRET not in said and KEY not in said


def test_a_missing_bucket_is_named_at_once_and_not_made():
    with pytest.raises(ValueError, match=r"s3://nowhere/runs cannot be written .*bucket does not exist"):
        Folder("s3://nowhere/runs").make()
    assert not client().exists("nowhere")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ValueError, match=r"pip install 'raydeck\[s3\]'"):
        Folder("s3://bucket/x")


def test_a_checkpoint_counts_only_with_its_manifest_and_another_runs_are_taken_over(tmp_path, capsys):
    source, target = (Checkpoints(Folder(f"s3://bucket/{tmp_path.name}/{name}"), "min") for name in ("a", "b"))
    for store, step in ((source, 1), (source, 2), (target, 7)):
        with store.staging() as staged:
            (staged / WEIGHTS).write_bytes(b"%d" % step)
            store.commit(staged, epoch=step, step=step, score=None)
    target.take_over(source, 2)
    assert [c.step for c in target.committed()] == [1, 2]
    target.folder.fs.rm_file(f"{target.folder.path}/step-000000002/manifest.json")
    with target.latest() as (checkpoint, path):
        assert (checkpoint.step, (path / WEIGHTS).read_bytes()) == (1, b"1")
    assert "no manifest" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_that_pauses_its_trials(raydeck):
    """pbt keeps checkpoints in Tune's own storage, and starts each trial again from there after each epoch."""
    sweep = (*SWEEP, "pbt", "--scheduler", "pbt", "--trials", "4", "--max-epochs", "3", "--perturb-every", "1")
    result = raydeck.json(*sweep)
    assert (result["num_trials"], result["num_failed"]) == (4, 0)
    files = client().find("bucket/sweeps/pbt")
    assert not [path for path in files if "/.tune/" in path or path.endswith(".lock")]
    _, err = raydeck(*sweep)
    assert "is finished; nothing to do" in err


@pytest.mark.ray
@pytest.mark.slow
def test_asha_and_two_workers(raydeck):
    assert raydeck.json(*SWEEP, "asha", "--scheduler", "asha", "--trials", "4")["num_failed"] == 0
    result = raydeck.json("train", "mlp", "--smoke", "--workers", "2", "--storage", RUNS, "--name", "two")
    assert (result["status"], result["world_size"]) == ("finished", 2)
    files = client().find("bucket/runs/two")
    assert not [path for path in files if "/.ray/" in path]
    assert {f"bucket/runs/two/logs/rank-{rank}.log" for rank in (0, 1)} < set(files)
    assert b"epoch 2 " in client().cat_file("bucket/runs/two/logs/rank-0.log")
