import asyncio
import contextlib
import importlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from cluster._package import PACKAGES
from cluster.submit import _show_log, connect, exit_code, find_token, follow, resolve_address, submit

# Ray 2.60 opens its log's web socket in a way that aiohttp 3.14 calls deprecated; can go when it does not.
pytestmark = pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ["train", "mlp", "--storage", "/shared/runs"]
RAY_VARIABLES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")

JOB = """
import os, pathlib, sys, time

import workloads
from cluster import __file__ as here

print("arguments", sys.argv[1:], "folder", pathlib.Path(here).parents[1] == pathlib.Path.cwd())
print("address", os.environ["RAY_ADDRESS"], "package", workloads.NAME)
print("config", pathlib.Path(sys.argv[-1].partition("=")[2]).read_text())
while "--wait" in sys.argv:
    print("tick")
    time.sleep(0.1)
sys.exit(2)
"""


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch, tmp_path):
    """What the environment says of a cluster does not reach a test; nor does a token in the home folder."""
    for name in RAY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def head():
    """A head node on loopback that asks for a token: (address of its dashboard, file of its token)."""
    home = Path(tempfile.mkdtemp(prefix="raydeck-", dir="/tmp"))  # Ray's sockets need a short path
    token = home / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    ports = free_ports(6)
    flags = ("port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port",
             "metrics-export-port", "ray-client-server-port")  # fmt: skip
    binaries = Path(sys.executable).parent
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",  # where jobs find python
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }
    with (home / "log").open("wb") as log:
        started = subprocess.Popen(
            [binaries / "ray", "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats",
             "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={home / 'ray'}",
             *(f"--{flag}={port}" for flag, port in zip(flags, ports, strict=True))],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{ports[1]}"
        wait_until_up(address, token.read_text(), started, home / "log")
        yield address, token
    finally:
        end(started)
        shutil.rmtree(home, ignore_errors=True)


def free_ports(number):
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]


def wait_until_up(address, token, started, log):
    for _ in range(100):
        assert started.poll() is None, log.read_text()
        with contextlib.suppress(ValueError):
            return connect(address, token)
        time.sleep(0.3)
    raise AssertionError(f"no head node within 30 s: {log.read_text()}")


def end(started):
    """End a head node and every process below it, each by its own identity."""
    import ray  # noqa: F401  brings psutil along

    psutil = importlib.import_module("psutil")
    with contextlib.suppress(psutil.NoSuchProcess):
        processes = [psutil.Process(started.pid), *psutil.Process(started.pid).children(recursive=True)]
        for act in ("terminate", "kill"):
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    getattr(process, act)()
            processes = psutil.wait_procs(processes, timeout=3)[1]
    started.wait(5)


@pytest.fixture
def project(tmp_path):
    """A project whose ``python -m cluster`` tells how it was started."""
    folder = tmp_path / "project"
    for package in PACKAGES:
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("NAME = 'sent'\n")
    (folder / "cluster" / "__main__.py").write_text(JOB)
    (folder / "cluster" / ".env").write_text("SECRET=1")
    return folder


def job_in(notices):
    return next(line.split()[1] for line in notices.splitlines() if line.startswith("job "))


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://10.0.0.1:8265", "http://10.0.0.1:8265"),
        ("https://ray.example.com/team/", "https://ray.example.com/team"),
        ("10.0.0.1:9000", "http://10.0.0.1:9000"),
        ("head", "http://head:8265"),
        ("[::1]:9000", "http://[::1]:9000"),
    ],
)
def test_address_of_a_dashboard(given, url):
    assert resolve_address(given) == url


