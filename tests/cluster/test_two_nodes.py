"""A run on two nodes with a network between them: lost, drained and returned nodes. Each fault is a real one.

It runs where network namespaces can be made, as root on Linux: pytest -m slow -s tests/cluster/test_two_nodes.py
"""

import csv
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import two_nodes

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 55
"""Steps of an epoch: 3,500 digits in batches of at most 64, on any number of workers."""
SAVE_MINUTES = 0.05


@pytest.fixture(scope="module")
def cluster():
    if reason := two_nodes.why_not():
        pytest.skip(f"no network namespaces here: {reason}")
    with two_nodes.running() as nodes:
        yield nodes


@pytest.fixture
def nodes(cluster):
    """Both nodes, up."""
    if not cluster.processes(1):
        cluster.start(1)
    return cluster


class Training:
    """A run of ``cnn`` from the head's network; every file that it writes is seen here, too."""

    def __init__(self, nodes, storage, *flags):
        self.nodes, self.run, self.lines = nodes, Path(storage) / "r", []
        self.process = nodes.popen(
            sys.executable, "-m", "cluster", "train", "cnn", "--storage", storage, "--name", "r",
            "--baselines", "false", "--model.channels", "[16,32]", "--max-failures", "1", *flags,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True).start()

    def until(self, condition, seconds=240):
        """Wait for a condition; returns its value and the time."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline and self.process.poll() is None, "".join(self.lines)
            time.sleep(0.02)
        return found, time.time()

    def epochs(self):
        """The rows of metrics.csv."""
        file = self.run / "metrics.csv"
        return list(csv.DictReader(file.read_text().splitlines())) if file.exists() else []

    def said(self, words):
        return any(words in line for line in self.lines)

    def saved(self):
        """Step of each whole checkpoint to the time it was written."""
        found = (self.run / "checkpoints").glob("step-*/manifest.json")
        return {int(file.parent.name[5:]): file.stat().st_mtime for file in found}

    def checkpoint_after(self, step):
        """Wait for a step after ``step`` to be saved; returns it and the time."""
        return self.until(lambda: max((found for found in self.saved() if found > step), default=0))

    def result(self):
        assert self.process.wait(400) == 0, "".join(self.lines)
        return json.loads((self.run / "result.json").read_text())


def validation(training):
    return [{key: value for key, value in row.items() if key.startswith("val/")} for row in training.epochs()]


def numbers(training, key):
    return [float(row[key]) for row in training.epochs()]


def tell(**figures):
    print("figures:", ", ".join(f"{name} {value:.1f}" for name, value in figures.items()))


@pytest.fixture(scope="module")
def whole(cluster, tmp_path_factory):
    """A run that nothing happens to."""
    training = Training(cluster, tmp_path_factory.mktemp("whole"), "--workers", "2", "--trainer.max_epochs", "6")
    training.until(training.epochs)
    training.spread = [any("RayTrainWorker" in line for line in cluster.processes(node)) for node in range(2)]
    training.finished = training.result()
    return training


def test_a_run_spans_both_nodes_over_interfaces_that_it_finds(whole):
    assert whole.spread == [True, True]
    assert (whole.finished["status"], whole.finished["world_size"], whole.finished["epochs"]) == ("finished", 2, 6)
    assert whole.finished["test"]["accuracy"] > 0.9


def test_a_node_is_killed_and_the_run_goes_on_when_it_is_back(nodes, whole, tmp_path):
    training = Training(nodes, tmp_path, "--workers", "2", "--trainer.max_epochs", "6",
                        "--checkpoint.every_minutes", str(SAVE_MINUTES))  # fmt: skip
    training.until(lambda: len(training.epochs()) >= 2)
    training.checkpoint_after(2 * STEPS)
    time.sleep(1)
    saved = training.saved()
    killed = nodes.kill(1)
    last = max(saved)
    training.until(lambda: training.said("was lost"))
    nodes.start(1)
    back = time.time()
    _, resumed = training.checkpoint_after(max(training.saved()))
    result = training.result()
    # At a checkpoint that is due the ranks still have to agree, which they do every ten batches.
    seconds = killed - saved[last]
    assert seconds < 60 * SAVE_MINUTES + 3
    assert (result["status"], result["world_size"], result["epochs"], result["steps"]) == ("finished", 2, 6, 6 * STEPS)
    assert [row["epoch"] for row in training.epochs()] == ["1", "2", "3", "4", "5", "6"]
    assert validation(training) == validation(whole)  # digit for digit
    rate = STEPS / (numbers(whole, "seconds")[-1] / 6)
    tell(steps_redone_at_most=seconds * rate, seconds_redone=seconds, seconds_until_back=back - killed,
         seconds_from_back_to_next_checkpoint=resumed - back)  # fmt: skip


def test_notice_is_given_to_a_node_and_nothing_is_lost(nodes, whole, tmp_path):
    training = Training(nodes, tmp_path, "--workers", "2", "--trainer.max_epochs", "6")
    training.until(lambda: len(training.epochs()) >= 2)
    noticed = nodes.drain(1, seconds=60)
    step, _ = training.until(lambda: next((step for step in training.saved() if step % STEPS), 0))
    written = training.saved()[step]
    training.until(lambda: not any("RayTrainWorker" in line for line in nodes.processes(1)))
    left = time.time()
    nodes.kill(1)
    nodes.start(1)  # another one, as far as Ray knows
    result = training.result()
    assert (result["status"], result["world_size"], result["steps"]) == ("finished", 2, 6 * STEPS)
    # It saves only when epochs end, and for the notice; what it saved then is where it stopped.
    assert training.said("saved; going on with other workers")
    assert not training.said("lost")
    assert validation(training) == validation(whole)
    assert numbers(training, "train/loss") == pytest.approx(numbers(whole, "train/loss"), rel=1e-6)
    assert left - noticed < 30
    tell(seconds_from_notice_to_saved=written - noticed, seconds_from_notice_to_left=left - noticed)


def test_an_elastic_run_shrinks_and_grows_with_the_same_batches(nodes, tmp_path):
    training = Training(nodes, tmp_path, "--workers", "1-2", "--trainer.max_epochs", "30",
                        "--checkpoint.every_minutes", str(SAVE_MINUTES))  # fmt: skip
    training.until(lambda: len(training.epochs()) >= 2)
    killed = nodes.kill(1)
    _, decided = training.until(lambda: training.said("training with 1 worker of 1-2"))
    _, shrunk = training.checkpoint_after(max(training.saved()))
    nodes.start(1)
    back = time.time()
    _, asked = training.until(lambda: training.said("there is room for more workers"))
    training.until(lambda: training.said("saved; going on"))
    _, grown = training.checkpoint_after(max(training.saved()))
    result = training.result()
    assert (result["status"], result["workers"], result["world_sizes"]) == ("finished", "1-2", [2, 1, 2])
    assert result["world_size"] == 2
    assert numbers(training, "step") == [STEPS * k for k in range(1, 31)]
    assert result["test"]["accuracy"] > 0.95
    tell(seconds_to_decide=decided - killed, seconds_to_shrink=shrunk - killed, seconds_to_see_room=asked - back,
         seconds_to_grow=grown - back)  # fmt: skip


def test_a_submitted_run_spans_both_nodes(nodes, tmp_path):
    flags = ["--workers", "2", "--smoke", "--storage", tmp_path, "--name", "r", "--cpus-per-worker", "1"]
    out = nodes.run(sys.executable, "-m", "cluster", "submit", "train", "cnn", *flags,
                    environment={"RAY_ADDRESS": two_nodes.DASHBOARD}, seconds=300)  # fmt: skip
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert (result["status"], result["world_size"]) == ("finished", 2), out


def test_nothing_is_left_of_nodes_that_fail():
    before = two_nodes.ip("netns", "list")
    with pytest.raises(AssertionError, match="on purpose"), two_nodes.running() as nodes:
        pids = [pid for space in nodes.spaces for pid in two_nodes.ip("netns", "pids", space).split()]
        raise AssertionError("on purpose")
    assert pids and not any(two_nodes.command_of(pid) for pid in pids)
    assert two_nodes.ip("netns", "list") == before
    assert not nodes.home.exists()
