"""The throw-away cluster: private, told once, and taken down to the last process."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from cluster import local_cluster as verbs
from cluster.access import asks_for_token, check_access, control_store
from cluster.local_cluster import State

TASK = """
import ray
ray.init(log_to_driver=False)
nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
assert len(nodes) == 2, nodes
print(sum(ray.get([ray.remote(lambda k: k * k).remote(k) for k in range(4)])))
"""

OPEN = """
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def processes_of(temp):
    """Ids of the processes whose command line names a folder."""
    found = subprocess.run(["ps", "-eww", "-o", "pid,args"], capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in found if temp in line]


@pytest.mark.ray
def test_up_is_private_and_on_loopback(local_cluster):
    folder = local_cluster["state"] / "local-cluster"
    assert mode(folder) == 0o700
    assert mode(folder / "token") == 0o600
    assert len((folder / "token").read_text()) == 64
    assert local_cluster["nodes"] == 2
    assert local_cluster["dashboard"].startswith("http://127.0.0.1:")
    assert requests.get(f"{local_cluster['dashboard']}/api/version", timeout=5).status_code == 401
    assert asks_for_token(local_cluster["address"])
    assert (folder / "token").read_text() not in json.dumps(local_cluster, default=str)


@pytest.mark.ray
def test_up_twice_says_that_it_is_up(local_cluster, monkeypatch, capsys):
    monkeypatch.setenv(verbs.STATE_VARIABLE, str(local_cluster["state"]))
    before = verbs.read_state()
    assert verbs.up(["--local", "--nodes", "3"]) == 0
    told = capsys.readouterr()
    assert "it is up already" in told.err
    exports = [f"{name}={value}" for name, value in local_cluster["environment"].items()]
    assert told.out.split() == ["export", *exports]
    assert verbs.read_state() == before
    assert verbs.status([]) == 0


@pytest.mark.ray
def test_exports_are_all_that_a_program_needs(local_cluster):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", TASK], env=environment | local_cluster["environment"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "14\n", done.stderr


@pytest.mark.ray
def test_a_cluster_that_wants_a_token_is_not_joined_without_one(local_cluster, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in local_cluster["environment"]:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"wants a token; set RAY_AUTH_MODE=token.*RAY_AUTH_TOKEN_PATH") as error:
        check_access(local_cluster["address"], insecure=True)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", local_cluster["token_path"])
    check_access(local_cluster["address"], insecure=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    with pytest.raises(ValueError, match=r"refuses the token that is set here; set .*RAY_AUTH_TOKEN_PATH") as error:
        check_access(local_cluster["address"], insecure=False)
    assert "aaaa" not in str(error.value)


@pytest.mark.ray
def test_down_ends_what_a_crash_has_left_and_nothing_else(state, capsys):
    with subprocess.Popen(["sleep", "60"]) as bystander:
        try:
            assert verbs.up(["--local"]) == 0
            known = verbs.read_state()
            assert len(processes_of(known.temp)) >= 3
            supervisor = min(known.processes, key=known.processes.get)
            os.kill(supervisor, signal.SIGKILL)  # as the kernel does when memory is short
            assert verbs.down([]) == 0
            assert processes_of(known.temp) == []
            assert not verbs._descendants(known)
            assert not os.path.exists(known.temp)
            assert [file.name for file in state.iterdir()] == ["lock"]
            assert bystander.poll() is None
        finally:
            bystander.kill()
            verbs.down([])
    assert verbs.down([]) == 0
    assert "no cluster is up here" in capsys.readouterr().err
    assert verbs.status([]) == 1


@pytest.mark.ray
def test_what_is_half_started_is_taken_down(state, monkeypatch):
    monkeypatch.setattr(verbs, "OBJECT_STORE_BYTES", 1)  # less than Ray takes
    with pytest.raises(ValueError, match="cluster up: node 0 did not start: ") as error:
        verbs.up(["--local"])
    assert "\n" not in str(error.value)
    assert [file.name for file in state.iterdir()] == ["lock"]


def test_interrupted_up_leaves_nothing(state, monkeypatch):
    started = []

    def start(given, *_):
        started.append(subprocess.Popen(["sleep", "60"]))
        given.processes[started[0].pid] = verbs._psutil().Process(started[0].pid).create_time()
        given.save()
        raise KeyboardInterrupt

    monkeypatch.setattr(verbs, "_start_node", start)
    with pytest.raises(KeyboardInterrupt):
        verbs.up(["--local"])
    assert started[0].poll() is not None
    assert [file.name for file in state.iterdir()] == ["lock"]


def test_a_process_that_took_over_an_id_is_not_ended(state, tmp_path):
    (tmp_path / "rd").mkdir()
    (tmp_path / "token").write_text("t")
    with subprocess.Popen(["sleep", "60"]) as foreign, subprocess.Popen(["sleep", "60"]) as ours:
        try:
            start = verbs._psutil().Process(foreign.pid).create_time()
            verbs.state_folder()
            State(str(tmp_path / "rd"), "127.0.0.1:1", "http://127.0.0.1:2", str(tmp_path / "token"),
                  {foreign.pid: start - 100, ours.pid: start}).save()  # fmt: skip
            assert verbs.down([]) == 0
            assert foreign.poll() is None
            assert ours.poll() is not None
        finally:
            foreign.kill()
            ours.kill()
    assert [file.name for file in state.iterdir()] == ["lock"]
    assert not (tmp_path / "rd").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "say so with --local"),
        (["--local", "--nodes", "0"], "--nodes: expected at least 1, got 0"),
        (["--local", "--node", "2"], "no flag --node; did you mean --nodes?"),
    ],
)
def test_refuses_what_it_cannot_start(state, arguments, line):
    with pytest.raises(ValueError) as error:
        verbs.up(arguments)
    assert line in str(error.value)


