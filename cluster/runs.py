"""Run directories: what a run writes down, who may write to it, and how it is found again."""

import csv
import hashlib
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import yaml

from cluster import console
from cluster.checkpoints import Checkpoints
from cluster.failures import is_disk_full
from cluster.folder import Folder

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
RESUMABLE_CHANGES = ("trainer.max_epochs",)
"""Keys that may differ from a run's stored config: they say how far to go, not what is trained."""
HEARTBEAT = 20.0
"""Seconds between signs of life of a run on remote storage; after three without one its lock is void."""

WRITER = ".writer"
"""File that is locked by whatever process writes checkpoints and metrics."""
ORPHANS = 90.0
"""Seconds that a new start waits for workers of an earlier one to end; more than a void lock takes to expire."""
RESERVE, RESERVE_BYTES = ".reserve", 1 << 16
"""File that a run on a local disk gives up when that is full, so that its result can still be written."""


def check_name(name: str) -> str:
    """Return a run's name.

    Raises:
        ValueError: It could leave the storage folder, or hide in it.
    """
    if not NAME.fullmatch(name):
        raise ValueError(
            f"--name {name!r}: a run's name starts with a letter or digit and has at most 128 letters, digits, "
            "'.', '_' or '-'"
        )
    return name


def default_name(workload: str, *parts: Any) -> str:
    """The workload and a short hash of what is to be run, so that the same command finds its run."""
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{workload}-{digest[:8]}"


class Run:
    """A run directory, or a sweep's.

    Args:
        folder: The directory.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    @classmethod
    def find(cls, uri: str) -> "Run":
        """An existing run.

        Raises:
            ValueError: There is none at ``uri``.
        """
        run = cls(Folder(uri))
        if not run.folder.exists("config.yaml"):
            there = "is not a run directory (it has no config.yaml)" if run.folder.exists() else "does not exist"
            raise ValueError(f"{uri} {there}; `raydeck train` prints the directory of its run")
        return run

    def stored(self) -> tuple[str, dict[str, Any]]:
        """The workload's name and the config that the run was started with.

        Raises:
            ValueError: config.yaml is not readable as a config.
        """
        try:
            values = yaml.safe_load(self.folder.read("config.yaml"))
            return values.pop("workload"), values
        except (yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
            raise ValueError(f"{self.folder}/config.yaml is not a run's config") from None

    def check(
        self, workload: str, config: dict[str, Any], free: Collection[str] = RESUMABLE_CHANGES, kind: str = "run"
    ) -> None:
        """Refuse to go on with a run of another config; the keys in ``free`` may differ.

        Raises:
            ValueError: The directory belongs to another workload or config; names the keys that differ.
        """
        if not self.folder.exists("config.yaml"):
            return
        name, stored = self.stored()
        if name != workload:
            raise ValueError(f"{kind} {self.folder} is of workload {name!r}, not {workload!r}; give another --name")
        differing = [key for key in differences(stored, config) if key not in free]
        if differing:
            raise ValueError(
                f"{kind} {self.folder} was started with another {', '.join(differing)}; "
                "give another --name, or the stored values to go on"
            )

    def start(self, workload: str, config: dict[str, Any], text: str) -> None:
        """Claim the directory for a config, ``text`` as YAML, or go on with one that is this config's already.

        Raises:
            ValueError: It cannot be written, or belongs to another config.
        """
        self.check(workload, config)
        self.folder.make()
        self.folder.write("config.yaml", text.encode())
        if self.folder.is_local:
            self.folder.write(RESERVE, os.urandom(RESERVE_BYTES), durable=False)

    def result(self) -> dict[str, Any]:
        """``result.json``; empty if there is none yet."""
        try:
            return json.loads(self.folder.read("result.json"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def is_done(self, config: dict[str, Any]) -> bool:
        """Whether it is finished, and a config asks for no more epochs."""
        done = self.result().get("status") == "finished"
        return done and config["trainer"]["max_epochs"] <= self.stored()[1]["trainer"]["max_epochs"]

    def write_result(self, **values: Any) -> dict[str, Any]:
        """Update ``result.json``."""
        result = self.result() | values
        content = json.dumps(result, indent=1).encode()
        try:
            self.folder.write("result.json", content)
        except OSError as error:
            if not is_disk_full(error) or not self.folder.exists(RESERVE):
                raise
            self.folder.remove(RESERVE)
            self.folder.write("result.json", content)
        return result

    def history(self) -> list[dict[str, float]]:
        """The epochs in ``metrics.csv``; an unmeasured metric is left out."""
        try:
            lines = self.folder.read("metrics.csv").decode().splitlines()
        except FileNotFoundError:
            return []
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(lines)]

    def checkpoints(self, mode: Literal["min", "max"], keep: int = 1, span: int = 0) -> Checkpoints:
        return Checkpoints(self.folder / "checkpoints", mode, keep, span)

    @contextmanager
    def lock(self, patience: float = 0) -> Iterator[None]:
        """Be the run's only writer. The lock of a crashed process is void.

        A ValueError inside, before the run has a config, leaves no folder behind.

        Args:
            patience: Seconds to wait for another process that is about to end.

        Raises:
            ValueError: Another process is running it.
        """
        storage = self.folder.local.parent if self.folder.is_local else None
        new_storage = storage is not None and not storage.exists()
        self.folder.make()
        with self._held(".lock", patience):
            try:
                yield
            except ValueError:
                if not self.folder.exists("config.yaml"):
                    self.folder.fs.rm(self.folder.path, recursive=True)
                    if new_storage and not any(storage.iterdir()):
                        storage.rmdir()
                raise

    @contextmanager
    def writing(self, patience: float = ORPHANS) -> Iterator[None]:
        """Be the only process that writes checkpoints and metrics, once workers that an earlier start left have ended.

        The process that starts workers holds :meth:`lock`, and may be killed while they go on.

        Args:
            patience: Seconds to wait for them.

        Raises:
            ValueError: They are still there.
        """
        with self._held(WRITER, patience):
            yield

    def wait_for_orphans(self) -> None:
        """Wait until no worker that an earlier start left writes any more.

        Raises:
            ValueError: One does for longer than that takes.
        """
        if not self.folder.exists(WRITER):
            return
        try:
            with self.writing(patience=0):
                return
        except ValueError:
            console.say("waiting for a worker of an earlier start to end")
        with self.writing():
            return

    def _held(self, file: str, patience: float) -> AbstractContextManager[None]:
        return (_local_lock if self.folder.is_local else _remote_lock)(self.folder, file, patience)


def differences(stored: dict[str, Any], config: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys whose values differ."""
    keys: list[str] = []
    for key in [*config, *(k for k in stored if k not in config)]:
        a, b = stored.get(key), config.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            keys += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            keys.append(f"{prefix}{key}")
    return keys


