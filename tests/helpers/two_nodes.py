"""Two Ray nodes on one machine, each in a network namespace of its own, joined by a virtual cable.

Each node has its own interfaces, addresses and ports, as on a machine of its own; the file system is shared.
Needs root on Linux.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BINARIES = Path(sys.executable).parent
HEAD, DASHBOARD = "10.77.0.1:6379", "http://10.77.0.1:8265"
ALIVE = f"""
import json
from ray._raylet import GcsClient
from ray.core.generated.gcs_pb2 import GcsNodeInfo

found = GcsClient(address="{HEAD}").get_all_node_info(timeout=10)
print(json.dumps([(n.node_manager_address, i.hex()) for i, n in found.items() if n.state == GcsNodeInfo.ALIVE]))
"""
QUICK = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "1000",
         "RAY_health_check_failure_threshold": "5", "RAY_health_check_initial_delay_ms": "1000"}  # fmt: skip
"""A lost node is noticed after some 5 s instead of the 15 to 25 s that Ray takes by default."""


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True).stdout


def why_not():
    """Why namespaces cannot be made here; empty if they can."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        return "needs Linux with iproute2"
    name = f"rd-{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    entered = subprocess.run(["ip", "netns", "exec", name, "true"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return (made.stderr + entered.stderr).strip()


def command_of(pid):
    """Command line of a process; empty if it has ended, also if nobody has asked about it yet."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def end_all(space):
    """Kill every process in a namespace."""
    for _ in range(50):
        pids = ip("netns", "pids", space, check=False).split()
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.05)


def sweep():
    """Remove what a test that was killed has left: a namespace is named for the process that made it."""
    for line in ip("netns", "list").splitlines():
        made = re.fullmatch(r"rd-(\d+)-[0-9a-f]{4}-[01]", line.split()[0])
        if made and not command_of(made[1]):
            end_all(made[0])
            ip("netns", "del", made[0], check=False)


class TwoNodes:
    """The nodes 0 (the head, where commands are typed) and 1.

    Args:
        home: Folder for Ray's files and the token; its path must be short.
        cpus: CPUs that each node offers.
        settings: Environment of the nodes.
    """

    def __init__(self, home, cpus=1, settings=QUICK):
        self.home, self.cpus = home, cpus
        self.spaces = [f"rd-{os.getpid()}-{secrets.token_hex(2)}-{k}" for k in range(2)]
        self.starts = 0
        self.children = []
        token = home / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "GLOO_"))}
        self.environment = kept | {
            "PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}",
            "RAY_ADDRESS": HEAD, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token),
        }  # fmt: skip
        self.settings = settings

    def build(self):
        for space in self.spaces:
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
        a, b = self.spaces
        ip("link", "add", "cable0", "netns", a, "type", "veth", "peer", "name", "cable1", "netns", b)
        for k, space in enumerate(self.spaces):
            # The interfaces' names differ, so that no one name serves both nodes.
            ip("-n", space, "addr", "add", f"10.77.0.{k + 1}/24", "dev", f"cable{k}")
            ip("-n", space, "link", "set", f"cable{k}", "up")

    def popen(self, *arguments, node=0, **options):
        """Start a command in a node's network."""
        environment = self.environment | options.pop("environment", {})
        command = ["ip", "netns", "exec", self.spaces[node], *map(str, arguments)]
        child = subprocess.Popen(command, env=environment, start_new_session=True, **options)
        self.children.append(child)
        return child

    def run(self, *arguments, seconds=60, **options):
        child = self.popen(*arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
        out = child.communicate(timeout=seconds)[0]
        assert child.returncode == 0, out
        return out

    def start(self, node):
        """Start the Ray node of a namespace, and wait until the cluster knows it."""
        self.starts += 1
        before = self.alive() if node else []
        where = ["--head", "--port=6379", "--dashboard-host=10.77.0.1"] if node == 0 else [f"--address={HEAD}"]
        with (self.home / f"log-{self.starts}").open("wb") as log:
            child = self.popen(
                BINARIES / "ray", "start", *where, "--block", f"--node-ip-address=10.77.0.{node + 1}",
                f"--num-cpus={self.cpus}", f"--temp-dir={self.home / str(self.starts)}", "--disable-usage-stats",
                "--object-store-memory=100000000", node=node, environment=self.settings, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while not set(self.alive()) - set(before):
            assert child.poll() is None and time.monotonic() < deadline, (self.home / f"log-{self.starts}").read_text()

    def alive(self):
        """Address and id of each node that the cluster holds for alive."""
        child = self.popen(sys.executable, "-c", ALIVE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return [tuple(node) for node in json.loads(child.communicate(timeout=60)[0] or "[]")]

    def processes(self, node):
        """Command lines of a node's processes."""
        return [command_of(pid) for pid in ip("netns", "pids", self.spaces[node]).split()]

    def kill(self, node):
        """End all processes of a node at once, as a machine that loses its power; returns the time."""
        now = time.time()
        end_all(self.spaces[node])
        return now

    def drain(self, node, seconds):
        """Give notice that a node will be taken away in that many seconds; returns the time."""
        (node_id,) = [found for address, found in self.alive() if address == f"10.77.0.{node + 1}"]
        now = time.time()
        self.run(BINARIES / "ray", "drain-node", f"--address={HEAD}", f"--node-id={node_id}",
                 "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=test",
                 f"--deadline-remaining-seconds={seconds}")  # fmt: skip
        return now

    def remove(self):
        for space in self.spaces:
            end_all(space)
            ip("netns", "del", space, check=False)  # the cable goes with it
        for child in self.children:
            child.wait(10)
            if child.stdout:
                child.stdout.close()


@contextlib.contextmanager
def running(cpus=1, settings=QUICK):
    """The nodes, up; nothing of them is left after the block, however it ends."""
    sweep()
    home = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))  # Ray's sockets need a short path
    nodes = TwoNodes(home, cpus, settings)
    try:
        nodes.build()
        for node in range(2):
            nodes.start(node)
        yield nodes
    finally:
        nodes.remove()
        shutil.rmtree(home, ignore_errors=True)
