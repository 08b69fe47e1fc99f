"""Why a run failed, told apart: what another attempt may mend, and what it would only repeat."""

import errno
import re
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from cluster.retrying import StorageError

Kind = Literal[
    "bad_config", "bad_data", "out_of_memory", "disk_full", "nan_loss", "storage", "no_room", "error",
    "preempted", "hung", "lost_worker",
]  # fmt: skip
"""In order of what explains the others, where workers failed in different ways."""
RETRIED = frozenset({"preempted", "hung", "lost_worker"})
"""What says nothing against another attempt. Of the others the next attempt would fail as well."""
FLAG = re.compile(r"(--[a-z]|(data|model|trainer)\.\w+:)")
"""How the line about a wrong setting begins."""
MEMORY = re.compile(
    r"CUDA out of memory|can't allocate memory|Cannot allocate memory|std::bad_alloc|_ALLOC_FAILED|low on memory"
)
TIMEOUT = re.compile(r"Timed out waiting \d+ ?ms|wait timeout after \d+ ?ms|collective operation timeout|Wait timeout")
LOST = re.compile(
    r"Connection (closed|reset) by peer|Connection refused|Broken pipe|Socket closed|remote process exited"
)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
OOM_COUNTS = ("/sys/fs/cgroup/memory.events", "/proc/vmstat")
"""Where Linux counts the processes it ended for want of memory: those of this container, or of this machine."""
HUNG = "a worker hung: the others waited for it for longer than --collective-timeout"
OOM_BY_RAY = (
    "out of memory: Ray ended a worker because its node ran low; lower data.batch_size, or run fewer workers on a node"
)
OOM_BY_KERNEL = (
    "out of memory: the kernel ended a process where a worker was lost; lower data.batch_size, or run fewer workers on "
    "a node"
)


@dataclass(frozen=True)
class Failure:
    """Why a run, or one attempt of it, failed.

    Args:
        kind: The class of the failure.
        message: One line for people.
    """

    kind: Kind
    message: str

    @property
    def retried(self) -> bool:
        """Whether another attempt may succeed."""
        return self.kind in RETRIED

    @property
    def exit_code(self) -> int:
        """2 for what the user can mend in the command or the data, else 1."""
        return 2 if self.kind in ("bad_config", "bad_data", "no_room") else 1

    def told(self) -> dict[str, Any]:
        """As ``result.json`` keeps it."""
        return asdict(self) | {"exit_code": self.exit_code}

    @classmethod
    def read(cls, told: dict[str, Any]) -> "Failure":
        """From ``result.json``."""
        return cls(told["kind"], told["message"])


