"""What the workers of a run have to say, shown as if it came from one: a live bar, notices, each warning once.

Workers tell an actor, without waiting for it; the driver asks that actor. So it costs the same whatever the storage and
however many workers there are: two bars a second from rank 0, and nothing where no terminal shows them.
"""

import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from cluster import console
from cluster.folder import Folder
from cluster.worker_log import LOGS

BAR_SECONDS = 0.5
"""Between two states of the bar that a worker sends, and between two questions of the driver."""
ANSWER_SECONDS = 5
MOST_LINES = 1000
"""Lines that the actor holds for a driver that does not ask; further ones are in the workers' logs alone."""

Bar = tuple[int, int, str]
"""Batches done, batches of the whole run, and what stands beside the bar."""


class Relay:
    """Holds what workers say until the driver takes it; an actor."""

    def __init__(self) -> None:
        self.bar: Bar | None = None
        self.lines: list[tuple[console.Kind, str]] = []

    def show(self, bar: Bar) -> None:
        self.bar = bar

    def tell(self, kind: console.Kind, text: str) -> None:
        if len(self.lines) < MOST_LINES:
            self.lines.append((kind, text))

    def take(self) -> tuple[Bar | None, list[tuple[console.Kind, str]]]:
        """What is new since the last call."""
        told = self.bar, self.lines
        self.bar, self.lines = None, []
        return told


@dataclass(frozen=True)
class Speaker:
    """A worker's way to the driver's terminal.

    Args:
        relay: Handle of a :class:`Relay`.
        live: Whether there is a terminal, which shows a bar.
    """

    relay: Any
    live: bool

    @contextmanager
    def speaking(self, rank: int) -> Iterator[None]:
        """Have this process's notices, if it is rank 0, and its warnings told to the driver, while inside."""

        def tell(kind: console.Kind, text: str) -> None:
            with suppress(OSError):  # the log is on a disk that may be full, which is no reason to end a run
                console.to_stderr(kind, text)
            if kind == "warning" or rank == 0:
                self.relay.tell.remote(kind, text)

        def show(message: Warning | str, *_: Any, **__: Any) -> None:
            console.warn(" ".join(str(message).split()))

        before, warnings.showwarning = warnings.showwarning, show
        try:
            with console.told_to(tell):
                yield
        finally:
            warnings.showwarning = before
            self._arrive()

    def _arrive(self) -> None:
        """Wait until what was said has arrived: this process may end right after."""
        import ray

        with suppress(ray.exceptions.RayError):  # the run does not depend on it
            ray.get(self.relay.tell.remote("notice", ""), timeout=ANSWER_SECONDS)


class RelayedProgress(console.Progress):
    """Progress of a run that a terminal elsewhere shows.

    Args:
        total: Batches of the whole run.
        shown: False for workers that should be silent.
        speaker: The way there.
    """

    def __init__(self, total: int, shown: bool, speaker: Speaker) -> None:
        self.total, self.shown, self.speaker, self.updated = total, shown, speaker, 0.0

    def due(self) -> bool:
        return self.shown and self.speaker.live and time.monotonic() - self.updated > BAR_SECONDS

    def step(self, done: int, text: str, total: int | None = None) -> None:
        self.updated = time.monotonic()
        self.speaker.relay.show.remote((done, total or self.total, text))

    def epoch(self, text: str) -> None:
        if self.shown:
            console.say(text)

    def close(self) -> None:
        return


class Board:
    """What the driver shows: the bar, the notices, and each warning once, whichever ranks and attempts repeat it."""

    def __init__(self) -> None:
        self.progress = console.Progress(None, 0, shown=True)
        self.warned: set[str] = set()

    def show(self, bar: Bar | None, lines: list[tuple[console.Kind, str]]) -> None:
        for kind, text in lines:
            if not text or text in self.warned:
                continue
            if kind == "warning":
                self.warned.add(text)
                text = f"warning: {text}"
            self.progress.epoch(text)
        if bar is not None:
            done, total, text = bar
            self.progress.step(done, text, total)


@contextmanager
def shown(folder: Folder) -> Iterator[Speaker]:
    """Show what the workers of a run say, while inside; yields what they say it with.

    Args:
        folder: The run directory; a failure tells of the logs in it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Here if possible: it shall not be lost with a worker's node. If it is, a new one takes over, with nothing to say.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    relay = ray.remote(num_cpus=0, max_restarts=-1)(Relay).options(scheduling_strategy=here).remote()
    board, done = Board(), threading.Event()

    def follow() -> None:
        last = False
        while not last:
            last = done.wait(BAR_SECONDS)
            with suppress(ray.exceptions.RayError):
                board.show(*ray.get(relay.take.remote(), timeout=ANSWER_SECONDS))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    failed = False
    try:
        yield Speaker(relay, live=sys.stderr.isatty())
    except Exception as error:
        failed = not isinstance(error, ValueError)
        raise
    finally:
        done.set()
        thread.join()
        board.progress.close()
        ray.kill(relay)
        if failed and folder.exists("config.yaml") and folder.exists(LOGS):  # a run that has not begun leaves nothing
            console.say(f"what the workers printed is in {folder.short()}/{LOGS}")
