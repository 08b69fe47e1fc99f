"""What a run writes while it trains: on remote storage in the background, and without ending the run if it fails."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from cluster import console
from cluster.failures import is_disk_full


class Writer:
    """Writes one thing after the other. An error is warned of once a kind and counted, and training goes on.

    But not on a full disk, which only a person can mend.

    What failed last of each kind is tried once more at the end, unless something newer of its kind was written since.

    Args:
        background: Whether to write while training goes on. At most one save is under way: the next one waits.
    """

    def __init__(self, background: bool) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="raydeck-writer") if background else None
        self.pending: Future[None] | None = None
        self.errors: Counter[str] = Counter()
        self.failed: dict[str, Callable[[], None]] = {}

    @property
    def busy(self) -> bool:
        return self.pending is not None and not self.pending.done()

    def put(self, *tasks: tuple[str, Callable[[], None]]) -> None:
        """Write things of the named kinds, in order, once what came before is done."""
        self.wait()
        if self.pool is None:
            self._work(tasks)
        else:
            self.pending = self.pool.submit(self._work, tasks)

    def wait(self) -> None:
        """Until nothing is under way.

        Raises:
            OSError: The disk is full; other errors of storage are not raised.
            Exception: A mistake of ours in the background.
        """
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()

    def finish(self, *kinds: str) -> None:
        """Wait, and write once more what failed last of these kinds.

        Raises:
            OSError: It failed again: the final state is not stored.
        """
        self.wait()
        for kind in kinds:
            if kind in self.failed:
                self.failed[kind]()
                del self.failed[kind]

    def close(self) -> None:
        """Wait for what is under way, and end."""
        if self.pool is not None:
            self.pool.shutdown(wait=True)

    def _work(self, tasks: tuple[tuple[str, Callable[[], None]], ...]) -> None:
        for kind, task in tasks:
            try:
                task()
            except OSError as error:
                if is_disk_full(error):
                    raise  # the next save would find no more space, and what is trained until then would be lost
                self.failed[kind] = task
                if not self.errors[kind]:
                    reason = " ".join(str(error).split())
                    console.warn(f"{kind} not saved; training goes on and the next save tries again: {reason}")
                self.errors[kind] += 1
            else:
                self.failed.pop(kind, None)
