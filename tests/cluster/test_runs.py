"""Run directories: names, claims, locks, atomic writes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cluster.folder import Folder
from cluster.runs import Run, check_name, default_name, differences

CONFIG = {"seed": 0, "model": {"lr": 0.1, "hidden_dims": [4]}, "data": {"source": "iris"}, "trainer": {"max_epochs": 2}}


@pytest.mark.parametrize("name", ["../x", "/abs", "", ".hidden", "a/b", "-x", "a" * 129, "a b", "a\n"])
def test_names_that_could_leave_the_storage_folder_are_refused(name):
    with pytest.raises(ValueError, match="--name"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "cnn-1.2_x", "9" * 128])
def test_plain_names_are_taken(name):
    assert check_name(name) == name


def test_the_default_name_follows_the_config():
    assert default_name("mlp", CONFIG) == default_name("mlp", dict(reversed(CONFIG.items())))
    assert default_name("mlp", CONFIG) != default_name("mlp", CONFIG | {"seed": 1})


def test_a_run_belongs_to_one_config_but_for_more_epochs(tmp_path):
    run = Run(Folder(str(tmp_path / "r")))
    run.start("mlp", CONFIG, "workload: mlp\nseed: 0\nmodel: {lr: 0.1, hidden_dims: [4]}\n"
              "data: {source: iris}\ntrainer: {max_epochs: 2}\n")  # fmt: skip
    assert run.stored() == ("mlp", CONFIG)
    run.start("mlp", CONFIG | {"trainer": {"max_epochs": 5}}, "workload: mlp\nseed: 0\n")
    with pytest.raises(ValueError, match="of workload 'mlp'"):
        run.start("cnn", CONFIG, "")
    run.folder.write("config.yaml", b"workload: mlp\nseed: 0\nmodel: {lr: 0.2}\n")
    with pytest.raises(ValueError, match=r"model\.lr"):
        run.start("mlp", CONFIG, "")


def test_differences_are_dotted_keys():
    assert differences(CONFIG, CONFIG | {"seed": 1, "model": {"lr": 0.2, "hidden_dims": [4]}}) == ["seed", "model.lr"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        Folder(str(tmp_path / "file" / "runs")).make()


def test_what_is_no_run_directory_is_said(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        Run.find(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="not a run directory"):
        Run.find(str(tmp_path))


def test_result_is_updated_and_a_torn_one_counts_as_none(tmp_path):
    run = Run(Folder(str(tmp_path)))
    run.write_result(status="running", seed=3)
    assert run.write_result(status="finished") == {"status": "finished", "seed": 3}
    (tmp_path / "result.json").write_text('{"status": "fin')
    assert run.result() == {}


HOLD = """
import sys, time
from cluster.folder import Folder
from cluster.runs import Run
with getattr(Run(Folder(sys.argv[1])), sys.argv[2])():
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
"""


def holding(folder, lock, seconds):
    """A process that holds one of a run's locks."""
    command = [sys.executable, "-c", HOLD, str(folder), lock, str(seconds)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_running_name_is_refused_and_a_killed_one_is_free_again(tmp_path):
    run = Run(Folder(str(tmp_path / "r")))
    (tmp_path / "r").mkdir()
    holder = holding(tmp_path / "r", "lock", 60)
    try:
        with pytest.raises(ValueError, match=f"running already .process {holder.pid} "), run.lock():
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(10)
        with run.lock():
            assert (tmp_path / "r" / ".lock").read_text().startswith(f"process {os.getpid()} ")
    finally:
        holder.kill()
        holder.stdout.close()
        holder.wait()


def test_a_worker_that_a_killed_driver_left_is_waited_for(tmp_path, capsys):
    run = Run(Folder(str(tmp_path)))
    run.wait_for_orphans()
    holder = holding(tmp_path, "writing", 2)
    try:
        with pytest.raises(ValueError, match=f"running already .process {holder.pid} "), run.writing(patience=0.1):
            pass
        with run.lock():  # which the driver gave back when it died
            run.wait_for_orphans()
        assert holder.wait(1) == 0
    finally:
        holder.kill()
        holder.stdout.close()
        holder.wait()
    assert capsys.readouterr().err == "waiting for a worker of an earlier start to end\n"


def test_a_remote_lock_expires_without_signs_of_life(tmp_path):
    run = Run(Folder(f"memory://{tmp_path.name}"))
    run.folder.make()
    run.folder.write(".lock", f'{{"owner": "process 1 elsewhere", "time": {time.time()}}}'.encode())
    with pytest.raises(ValueError, match="process 1 elsewhere"), run.lock():
        pass
    run.folder.write(".lock", f'{{"owner": "process 1 elsewhere", "time": {time.time() - 120}}}'.encode())
    with run.lock():
        assert f"process {os.getpid()} ".encode() in run.folder.read(".lock")
    assert not run.folder.exists(".lock")
