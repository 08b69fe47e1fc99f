"""``raydeck jobs``: on jobs made up here, and on a real head node that asks for a token."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from cluster import jobs
from cluster.cli import main
from cluster.dashboard import connect
from cluster.jobs import command, facts, find

# Ray 2.60 opens its log's web socket in a way that aiohttp 3.14 calls deprecated; can go when it does not.
pytestmark = [
    pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning"),
    pytest.mark.usefixtures("no_cluster"),
]

ROOT = Path(__file__).resolve().parents[2]
NOON = 1_795_435_200_000  # 2026-11-23 12:00:00 UTC


def details(job="raydeck-train-1", status="RUNNING", **values):
    from ray.dashboard.modules.job.pydantic_models import JobDetails

    given = {"start_time": NOON, "entrypoint": "python -m cluster train mlp", "metadata": {"run": "/r/x"}} | values
    return JobDetails(type="SUBMISSION", submission_id=job, status=status, **given)


class Cluster:
    """A cluster that knows some jobs; one that is asked to stop does what it is told to.

    Args:
        known: Its jobs.
        stopped: What becomes of a job that is asked to stop.
        deaf: Times that such a request is dropped, as for a job that is only starting.
    """

    def __init__(self, *known, stopped=None, deaf=0):
        self.known = {each.submission_id: each for each in known}
        self.stopped, self.deaf = stopped, deaf

    def list_jobs(self):
        return list(self.known.values())

    def get_job_info(self, job):
        if job not in self.known:
            raise RuntimeError(f"Request failed with status code 404: Job {job} does not exist.")
        return self.known[job]

    def get_job_logs(self, job):
        return f"log of {job}\n"

    def stop_job(self, job):
        self.deaf -= 1
        if self.deaf >= 0:
            return False
        if self.stopped:
            self.known[job] = self.stopped
        return True


@pytest.fixture
def on(monkeypatch):
    """Answers for a cluster of ours: ``on(cluster)``."""

    def use(cluster):
        monkeypatch.setenv("RAY_ADDRESS", "http://h:1")
        monkeypatch.setattr(jobs.dashboard, "connect", lambda url, token, insecure: cluster)

    return use


def test_help_of_each_verb(capsys):
    assert main(["jobs"]) == main(["jobs", "--help"]) == 0
    told = capsys.readouterr().out
    for verb in jobs.VERBS:
        assert f"raydeck jobs {verb} " in told
        assert main(["jobs", verb, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"usage: raydeck jobs {verb} ")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["lits"], "jobs: no verb 'lits'; did you mean 'list'?"),
        (["forget"], "jobs: no verb 'forget'; one of list, status, logs, stop"),
        (["list", "--jsn"], "jobs list takes [--json], not --jsn; did you mean '--json'?"),
        (["list", "x"], "jobs list takes [--json], not x"),
        (["logs"], "jobs logs: the ID of a job follows the verb; `raydeck jobs list` names them"),
        (["logs", "x", "--folow"], "jobs logs takes ID [--follow], not --folow; did you mean '--follow'?"),
        (["stop", "x", "--wait", "long"], "jobs stop: argument --wait: invalid float value: 'long'"),
        (["stop", "x", "--wait", "-1"], "jobs stop --wait: expected at least 0 seconds, got -1"),
        (["stop", "x", "--wait", "nan"], "jobs stop --wait: expected at least 0 seconds, got nan"),
        (["status", "x", "--address"], "jobs status: argument --address: expected one argument"),
        (["list"], "no cluster given; name the cluster's dashboard, e.g. --address http://HOST:8265, or set RAY_ADD"),
    ],
)
def test_a_mistake_gets_one_line(arguments, fault, capsys):
    assert main(["jobs", *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"raydeck: {fault}")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"status": "SUCCEEDED", "driver_exit_code": 0, "end_time": NOON + 5000}, ("succeeded", 5.0, 0, None)),
        (
            {
                "status": "FAILED",
                "driver_exit_code": 2,
                "end_time": NOON,
                "message": "exit code 2, logs:\nraydeck: x\n",
            },
            ("failed", 0.0, 2, "raydeck: x"),
        ),
        (
            {"status": "FAILED", "end_time": NOON, "message": "no such package\nTraceback"},
            ("failed", 0.0, None, "no such package"),
        ),
        ({"status": "STOPPED", "end_time": NOON + 1500}, ("stopped", 1.5, 143, None)),
        ({"status": "PENDING", "start_time": None}, ("pending", None, None, None)),
    ],
)
def test_facts_of_a_job(values, expected):
    told = facts(details(**values))
    assert (told["state"], told["seconds"], told["exit_code"], told["reason"]) == expected
    assert told["started"] in ("2026-11-23T12:00:00+00:00", None)
    assert (told["run"], told["workload"]) == ("/r/x", None)


def test_a_running_job_lasts_until_now():
    assert facts(details(start_time=int(1000 * time.time()) - 90_000))["seconds"] == pytest.approx(90, abs=5)
    assert facts(details(start_time=int(1000 * time.time()) + 90_000))["seconds"] == 0  # its clock is ahead of ours


def test_list_shows_the_newest_first(on, capsys):
    older = details("a", "FAILED", start_time=NOON, end_time=NOON + 125_000, driver_exit_code=2)
    newer = details("b", "PENDING", start_time=NOON + 1, metadata=None)
    driver = details(None, "RUNNING")
    on(Cluster(older, newer, driver))
    assert command(["list"]) == 0
    header, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert header == ["job", "state", "workload", "started", "duration", "exit code", "run"]
    assert [row[:2] for row in rows] == [["b", "pending"], ["a", "failed"]]
    assert rows[1][4:] == ["2 min 5 s", "2", "/r/x"]
    assert command(["list", "--json"]) == 0
    assert [row["job"] for row in json.loads(capsys.readouterr().out)] == ["b", "a"]


def test_list_of_nothing(on, capsys):
    on(Cluster())
    assert command(["list"]) == 0
    assert "no job has been submitted" in capsys.readouterr().err
    assert command(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_status_and_logs(on, capsys):
    on(Cluster(details(status="FAILED", end_time=NOON, driver_exit_code=3, message="raydeck: failed: NaN")))
    assert command(["status", "raydeck-train-1"]) == 0
    rows = dict(line.split("\t") for line in capsys.readouterr().out.splitlines()[1:])
    assert rows["entrypoint"] == "python -m cluster train mlp"
    assert (rows["run"], rows["state"], rows["exit code"]) == ("/r/x", "failed", "3")
    assert rows["reason"] == "raydeck: failed: NaN"
    assert "workload" not in rows  # of a job that is not ours
    assert command(["logs", "raydeck-train-1"]) == 0
    assert capsys.readouterr().out == "log of raydeck-train-1\n"


@pytest.mark.parametrize("given", ["raydeck-train-2", "raydeck-trian-1", "raydeck-train-1/", "raydeck-train-1?x"])
def test_names_the_nearest_job(given):
    with pytest.raises(ValueError, match=r"no job '.*' on this cluster; did you mean 'raydeck-train-1'\?"):
        find(Cluster(details()), given)


@pytest.mark.parametrize("given", ["zzz", "..", "."])
def test_says_where_jobs_are_named(given):
    with pytest.raises(ValueError, match=r"no job '.*' on this cluster; `raydeck jobs list` names them"):
        find(Cluster(details()), given)


def test_a_script_that_joined_the_cluster_is_no_job_of_ours():
    with pytest.raises(ValueError, match="no job '02000000'"):
        find(Cluster(details(None)), "02000000")


@pytest.mark.parametrize(
    "error", [RuntimeError("Request failed with status code 500: Traceback\n ...\nTimeoutError: no agent"),
              requests.ConnectionError("TimeoutError: no agent")],
)  # fmt: skip
def test_a_cluster_that_fails_gets_one_line(on, monkeypatch, error):
    cluster = Cluster()

    def fail(*_):
        raise error

    monkeypatch.setattr(cluster, "list_jobs", fail)
    monkeypatch.setattr(cluster, "get_job_info", fail)
    on(cluster)
    for arguments in (["list"], ["status", "x"]):
        with pytest.raises(ValueError, match=r"^the cluster did not do as asked: TimeoutError: no agent$"):
            command(arguments)


def test_stop_says_what_happened(on, capsys):
    ours = {"workload": "mlp", "run": "/r/x"}
    stopped = details(status="STOPPED", end_time=NOON, metadata=ours)
    on(Cluster(details(metadata=ours), stopped=stopped))
    assert command(["stop", "raydeck-train-1", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["exit_code"] == 143
    asked, ended = told.err.splitlines()
    assert asked == "stopping job raydeck-train-1; it has 60 s to save, and is killed after that"
    assert ended == "job raydeck-train-1 ended after 0 s: stopped; the same command goes on with /r/x"
    assert command(["stop", "raydeck-train-1"]) == 0
    assert capsys.readouterr().err.startswith("job raydeck-train-1 had ended already: stopped; ")


def test_stop_of_a_job_that_ends_by_itself_or_not_in_time(on, capsys):
    on(Cluster(details(), stopped=details(status="FAILED", end_time=NOON, driver_exit_code=2)))
    assert command(["stop", "raydeck-train-1"]) == 0
    assert capsys.readouterr().err.endswith("job raydeck-train-1 ended after 0 s: failed, exit code 2\n")
    on(Cluster(details()))
    assert command(["stop", "raydeck-train-1", "--wait", "0.2", "--address", "http://h:1"]) == 1
    back = "see with: raydeck jobs status raydeck-train-1 --address http://h:1\n"
    assert capsys.readouterr().err.endswith(f"job raydeck-train-1 runs still after 0 s; {back}")
    assert command(["stop", "raydeck-train-1", "--wait", "0"]) == 0
    told = "job raydeck-train-1 has been asked to stop; see with: raydeck jobs status raydeck-train-1\n"
    assert capsys.readouterr().err == told


def test_stop_tells_a_killed_job(on, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "STOP_SECONDS", 0)
    on(Cluster(details(), stopped=details(status="STOPPED", end_time=NOON)))
    assert command(["stop", "raydeck-train-1"]) == 0
    assert "ended after 0 s, killed, so that only its last checkpoint stands: stopped\n" in capsys.readouterr().err


def test_stop_asks_again_while_a_job_is_only_starting(on, capsys):
    on(Cluster(details(), stopped=details(status="STOPPED", end_time=NOON), deaf=2))
    assert command(["stop", "raydeck-train-1", "--wait", "0"]) == 1
    told = "job raydeck-train-1 is only starting and cannot be stopped yet; give the same command again\n"
    assert capsys.readouterr().err == told
    assert command(["stop", "raydeck-train-1"]) == 0
    assert capsys.readouterr().err.endswith("ended after 1 s: stopped\n")


@pytest.mark.ray
def test_refuses_without_the_token_and_unknown_jobs(head, monkeypatch, capsys):
    address, token = head
    monkeypatch.setenv("RAY_ADDRESS", address)
    for arguments in (["list"], ["status", "x"], ["logs", "x", "--follow"], ["stop", "x"]):
        assert main(["jobs", *arguments]) == 2
        told = capsys.readouterr().err
        assert "wants a token (401); set RAY_AUTH_TOKEN" in told
        assert told.count("\n") == 1
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    client = connect(address, token.read_text())
    client.submit_job(entrypoint="echo hello", submission_id="raydeck-train-0000abcd")
    for arguments in (["status"], ["logs", "--follow"], ["stop"]):
        assert main(["jobs", *arguments, "raydeck-train-0000abce"]) == 2
        told = capsys.readouterr().err
        near = "did you mean 'raydeck-train-0000abcd'?"
        assert told == f"raydeck: no job 'raydeck-train-0000abce' on this cluster; {near}\n"
    assert main(["jobs", "logs", "raydeck-train-0000abcd", "--follow"]) == 0
    assert capsys.readouterr().out.endswith("hello\n")


def raydeck(*arguments, **options):
    command = [sys.executable, "-m", "cluster", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.ray
def test_a_run_is_submitted_followed_left_and_stopped(head, tmp_path, monkeypatch, capfd):
    address, token = head
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("RAY_ADDRESS", address)
    train = ["train", "mlp", "--storage", str(tmp_path), "--name", "long", "--trainer.max_epochs", "100000"]
    with raydeck("submit", *train, "--no-wait", env=dict(os.environ)) as submitting:
        out, err = submitting.communicate(timeout=60)
    assert submitting.returncode == 0, err
    job = out.strip()
    assert f"follow it with: raydeck jobs logs {job} --follow\n" in err

    with raydeck("jobs", "logs", job, "--follow", env=dict(os.environ), start_new_session=True) as following:
        try:
            assert any("epoch 3 " in line for line in following.stdout)
            following.send_signal(signal.SIGINT)
            err = following.communicate(timeout=20)[1]
        finally:
            following.kill()
    assert following.returncode == 130
    assert f"left job {job} to the cluster; follow it with: raydeck jobs logs {job} --follow\n" in err
    assert f"stop it with: raydeck jobs stop {job}\n" in err

    capfd.readouterr()
    assert main(["jobs", "status", job, "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert (told["state"], told["workload"], told["exit_code"]) == ("running", "mlp", None)
    assert told["run"] == str(tmp_path / "long")
    assert told["entrypoint"].startswith("python -m cluster train mlp --storage=")
    assert main(["jobs", "list"]) == 0
    listed = [line.split("\t") for line in capfd.readouterr().out.splitlines()]
    assert [job, "running", "mlp"] in [row[:3] for row in listed]

    assert main(["jobs", "stop", job]) == 0
    told = capfd.readouterr().err
    assert told.endswith(f": stopped; the same command goes on with {tmp_path / 'long'}\n")
    result = json.loads((tmp_path / "long" / "result.json").read_text())
    assert result["status"] == "stopped"
    assert list((tmp_path / "long" / "checkpoints").iterdir())
    assert main(["jobs", "logs", job]) == 0
    assert "SIGTERM: saving, then stopping" in capfd.readouterr().out
    assert main(["jobs", "logs", job, "--follow"]) == 143
    assert token.read_text() not in f"{connect(address, token.read_text()).get_job_info(job)}"