def test_a_state_that_cannot_be_read_is_said(state):
    verbs.state_folder()
    (state / "state.json").write_text("{")
    with pytest.raises(ValueError, match=r"state\.json cannot be read"):
        verbs.down([])


def control_store_that(answers):
    """A stand-in for Ray's control store, so that the answer of an open one costs no cluster."""
    import grpc

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            assert details.method == "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"
            return grpc.unary_unary_rpc_method_handler(answers)

    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([Handler()])
    return server, server.add_insecure_port("127.0.0.1:0")


def test_an_open_cluster_needs_insecure(capsys):
    server, port = control_store_that(lambda request, context: b"")
    server.start()
    try:
        with pytest.raises(ValueError, match=r"is open to everybody .*RAY_AUTH_MODE=token.*--insecure") as error:
            check_access(f"127.0.0.1:{port}", insecure=False)
        assert "\n" not in str(error.value)
        check_access(f"127.0.0.1:{port}", insecure=True)
    finally:
        server.stop(None)
    told = capsys.readouterr().err
    assert told.startswith("warning: THE CLUSTER AT")
    assert "OPEN TO EVERYBODY" in told


def test_says_soon_that_no_cluster_answers():
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"no Ray cluster answers at 127\.0\.0\.1:1; "):
        check_access("127.0.0.1:1", insecure=False)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("address", ["head", "head:port", "a b:1", ":1"])
def test_refuses_what_is_no_address(address):
    with pytest.raises(ValueError, match=r"--address .*: expected auto, local or HOST:PORT"):
        control_store(address)


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265"])
def test_an_address_that_cannot_be_asked_needs_insecure(address):
    with pytest.raises(ValueError, match=r"cannot be asked for its token; .*--insecure"):
        check_access(address, insecure=False)


@pytest.mark.ray
def test_an_open_cluster_of_rays_is_refused_and_joined_if_accepted(raydeck):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    with subprocess.Popen(
        [sys.executable, "-c", OPEN], env=environment | {"RAY_AUTH_MODE": "disabled"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as head:  # fmt: skip
        try:
            address = head.stdout.readline().strip()
            with pytest.raises(ValueError, match="open to everybody"):
                check_access(address, insecure=False)
            out, err = raydeck("doctor", "--address", address, "--insecure", "--json", RAY_AUTH_MODE="disabled")
        finally:
            head.communicate("\n", timeout=30)
    assert err.startswith("warning: THE CLUSTER AT")
    access = next(finding for finding in json.loads(out)["findings"] if finding["check"] == "access")
    assert access["result"] == "is open to everybody who reaches it, which --insecure accepts"
