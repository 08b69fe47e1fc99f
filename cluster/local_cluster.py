"""``raydeck cluster up --local``: a throw-away cluster on this machine, for trying what a real one would do.

Each node is a process tree of its own, below one ``ray start --block``. What has been started is written down before it
answers, so that ``down`` finds it however ``up`` ended.
"""

import contextlib
import importlib
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster import console
from cluster.access import asks_for_token
from cluster.flags import parse_plain

STATE_VARIABLE = "RAYDECK_STATE"
"""Names the folder of the state, instead of the user's own."""

START_SECONDS, STOP_SECONDS = 60, 3
LONGEST_TEMP = 40
"""Characters of the folder for temporary files: Ray puts sockets below it, whose paths may have 107."""
OBJECT_STORE_BYTES = 256 * 2**20
"""Memory for objects on each node: training data is no Ray object, so little is needed."""

PORTS = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
HEAD_PORTS = ("port", "dashboard-port", "ray-client-server-port", *PORTS)

_CHILDREN: list[subprocess.Popen] = []
"""Nodes that this very process has started: one that is forgotten while it runs would make Python complain."""


@dataclass(frozen=True, kw_only=True)
class UpFlags:
    """What to start.

    Args:
        local: Start it on this machine, the only place that there is.
        nodes: Nodes, each with its own resources.
        cpus: CPUs that each node offers; more in all than this machine has are taken at their word.
    """

    local: bool = False
    nodes: int = 1
    cpus: int = 1

    def __post_init__(self) -> None:
        for name in ("nodes", "cpus"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: expected at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class LocalFlag:
    """Which cluster.

    Args:
        local: The one on this machine, the only one that there is.
    """

    local: bool = False


@dataclass
class State:
    """What stands in the state file.

    Args:
        temp: Folder of Ray's temporary files, whose name appears in the command line of each of its processes.
        address: The head's control store.
        dashboard: URL of the dashboard.
        token: File of the token.
        processes: Process id to its time of start: an id alone may belong to another process by now.
    """

    temp: str
    address: str
    dashboard: str
    token: str
    processes: dict[int, float] = field(default_factory=dict)

    def exports(self) -> dict[str, str]:
        return {
            "RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": self.token,
            "RAY_API_SERVER_ADDRESS": self.dashboard,  # where `submit` goes
        }

    def save(self) -> None:
        file = state_file()
        staged = file.with_suffix(".new")
        staged.write_text(json.dumps(asdict(self)))
        staged.replace(file)


def state_folder() -> Path:
    """The private folder of the state; made if it is not there."""
    import platformdirs

    named = os.environ.get(STATE_VARIABLE)
    folder = (Path(named) if named else platformdirs.user_state_path("raydeck")).resolve() / "local-cluster"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def state_file() -> Path:
    return state_folder() / "state.json"


def read_state() -> State | None:
    """What was started here last and not taken down; None if there is nothing."""
    try:
        stored = json.loads(state_file().read_text())
        stored["processes"] = {int(pid): start for pid, start in stored["processes"].items()}
        return State(**stored)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{state_file()} cannot be read; end its cluster's processes by hand and remove it") from None


def up(arguments: list[str]) -> int:
    """``cluster up --local``: start a cluster, unless it is up.

    Raises:
        ValueError: A flag is at fault, or the cluster does not start.
    """
    namespace, options = parse_plain("raydeck cluster up", arguments, UpFlags)
    if namespace is None:
        return 0
    flags: UpFlags = options[0]
    if not flags.local:
        raise ValueError("cluster up: starts clusters on this machine alone; say so with --local")
    with _alone():
        state = read_state()
        if state is not None and _answers(state):
            console.say("it is up already; `raydeck cluster down` ends it")
            _present(state, namespace["json"])
            return 0
        if state is not None:
            _take_down(state)  # what a crash has left
        state = _start(flags)
    _present(state, namespace["json"])
    return 0


def down(arguments: list[str]) -> int:
    """``cluster down``: end what ``up`` has started, and nothing else."""
    namespace, _ = parse_plain("raydeck cluster down", arguments, LocalFlag)
    if namespace is None:
        return 0
    with _alone():
        state = read_state()
        ended = _take_down(state) if state is not None else 0
    if namespace["json"]:
        print(json.dumps({"was_up": state is not None, "processes": ended}))
    else:
        console.say(f"down: {ended} processes ended" if state is not None else "no cluster is up here")
    return 0


def status(arguments: list[str]) -> int:
    """``cluster status``: where it is, and its nodes; returns 1 if none is up."""
    namespace, _ = parse_plain("raydeck cluster status", arguments, LocalFlag)
    if namespace is None:
        return 0
    state = read_state()
    if state is None or not _answers(state):
        console.say(
            "no cluster is up here" if state is None else "it has crashed; `raydeck cluster down` clears it away"
        )
        if namespace["json"]:
            print(json.dumps({"up": False}))
        return 1
    _present(state, namespace["json"])
    return 0


def _present(state: State, as_json: bool) -> None:
    """How to go on: on stdout exactly what a shell can take."""
    exports, nodes = state.exports(), alive_nodes(state)
    if as_json:
        told = {"up": True, "address": state.address, "dashboard": state.dashboard, "token_path": state.token}
        print(json.dumps(told | {"nodes": nodes, "environment": exports}, indent=1))
        return
    print("export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in exports.items()))
    console.say(
        f"{nodes} node{'s' if nodes > 1 else ''} up; dashboard: {state.dashboard} (the token is in {state.token})"
    )


def _start(flags: UpFlags) -> State:
    """Start a head and its other nodes; whatever goes wrong, nothing is left behind."""
    temp = Path(tempfile.mkdtemp(prefix="rd-")).resolve()
    ports = free_ports(len(HEAD_PORTS))
    token = state_folder() / "token"
    state = State(str(temp), f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}", str(token))
    try:
        if len(str(temp)) > LONGEST_TEMP:
            raise ValueError(f"{temp} is too long a path for Ray's sockets; set TMPDIR to a short one, such as /tmp")
        _write_token(token)
        state.save()
        head = ["--head", "--dashboard-host=127.0.0.1", "--include-dashboard=true"]
        started = [_start_node(state, 0, flags.cpus, [*head, *_flags(HEAD_PORTS, ports)])]
        _wait(state, started, 1)
        for number in range(1, flags.nodes):
            joins = [f"--address={state.address}", *_flags(PORTS, free_ports(len(PORTS)))]
            started.append(_start_node(state, number, flags.cpus, joins))
        _wait(state, started, flags.nodes)
        for process in _descendants(state):
            state.processes[process.pid] = process.create_time()
        state.save()
    except BaseException:
        _take_down(state)
        raise
    return state


def _write_token(file: Path) -> None:
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(secrets.token_hex(32))


def _flags(names: Sequence[str], ports: Sequence[int]) -> list[str]:
    return [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]


def _start_node(state: State, number: int, cpus: int, more: Sequence[str]) -> subprocess.Popen:
    temp = Path(state.temp)
    binaries = os.path.dirname(sys.executable)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {
        "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}",  # where jobs look for python
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": state.token,
    }
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
        *(f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1", f"--object-store-memory={OBJECT_STORE_BYTES}"),
        *(f"--temp-dir={temp / str(number)}", *more),
    ]
    with log_of(temp, number).open("wb") as log:
        started = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    _CHILDREN.append(started)
    state.processes[started.pid] = _psutil().Process(started.pid).create_time()
    state.save()
    return started


def log_of(temp: Path, number: int) -> Path:
    return temp / f"node-{number}.log"


def _wait(state: State, started: Sequence[subprocess.Popen], nodes: int) -> None:
    """Wait until so many nodes are up, with the token in force.

    Raises:
        ValueError: A node has ended, or time is over.
    """
    deadline = time.monotonic() + START_SECONDS
    while not (asks_for_token(state.address) and alive_nodes(state) >= nodes):
        for number, process in enumerate(started):
            if process.poll() is not None:
                lines = log_of(Path(state.temp), number).read_text(errors="replace").strip().splitlines()
                raise ValueError(f"cluster up: node {number} did not start: {' '.join(lines[-3:])[:300]}")
        if time.monotonic() > deadline:
            raise ValueError(
                f"cluster up: {nodes} nodes are not up within {START_SECONDS} s; look at this machine's load"
            )
        time.sleep(0.3)


def alive_nodes(state: State) -> int:
    """Nodes that the dashboard says are alive; 0 while it does not answer."""
    import requests

    headers = {"Authorization": f"Bearer {Path(state.token).read_text()}"}
    try:
        answer = requests.get(f"{state.dashboard}/api/v0/nodes", headers=headers, timeout=5)
        found = answer.json()["data"]["result"]["result"] if answer.ok else []
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return 0
    return sum(node["state"] == "ALIVE" for node in found)


def _answers(state: State) -> bool:
    return Path(state.token).is_file() and bool(asks_for_token(state.address))


def _take_down(state: State) -> int:
    """End the cluster's processes, each verified to be one, and remove what it has left.

    Returns:
        How many processes were ended.
    """
    psutil = _psutil()
    ours = _descendants(state)
    for act in (signal.SIGTERM, signal.SIGKILL):
        for process in ours:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(act)  # psutil looks at the time of start once more before it does
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and any(_is_alive(process) for process in ours):
            time.sleep(0.1)
        ours += [process for process in _descendants(state) if process not in ours]  # started in between
    for child in _CHILDREN:
        child.poll()
    remaining = [process.pid for process in ours if _is_alive(process)]
    if remaining:
        raise ValueError(f"cluster down: processes {', '.join(map(str, remaining))} do not end; try again")
    shutil.rmtree(state.temp, ignore_errors=True)
    Path(state.token).unlink(missing_ok=True)
    state_file().unlink(missing_ok=True)
    return len(ours)


def _is_alive(process: Any) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    psutil = _psutil()
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _descendants(state: State) -> list[Any]:
    """All processes of the cluster that run.

    One that was written down counts if it started when it did then; so do those below it, and those of this user which
    a flag has told to work in the cluster's own folder of temporary files.
    """
    psutil = _psutil()
    found: dict[int, Any] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and _is_alive(process) and _is_ours(process, state):
                found[process.pid] = process
                found |= {child.pid: child for child in process.children(recursive=True)}
    return list(found.values())


def _is_ours(process: Any, state: State) -> bool:
    recorded = state.processes.get(process.pid)
    if recorded is not None and abs(process.create_time() - recorded) < 1:
        return True
    given = re.compile(rf"--[\w-]+={re.escape(state.temp)}/")  # as Ray's flags; `tail -f` of a log there is not ours
    return process.uids().real == os.getuid() and any(given.match(word) for word in process.cmdline())


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep two commands from starting or ending a cluster at once."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(state_folder() / "lock", timeout=START_SECONDS):
            yield
    except Timeout:
        raise ValueError("another `raydeck cluster` command is at work; wait for it to end") from None


def _psutil() -> Any:
    import ray  # noqa: F401  brings psutil along

    return importlib.import_module("psutil")
