"""Where a run reports and restarts from. Sessions differ in this alone; training itself is `cluster.worker.fit`."""

import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from cluster import console


class Stopped(BaseException):
    """A run was asked to stop, and has saved.

    Args:
        signum: The signal that asked; a process that ends because of it exits with 128 + signum.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Session(ABC):
    """What a run needs to know of its surroundings.

    Attributes:
        final: Whether this is a run whose result counts: it is tested and set beside its baselines. A trial is not;
            choosing between trials must not look at the test split.
        span: Epochs back from the newest of which all checkpoints are kept.
        shows_progress: Whether the run's progress is shown, by rank 0.
    """

    final = True
    span = 0
    shows_progress = True

    @abstractmethod
    def trainer_arguments(self, accelerator: str, find_unused_parameters: bool) -> dict[str, Any]:
        """The Trainer's devices, strategy and plugins."""

    def begin(self) -> None:
        """Called when training starts, after Lightning's own preparations."""
        return

    def progress(self, total: int, done: int, shown: bool) -> console.Progress:
        """Where progress is shown; arguments as of :class:`cluster.console.Progress`."""
        return console.Progress(total, done, shown)

    def beat(self) -> None:
        """Called with every batch: training moves."""
        return

    def rest(self) -> None:
        """Called when training ends: no further batch is to be expected."""
        return

    def asked_to_stop(self) -> int:
        """The signal that asked this process to stop, or 0. The ranks of a run agree on it through the Recorder."""
        return 0

    def report(self, row: dict[str, float], best: dict[str, float]) -> None:
        """Tell the launcher of an epoch; called on every rank, once it is saved.

        Args:
            row: The epoch's line of ``metrics.csv``.
            best: The line of the best epoch so far, empty if there is none yet, and ``num_parameters``.
        """
        return


def ddp_options(find_unused_parameters: bool) -> dict[str, Any]:
    """Options of DistributedDataParallel that every launcher uses.

    Buffers are not broadcast before every forward pass, which costs 7 % of a small network's training on two CPU
    workers; the Recorder does it before every evaluation instead. In between, batch statistics are not read.
    """
    return {"broadcast_buffers": False, "find_unused_parameters": find_unused_parameters}


class LocalSession(Session):
    """This process, without Ray. SIGINT and SIGTERM ask it to save and stop."""

    def __init__(self) -> None:
        self.signum = 0
        self.install: Callable[[], None] = lambda: None

    def trainer_arguments(self, accelerator: str, find_unused_parameters: bool) -> dict[str, Any]:
        return {"accelerator": accelerator, "devices": 1}

    def asked_to_stop(self) -> int:
        return self.signum

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Catch SIGINT and SIGTERM while inside; a second SIGINT interrupts at once."""
        with catch_signals(self._note) as self.install:
            yield

    def begin(self) -> None:
        self.install()  # over Lightning's SIGTERM handler, which would end a validation without saving

    def _note(self, signum: int) -> None:
        self.signum = signum


@contextmanager
def catch_signals(note: Callable[[int], None]) -> Iterator[Callable[[], None]]:
    """Call ``note(signum)`` on the first SIGINT or SIGTERM; a second SIGINT raises KeyboardInterrupt.

    Yields a function that installs the handlers once more, for when a library has put its own in their place. Outside
    the main thread nothing is caught: Python delivers signals to the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    seen: list[int] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        if seen and signum == signal.SIGINT:
            raise KeyboardInterrupt
        if not seen:
            console.say(f"{signal.Signals(signum).name}: saving, then stopping (Ctrl-C again stops without saving)")
        seen.append(signum)
        note(signum)

    def install() -> None:
        for signum in before:
            signal.signal(signum, handle)

    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    install()
    try:
        yield install
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
