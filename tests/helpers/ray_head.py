"""A Ray head node of its own, which asks for a token, as a cluster's."""

import contextlib
import importlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from cluster.dashboard import connect


@contextlib.contextmanager
def running(guarded=True):
    """A head node on loopback, which ends with the block: (address of its dashboard, file of its token).

    Args:
        guarded: Whether it asks for the token.
    """
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
        "RAY_AUTH_MODE": "token" if guarded else "disabled",
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
        wait_until_up(address, token.read_text(), started, home / "log", not guarded)
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


def wait_until_up(address, token, started, log, insecure):
    for _ in range(3):
        with contextlib.suppress(ValueError):
            return connect(address, token, insecure)
        assert started.poll() is None, log.read_text()
    raise AssertionError(f"no head node yet: {log.read_text()}")


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
