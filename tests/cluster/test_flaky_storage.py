"""Storage that fails in a fifth of its calls, answers late or not at all: runs go on, within a bound."""

import errno
import json
import time
from pathlib import Path

import pytest
from flaky import Flaky

from cluster import retrying
from cluster.checkpoints import Checkpoints
from cluster.cli import main
from cluster.folder import Folder
from cluster.runs import Run

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ("train", "mlp", "--smoke", "--baselines", "false", "--name", "r", "--trainer.max_epochs")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(retrying, "FIRST", 0.01)
    yield
    Flaky.behave()


@pytest.fixture
def storage(tmp_path):
    return f"flaky://{tmp_path}"


def train(storage, epochs, *more):
    return main([*SMOKE, str(epochs), "--storage", storage, *more])


def test_a_run_trains_resumes_and_is_evaluated_with_a_fifth_of_all_calls_failing(storage, tmp_path, capsys):
    Flaky.behave(part=0.2, delay=0.005)
    assert train(storage, 2) == 0
    assert train(storage, 4) == 0
    assert Flaky.faults >= 5
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert (result["status"], result["epochs"], result["storage_errors"]) == ("finished", 4, 0)
    assert result["storage_retries"] > 0
    assert len(Run(Folder(str(tmp_path / "r"))).history()) == 4
    capsys.readouterr()
    assert main(["evaluate", f"{storage}/r", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test"] == pytest.approx(result["test"])


def test_an_outage_in_mid_run_is_warned_of_once_counted_and_does_not_stop_training(storage, tmp_path, capsys):
    failing = ("step-000000002", "step-000000003", "step-000000004")  # of the steps 1 to 6, an epoch each
    steps = ["--data.batch_size", "1000"]
    Flaky.behave(broken=lambda call, path: call == "put_file" and any(step in path for step in failing))
    assert train(storage, 6, *steps) == 0
    err = capsys.readouterr().err
    assert err.count("warning: checkpoint not saved; training goes on") == 1
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert (result["status"], result["epochs"], result["storage_errors"]) == ("finished", 6, 3)
    assert [c.step for c in Checkpoints(Folder(str(tmp_path / "r" / "checkpoints")), "min").committed()][-2:] == [5, 6]


def test_a_final_state_that_cannot_be_stored_fails_in_one_line_and_loses_nothing(storage, tmp_path, capsys):
    Flaky.behave(
        broken=lambda call, path: call == "put_file" and not path.endswith(("1/model.ckpt", "1/manifest.json"))
    )
    assert train(storage, 3, "--data.batch_size", "1000") == 1
    err = capsys.readouterr().err
    assert "raydeck: failed: storage: cannot write flaky://" in err.splitlines()[-1] and "tried 6 times" in err
    assert "Traceback" not in err
    with Checkpoints(Folder(str(tmp_path / "r" / "checkpoints")), "min").latest() as (checkpoint, _):
        assert checkpoint.step == 1
    Flaky.behave()
    assert train(storage, 3, "--data.batch_size", "1000") == 0
    assert "going on from epoch 1, step 1" in capsys.readouterr().err


def test_storage_that_never_answers_is_given_up_within_the_bound(storage, capsys, monkeypatch):
    monkeypatch.setattr(retrying, "FIRST", 0.3)
    monkeypatch.setattr(retrying, "SECONDS", 1.0)
    Flaky.behave(part=1.0)
    began = time.monotonic()
    assert train(storage, 1) == 1
    assert time.monotonic() - began < 5
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "raydeck:" in line] == lines[-1:] and "Traceback" not in str(lines)


@pytest.mark.slow
def test_two_seconds_of_latency_and_a_fifth_of_errors_do_not_stop_training(storage, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(retrying, "FIRST", 0.5)
    steady = ("--data.source", "breast_cancer", "--data.batch_size", "1", "--trainer.max_epochs")
    main(["train", "mlp", *steady, "3", "--baselines", "false", "--name", "near", "--storage", str(tmp_path)])
    Flaky.behave(part=0.2, delay=2.0)
    main(["train", "mlp", *steady, "3", "--baselines", "false", "--name", "far", "--storage", storage])
    near, far = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("near", "far"))
    with capsys.disabled():
        print(
            f"\n{far['seconds'] / 3:.1f} s an epoch, {near['seconds'] / 3:.1f} s near; {far['storage_retries']} retries"
        )
    assert (far["status"], far["storage_errors"], far["test"]) == ("finished", 0, near["test"])


@pytest.mark.ray
@pytest.mark.slow
def test_so_they_do_through_ray_train(tmp_path, raydeck):
    """On a cluster of its own, whose nodes know of such storage and suffer from it, the driver included."""
    (tmp_path / "flaky.dist-info").mkdir()
    (tmp_path / "flaky.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: flaky\nVersion: 1\n")
    (tmp_path / "flaky.dist-info" / "entry_points.txt").write_text("[fsspec.specs]\nflaky = flaky:Flaky\n")
    helpers = Path(__file__).parents[1] / "helpers"
    suffering = {"PYTHONPATH": f"{ROOT}:{helpers}:{tmp_path}", "FLAKY_PART": "0.2", "FLAKY_DELAY": "2"}
    state = suffering | {"RAYDECK_STATE": str(tmp_path / "state")}
    runs = tmp_path / "runs"
    runs.mkdir()
    command = ("train", "mlp", "--data.source", "breast_cancer", "--data.batch_size", "2", "--workers", "2", "--name",
               "r", "--cpus-per-worker", "1", "--baselines", "false", "--storage", f"flaky://{runs}")  # fmt: skip
    try:
        exports = raydeck.json("cluster", "up", "--local", "--nodes", "2", **state)["environment"]
        _, err = raydeck(*command, "--trainer.max_epochs", "2", timeout=280, **exports, **suffering)
        result = json.loads((runs / "r" / "result.json").read_text())
        assert (result["status"], result["epochs"], result["storage_errors"]) == ("finished", 2, 0)
        assert result["storage_retries"] > 0 and result["world_size"] == 2
        assert [line.split()[1] for line in err.splitlines() if line.startswith("epoch ")] == ["1", "2"]
        assert sorted(path.name for path in (runs / "r" / "logs").iterdir()) == ["rank-0.log", "rank-1.log"]
        _, err = raydeck(*command, "--trainer.max_epochs", "3", timeout=280, **exports, **suffering)
        assert "going on from epoch 2" in err
        print(f"{result['seconds'] / 2:.1f} s an epoch, {result['storage_retries']} retries")
    finally:
        raydeck("cluster", "down", **state)


class Answer(Exception):
    """As botocore's ClientError carries a status."""

    def __init__(self, status):
        super().__init__(f"status {status}")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError(errno.EIO, "input/output error"), True),
        (ConnectionResetError("reset"), True),
        (TimeoutError("late"), True),
        (Answer(503), True),
        (Answer(429), True),
        (Answer(403), False),
        (OSError(errno.ENOSPC, "no space left"), False),
        (PermissionError(errno.EACCES, "denied"), False),
        (FileNotFoundError(errno.ENOENT, "The specified bucket does not exist"), False),
    ],
)
def test_which_errors_may_pass(error, passes):
    assert retrying.may_pass(error) is passes


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space left"), PermissionError(errno.EACCES, "denied")])
def test_a_refusal_is_believed_at_once(error):
    calls = []

    def refuse():
        calls.append(1)
        raise error

    with pytest.raises(retrying.StorageError, match=error.strerror):
        retrying.retried("write x", refuse)
    assert len(calls) == 1
