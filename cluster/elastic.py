"""With how many workers a run goes on, and when it should save and move: a node is about to be taken away, or there is
room for more workers.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cluster import console
from cluster.placement import Placement
from cluster.preflight import MORE_SECONDS, Claims, bundle, draining, not_placed, wait_for_room
from cluster.runs import Run

STOP = ".stop"
"""File in the run directory that asks the workers to save and stop; holds the signal's number."""
MOVE = int(signal.SIGUSR1)
"""In place of a signal's number: the workers save and end, and the run goes on with others."""
SETTLE_SECONDS = 20
"""Seconds from the start of workers until more are looked for. Each change costs a start."""
SURE_SECONDS = 5
"""How long there has to be room for all before it counts: workers that are ending leave theirs a little earlier."""
ELASTIC_START_MINUTES = 0.5
"""How long an elastic run waits for workers that there was room for, before it looks again for how many there is."""


def leaving() -> bool:
    """Whether the node of this process has been given notice (drained, preempted)."""
    import ray

    try:
        return ray.get_runtime_context().get_node_id() in draining()
    except ray.exceptions.RayError:  # the control store does not answer now
        return False


def keep_going(
    placement: Placement, run: Run, stopped: Callable[[], bool], attempt: Callable[[int, float], None]
) -> None:
    """Have a run trained by as many workers as there is room for, and by others whenever these have saved for that.

    Args:
        placement: Where it happens, decided.
        run: Its directory.
        stopped: Whether it should not go on.
        attempt: Trains with a number of workers until they end, given the minutes that Ray may take to place them;
            raises TimeoutError if it takes longer.

    Raises:
        ValueError: There is no room within ``placement_timeout``.
        Exception: What an attempt raises.
    """
    patience, waited = placement.placement_timeout, 0.0
    if placement.is_elastic:
        patience = min(patience, ELASTIC_START_MINUTES)
    while workers := wait_for_room(placement, stopped):
        if placement.is_elastic:
            console.say(f"training with {workers} worker{'s' if workers > 1 else ''} of {placement.workers}")
        try:
            with watching_for_room(placement, workers, lambda: run.folder.write(STOP, str(MOVE).encode())):
                attempt(workers, patience)
        except TimeoutError as error:  # a moment ago there was room
            waited += patience
            if waited >= placement.placement_timeout:
                raise ValueError(not_placed(placement)) from error
            continue
        finally:
            if not stopped():
                run.folder.remove(STOP)  # that more workers were asked for does not concern the next ones
        if stopped() or run.result().get("status") != "running":
            return
        console.say("saved; going on with other workers")


@contextmanager
def watching_for_room(placement: Placement, workers: int, tell: Callable[[], None]) -> Iterator[None]:
    """Look for room for more workers while inside, and tell of it, once.

    Args:
        placement: Where the run happens.
        workers: Workers that it has.
        tell: Called when there is room for more; from another thread.
    """
    done = threading.Event()

    def watch() -> None:
        if done.wait(SETTLE_SECONDS):
            return
        claims = Claims(bundle(placement), [1] * (placement.most - workers))
        since = None
        try:
            while not done.wait(1.0):
                met = claims.met()
                since = since or (time.monotonic() if any(met) else None)
                if since and time.monotonic() - since > (SURE_SECONDS if all(met) else MORE_SECONDS):
                    break
            else:
                return
        finally:
            claims.release()
        console.say("there is room for more workers: saving")
        tell()

    thread = threading.Thread(target=watch, daemon=True)
    if workers < placement.most:
        thread.start()
    try:
        yield
    finally:
        done.set()
        if thread.ident:
            thread.join()
