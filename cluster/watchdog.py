"""Where every rank stood when training stopped moving: the stacks of all threads, a file a rank."""

import faulthandler
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.folder import Folder
from cluster.runs import process_place

PART = 0.7
"""Part of the collective timeout after which stacks are taken: before the ranks that wait give up and are ended."""
PATIENCE = 2.0
"""Seconds that a rank has to write down its own stacks, before another one on its node looks at it from outside."""


@dataclass(frozen=True)
class Peer:
    """A rank's process.

    Args:
        rank: The rank.
        place: Where its number means it; None where that cannot be told.
        process: Its number.
    """

    rank: int
    place: str | None
    process: int


class Watchdog:
    """Watches one rank from a thread of its own, and writes its stacks down once no batch has ended for too long.

    A rank whose own thread cannot run, as its process is stopped or a C extension keeps Python's lock, is looked at
    from outside with py-spy, by the lowest rank on its node that can.

    Args:
        folder: Where stacks are written, as ``rank-0.txt`` and so on.
        rank: This process's rank.
        seconds: Seconds without a batch after which stacks are taken.
    """

    def __init__(self, folder: Folder, rank: int, seconds: float) -> None:
        self.folder, self.rank, self.seconds = folder, rank, seconds
        self.peers: list[Peer] = []
        self.beaten: float | None = None
        self.done = threading.Event()

    def begin(self) -> None:
        """Training begins: tell the other ranks where this one is. A collective operation."""
        import torch.distributed as dist

        found: list[Peer] = [Peer(self.rank, process_place(), os.getpid())]
        if dist.is_initialized():
            found *= dist.get_world_size()
            dist.all_gather_object(found, Peer(self.rank, process_place(), os.getpid()))
        self.peers = found
        self.beat()

    def beat(self) -> None:
        """Training moves."""
        self.beaten = time.monotonic()

    def rest(self) -> None:
        """Nothing is to be expected until the next beat."""
        self.beaten = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch, daemon=True, name="raydeck-watchdog")
        thread.start()
        try:
            yield
        finally:
            self.done.set()
            thread.join()

    def _watch(self) -> None:
        while not self.done.wait(min(1.0, self.seconds / 4)):
            beaten = self.beaten
            if beaten is not None and time.monotonic() - beaten > self.seconds:
                self._take()
                return  # the first stall of an attempt is the one that ends it

    def _take(self) -> None:
        self.folder.create()
        self._write(self.rank, own_stacks())
        time.sleep(PATIENCE)
        place = process_place()
        neighbours = [peer for peer in self.peers if place is not None and peer.place == place]
        silent = [peer for peer in neighbours if not self.folder.exists(file_of(peer.rank))]
        if self.rank == min((peer.rank for peer in neighbours if peer not in silent), default=self.rank):
            for peer in silent:
                self._write(peer.rank, stacks_of(peer.process))

    def _write(self, rank: int, text: str) -> None:
        self.folder.write(file_of(rank), text.encode())


def file_of(rank: int) -> str:
    return f"rank-{rank}.txt"


def own_stacks() -> str:
    """The stacks of all threads of this process."""
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return f"process {os.getpid()}\n{file.read().decode(errors='replace')}"


def stacks_of(process: int) -> str:
    """The stacks of another process on this machine, as py-spy reads them without stopping it; or why it could not."""
    command = Path(sys.executable).with_name("py-spy")  # comes with ray[default]
    try:
        told = subprocess.run(
            [command, "dump", "--nonblocking", "--pid", str(process)],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"process {process} did not run, and could not be read from outside: {error}\n"
    return f"process {process} did not run, and was read from outside\n{told.stdout or told.stderr}"
