"""When a run should save and move: its node is about to be taken away, or there is room for more workers."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cluster.placement import Placement
from cluster.preflight import MORE_SECONDS, Claims, bundle, draining

MOVE = int(signal.SIGUSR1)
"""In place of a signal's number: the workers save and end, and the run goes on with others."""
SETTLE_SECONDS = 20
"""Seconds from the start of workers until more are looked for. Each change costs a start."""


def leaving() -> bool:
    """Whether the node of this process has been given notice (drained, preempted)."""
    import ray

    return ray.get_runtime_context().get_node_id() in draining()


def was_taken_away(failure: BaseException) -> bool:
    """Whether what ended a run's workers is that the notice given to a node has run out."""
    from ray.train import PreemptionError

    lost = getattr(failure, "worker_failures", {}).values()
    causes = [getattr(error, "health_check_failure", error) for error in lost]
    return isinstance(failure, PreemptionError) or any(getattr(cause, "preempted", False) for cause in causes)


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
                if all(met) or (since and time.monotonic() - since > MORE_SECONDS):
                    break
            else:
                return
        finally:
            claims.release()
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