class RunFailed(RuntimeError):
    """A run failed, for a reason that is known; its text is the failure's one line.

    Args:
        failure: The reason.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    def __reduce__(self) -> tuple[type, tuple[Failure]]:
        return type(self), (self.failure,)  # it travels from the workers


def classify(error: BaseException) -> Failure:
    """Why something failed: an exception of training itself, or what Ray says of an attempt."""
    by_rank = {rank: _of_worker(rank, failure) for rank, failure in getattr(error, "worker_failures", {}).items()}
    if by_rank:
        kinds = get_args(Kind)
        # Of two lost workers the one whose process is gone is the cause, not the one that lost its connection to it.
        return min(by_rank.values(), key=lambda found: (kinds.index(found.kind), "connection" in found.message))
    return _of_one(error)


def _of_worker(rank: int, error: BaseException) -> Failure:
    found = _of_one(error)
    return Failure(found.kind, found.message.replace("a worker was lost", f"rank {rank} was lost"))


def _of_one(error: BaseException) -> Failure:
    links = list(_links(error))
    for link in links:
        if isinstance(link, RunFailed):
            return link.failure
    for link in links:
        found = _of_ray(link) or _of_machine(link)
        if found:
            return found
    inner, line = links[-1], one_line(links[0])
    if isinstance(error, StorageError):
        return Failure("bad_config" if error.refused else "storage", line)
    if isinstance(error, FloatingPointError):
        return Failure("nan_loss", line)
    if isinstance(error, ValueError):
        return Failure("bad_data" if _is_of_data(error) and not FLAG.match(line) else "bad_config", line)
    return Failure("error", f"{type(inner).__name__}: {one_line(inner)}")


def _of_ray(error: BaseException) -> Failure | None:
    """What Ray says of processes that it started, by the names of its errors: Ray need not be imported."""
    names = {cls.__name__ for cls in type(error).__mro__}
    text = str(error)
    if type(error).__module__.startswith("ray") and ("OutOfMemoryError" in names or MEMORY.search(text)):
        return Failure("out_of_memory", OOM_BY_RAY)
    if "PreemptionError" in names or getattr(error, "preempted", False):
        return Failure("preempted", "a worker was lost: its node was taken back (preemption)")
    if "WorkerHealthCheckTimeoutError" in names:
        return Failure("hung", "a worker hung: it did not answer Ray")
    if "WorkerGroupStartupFailedError" in names:
        return Failure("lost_worker", "a worker was lost while it started")
    if names & {"RayActorError", "NodeDiedError", "ObjectLostError", "WorkerCrashedError"}:
        why = "its node died" if "node has died" in text or "node was" in text else "its process was killed or crashed"
        return Failure("lost_worker", f"a worker was lost: {why}")
    return None


def _of_machine(error: BaseException) -> Failure | None:
    """Memory, disk and the connections between workers."""
    line, name = one_line(error), type(error).__name__
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or MEMORY.search(line):
        asked = re.search(r"tried to allocate [\d.,]+ ?\w+", line, re.IGNORECASE)
        what = f" ({asked[0].lower() if asked else line})" if line != name else ""
        return Failure("out_of_memory", f"out of memory{what}; lower data.batch_size or the size of the model")
    if is_disk_full(error):
        named = getattr(error, "filename2", None) or getattr(error, "filename", None)  # of a copy, where it should go
        place = f" at {named}" if named else ""
        mend = "free some space or name another --storage; the same command goes on from the last checkpoint"
        return Failure("disk_full", f"disk full{place}: {mend}")
    if not isinstance(error, RuntimeError):
        return None
    if TIMEOUT.search(line):
        return Failure("hung", HUNG)
    if LOST.search(line):
        return Failure("lost_worker", "a worker was lost: another one lost its connection to it")
    return None


def is_disk_full(error: BaseException) -> bool:
    """Whether there was no space left, or no quota."""
    return any(isinstance(link, OSError) and link.errno in DISK_FULL for link in _links(error))


def of_text(told: str) -> str:
    """Why a trial failed, in a line, from what Tune keeps of it: a traceback, or a paragraph on a lost process."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    if any("OutOfMemoryError" in line and "torch" not in line for line in lines):
        return "out of memory: Ray ended it; give each trial more, or run fewer at a time (--concurrent)"
    if any("actor died" in line or "ActorDiedError" in line for line in lines):
        return "its process died (out of memory, or killed)"
    last = lines[-1] if lines else "unknown"
    kind, _, message = last.partition(": ")
    if kind.rpartition(".")[2] in ("MemoryError", "OutOfMemoryError"):
        return f"out of memory: {message}" if message else "out of memory"
    return message if message and kind.replace(".", "").isidentifier() else last


def oom_kills() -> int:
    """Processes that the kernel has ended for want of memory so far, in this container or on this machine."""
    for file in OOM_COUNTS:
        try:
            counts = dict(line.split(" ", 1) for line in Path(file).read_text().splitlines())
            return int(counts["oom_kill"])
        except (OSError, KeyError, ValueError):
            continue
    return 0


def one_line(error: BaseException) -> str:
    """An exception's text as one line of reasonable length; its class if it has none."""
    return " ".join(str(error).split())[:400] or type(error).__name__


def _is_of_data(error: BaseException) -> bool:
    """Whether an exception was raised where data is read."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__", "").startswith("workloads.data") for frame, _ in frames)


def _links(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it, as Python or as Ray chains them."""
    link: BaseException | None = error
    while isinstance(link, BaseException):
        yield link
        named = (getattr(link, name, None) for name in ("controller_failure", "health_check_failure", "cause"))
        link = next((inner for inner in named if isinstance(inner, BaseException)), None) or link.__cause__
