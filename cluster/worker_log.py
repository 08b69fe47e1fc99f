"""A worker's log: all that its process prints, in the run directory, one file a rank."""

import logging
import os
import platform
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cluster import console
from cluster.folder import Folder

LOGS = "logs"
"""Folder of the run directory that holds them."""
SEND_SECONDS = 30.0
"""Between two copies of a log to remote storage; what a killed worker said since the last is lost."""
MOST_BYTES = 4 * 2**20
"""Of a log on remote storage its end is kept: an object cannot be appended to, and so is sent whole each time."""


@contextmanager
def kept(folder: Folder, rank: int) -> Iterator[None]:
    """Have what this process prints written to ``logs/rank-N.log``, while inside, after what is there.

    Local storage is written to directly, so that the last line before a crash stays; remote storage gets a copy every
    :data:`SEND_SECONDS` and at the end. A log that cannot be written is warned of, and the run goes on.

    Args:
        folder: The run directory.
        rank: The worker's.
    """
    name = f"{LOGS}/rank-{rank}.log"
    with ExitStack() as stack:
        try:
            if folder.is_local:
                path = folder.local / name
                path.parent.mkdir(exist_ok=True)
            else:
                path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="raydeck-log-"))) / "log"
                with suppress(FileNotFoundError):
                    path.write_bytes(folder.read(name))
                stack.enter_context(_sent(path, folder, name))
            stack.enter_context(_into(path))
        except OSError as error:
            console.warn(f"no log of rank {rank} is kept: {' '.join(str(error).split())}")
        try:
            yield
        except Exception:
            with suppress(OSError):
                traceback.print_exc()
            raise


@contextmanager
def _into(path: Path) -> Iterator[None]:
    """Have stdout and stderr of this process, libraries in C included, and logged warnings appended to a file."""
    with path.open("ab", buffering=0) as file:
        began = time.strftime("%Y-%m-%d %H:%M:%S %z")
        file.write(f"--- {began}  process {os.getpid()} on {platform.node()}\n".encode())
        kept = {}
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor in (1, 2):
            kept[descriptor] = os.dup(descriptor)
            os.dup2(file.fileno(), descriptor)
        handler = logging.StreamHandler(os.fdopen(os.dup(2), "w"))  # Ray Train logs to files of its own alone
        handler.setLevel(logging.WARNING)
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)
            for stream in (sys.stdout, sys.stderr, handler.stream):
                with suppress(OSError):
                    stream.flush()
            for descriptor, before in kept.items():
                os.dup2(before, descriptor)
                os.close(before)
            with suppress(OSError):
                handler.stream.close()


@contextmanager
def _sent(path: Path, folder: Folder, name: str) -> Iterator[None]:
    """Copy a file to remote storage now and then, and at the end."""
    done, sent = threading.Event(), 0

    def send() -> None:
        nonlocal sent
        last = False
        while not last:
            last = done.wait(SEND_SECONDS)
            with suppress(OSError):  # the next copy may arrive, and a run does not depend on its log
                content = path.read_bytes()
                if len(content) != sent:
                    folder.write(name, content[-MOST_BYTES:])
                    sent = len(content)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