@contextmanager
def _local_lock(folder: Folder, name: str, patience: float) -> Iterator[None]:
    import fcntl  # the kernel gives an flock back when its process dies, however it dies

    def taken() -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            return False

    with (folder.local / name).open("a+") as file:
        if not _within(patience, taken):
            file.seek(0)
            raise ValueError(
                f"run {folder} is running already ({file.read().strip()}); wait for it or stop it"
            ) from None
        file.truncate(0)
        file.write(_owner())
        file.flush()
        yield


def _within(seconds: float, done: Callable[[], bool]) -> bool:
    """Try until it is done or the time is over; at least once."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def _remote_lock(folder: Folder, name: str, patience: float) -> Iterator[None]:
    mine = f"{_owner()} {os.urandom(4).hex()}"
    began = time.monotonic()

    def beat() -> None:
        told = {"owner": mine, "time": time.time(), "process": os.getpid(), "place": process_place()}
        folder.write(name, json.dumps(told).encode())

    def other() -> str | None:
        try:
            held = json.loads(folder.read(name))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        here = process_place()
        ended = here and held.get("place") == here and not os.path.exists(f"/proc/{held['process']}")
        alive = time.time() - held["time"] < 3 * HEARTBEAT and held["owner"] != mine and not ended
        return held["owner"] if alive else None

    def refuse_other() -> None:
        if owner := other():
            raise ValueError(f"run {folder} is running already ({owner}), or died less than a minute ago; wait for it")

    _within(patience, lambda: other() is None)
    refuse_other()
    beat()
    # Not every store has an exclusive create: of two at once, the later write stays. It is later by no more than what
    # the other took for a look and a write.
    time.sleep(max(0.5, 2 * (time.monotonic() - began)))
    refuse_other()
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(HEARTBEAT):
            with suppress(OSError):  # the next may succeed; a lock is void only after three
                beat()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with suppress(OSError):  # it expires by itself
            folder.remove(name)


def process_place() -> str | None:
    """Where a process's number means this process; None where that cannot be told."""
    try:
        return f"{socket.gethostname()} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()} " + os.readlink(
            "/proc/self/ns/pid"
        )
    except OSError:
        return None


def _owner() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def provenance() -> dict[str, Any]:
    """Versions and, in a git checkout, the commit, as ``result.json`` keeps them."""
    from importlib.metadata import version

    packages = ("raydeck", "torch", "pytorch-lightning", "ray")
    here = Path(__file__).resolve().parent.parent
    git = subprocess.run(
        ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        capture_output=True, text=True, check=False,
    ) if (here / ".git").exists() else None  # fmt: skip
    return {
        "versions": {package: version(package) for package in packages},
        "git": git.stdout.strip() or None if git else None,
    }