def test_address_comes_from_flag_then_environment(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://a:1")
    assert resolve_address(None) == "http://a:1"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://b:2")
    assert resolve_address(None) == "http://b:2"
    assert resolve_address("http://c:3") == "http://c:3"


@pytest.mark.parametrize("given", ["ray://head:10001", "head:6379", "auto", "local", "http://", "head:port"])
def test_refuses_an_address_that_takes_no_jobs(given):
    with pytest.raises(ValueError, match=r"--address .*: jobs are not submitted there; .*http://HOST:8265"):
        resolve_address(given)


def test_refuses_no_address_and_one_with_a_password():
    with pytest.raises(ValueError, match=r"no cluster given; .*RAY_ADDRESS"):
        resolve_address(None)
    with pytest.raises(ValueError, match=r"--address: .* password") as error:
        resolve_address("http://me:hunter2@head:8265")
    assert "hunter2" not in str(error.value)


def test_token_is_looked_for_in_order(monkeypatch, tmp_path):
    assert find_token() is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("of-home\n")
    assert find_token() == "of-home"
    (tmp_path / "file").write_text("of-path\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "file"))
    assert find_token() == "of-path"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-variable")
    assert find_token() == "of-variable"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert find_token() is None


def test_refuses_what_is_no_token_without_showing_it(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hunter2\nX-Header: 1")
    with pytest.raises(ValueError, match="no spaces or line breaks") as error:
        find_token()
    assert "hunter2" not in str(error.value)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "missing"))
    with pytest.raises(ValueError, match=r"RAY_AUTH_TOKEN_PATH .*missing: no token can be read"):
        find_token()
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(ValueError, match="RAY_AUTH_MODE=token, and no token: set RAY_AUTH_TOKEN"):
        find_token()


@pytest.mark.parametrize(("listens", "reason"), [(False, "refused"), (True, "no answer in time")])
def test_says_soon_that_no_cluster_answers(listens, reason):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen()
        start = time.monotonic()
        with pytest.raises(ValueError, match=f"no cluster answers at http://127.*{reason}") as error:
            submit(TRAIN, address=f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - start < 10
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("status", "code", "answer", "line"),
    [
        ("SUCCEEDED", 0, 0, ""),
        ("FAILED", 2, 2, "job j ended with exit code 2\n"),
        ("FAILED", -9, 137, "job j ended with exit code -9\n"),
        ("FAILED", None, 1, "job j failed outside its command: no such package\n"),
        ("STOPPED", None, 143, "job j was stopped before it ended\n"),
    ],
)
def test_exit_code_is_the_jobs_own(status, code, answer, line, capsys):
    from ray.dashboard.modules.job.pydantic_models import JobDetails

    details = JobDetails(
        type="SUBMISSION", submission_id="j", status=status, driver_exit_code=code,
        entrypoint="python", message="no such package\nTraceback ...",
    )  # fmt: skip
    assert exit_code(details) == answer
    assert capsys.readouterr().err == line


@pytest.mark.ray
def test_refuses_without_the_token_and_with_a_wrong_one(head, project, monkeypatch):
    address, _ = head
    with pytest.raises(ValueError, match=r"wants a token \(401\).*RAY_AUTH_TOKEN .*RAY_AUTH_TOKEN_PATH") as error:
        submit(TRAIN, address=address, project=project)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    with pytest.raises(ValueError, match=r"refuses the token \(403\).*RAY_AUTH_TOKEN .*RAY_AUTH_TOKEN_PATH") as error:
        submit(TRAIN, address=address, project=project)
    assert "aaaa" not in str(error.value)


@pytest.mark.ray
def test_job_runs_what_was_sent_and_its_log_is_followed(head, project, monkeypatch, tmp_path, capfd):
    address, token = head
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")  # the flag goes before it
    (tmp_path / "small.yaml").write_text("seed: 5")
    command = ["train", "mlp", "--storage", "/shared/my runs", "--config", str(tmp_path / "small.yaml")]
    assert submit(command, address=address, project=project) == 2
    told = capfd.readouterr()
    sent = ["train", "mlp", "--storage=/shared/my runs", "--config=configs/0-small.yaml"]
    assert f"arguments {sent} folder True" in told.out
    assert "package sent" in told.out
    assert "config seed: 5" in told.out
    assert "address 127.0.0.1:1" not in told.out
    assert f"not sent, as they look private: {project / 'cluster' / '.env'}\n" in told.err
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"

    assert told.err.endswith("ended with exit code 2\n")
    client, job = connect(address, token.read_text()), job_in(told.err)
    assert asyncio.run(_show_log(client, job, 50)) == (len(told.out), True)  # as after a lost connection
    assert capfd.readouterr().out == told.out[50:]
    details = client.get_job_info(job)
    assert (
        details.metadata.items() >= {"verb": "train", "workload": "mlp", "raydeck_version": version("raydeck")}.items()
    )
    assert token.read_text() not in f"{details} {told}"
    assert str(token) not in f"{details}"


@pytest.mark.ray
def test_interrupt_leaves_the_job_and_a_stopped_one_says_so(head, project, monkeypatch, capfd):
    address, token = head
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    (project / "small.yaml").write_text("seed: 5")
    command = [*TRAIN, "--wait", "--config", str(project / "small.yaml")]
    program = (
        "import pathlib, sys; from cluster.submit import submit; "
        f"sys.exit(submit({command!r}, address={address!r}, project=pathlib.Path({str(project)!r})))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as following:
        try:
            assert any("tick" in line for line in following.stdout)
            following.send_signal(signal.SIGINT)
            told = following.communicate(timeout=20)[1]
        finally:
            following.kill()
    assert following.returncode == 130
    job = job_in(told)
    assert f"ray job logs {job} --address {address} --follow" in told
    assert "Traceback" not in told

    client = connect(address, token.read_text())
    assert str(client.get_job_status(job)) == "RUNNING"
    client.stop_job(job)
    details = follow(client, job)
    assert exit_code(details) == 143
    captured = capfd.readouterr()
    assert "tick" in captured.out
    assert captured.err.endswith(f"job {job} was stopped before it ended\n")


@pytest.mark.ray
def test_trains_on_the_cluster(head, tmp_path):
    address, token = head
    environment = os.environ | {"RAY_AUTH_TOKEN_PATH": str(token), "RAY_ADDRESS": address}
    command = [sys.executable, "-m", "cluster", "submit", "train", "mlp", "--smoke", "--name", "job"]
    done = subprocess.run(
        [*command, "--storage", str(tmp_path)], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    result = json.loads((tmp_path / "job" / "result.json").read_text())
    assert result["workload"] == "mlp"
    assert result["status"] == "finished"
