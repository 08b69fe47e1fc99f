"""One attempt of a run by Ray Train: what its workers do, and why it failed if it did."""

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from cluster import console, elastic, preflight, worker_console, worker_log
from cluster.attempts import Account
from cluster.elastic import STOP
from cluster.failures import HUNG, OOM_BY_KERNEL, Failure, RunFailed, classify, oom_kills
from cluster.folder import Folder
from cluster.runs import Run
from cluster.session import Session, Stopped, ddp_options
from cluster.watchdog import PART, Watchdog
from cluster.worker import Job, fit

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

STACKS = "stacks"
"""Folder in the run directory with the stacks of all ranks, a folder an attempt in which a rank hung."""


class TrainSession(Session):
    """A worker of Ray Train. It is asked to stop through a file in the run directory, or by a notice to its node.

    Args:
        run: The run.
        watchdog: Its rank's.
        speaker: Its way to the driver's terminal; None to be silent.

    Attributes:
        moves: Whether a notice to the node stops the run, for its launcher to go on with it elsewhere.
    """

    moves = True

    def __init__(self, run: Run, watchdog: Watchdog, speaker: worker_console.Speaker | None = None) -> None:
        self.run, self.watchdog, self.speaker = run, watchdog, speaker
        self.signum, self.done = 0, threading.Event()
        self.shows_progress = speaker is not None

    def begin(self) -> None:
        self.watchdog.begin()

    def beat(self) -> None:
        self.watchdog.beat()

    def rest(self) -> None:
        self.watchdog.rest()

    def trainer_arguments(self, accelerator: str, find_unused_parameters: bool) -> dict[str, Any]:
        from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

        return {
            "accelerator": accelerator,
            "devices": "auto",
            "strategy": RayDDPStrategy(**ddp_options(find_unused_parameters)),
            "plugins": [RayLightningEnvironment()],
        }

    def progress(self, total: int, done: int, shown: bool) -> console.Progress:
        if self.speaker is None:
            return super().progress(total, done, shown)
        return worker_console.RelayedProgress(total, shown, self.speaker)

    def asked_to_stop(self) -> int:
        return self.signum

    @contextmanager
    def watching(self, rank: int, local_rank: int) -> Iterator[None]:
        """Look while inside for the stop file, on rank 0, and for a notice, once a node: the Recorder tells the others.

        What is said is kept.

        Args:
            rank: Of this worker.
            local_rank: Its rank among those of its node.
        """

        def watch() -> None:
            while not self.done.wait(1.0):
                with suppress(OSError):  # storage that fails now may answer in a second
                    if rank == 0 and self.run.folder.exists(STOP):
                        self.signum = int(self.run.folder.read(STOP))
                        return
                if self.moves and local_rank == 0 and not self.signum and elastic.leaving():
                    self.signum = elastic.MOVE

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            with ExitStack() as stack:
                if self.speaker is not None:
                    stack.enter_context(self.speaker.speaking(rank))
                stack.enter_context(worker_log.kept(self.run.folder, rank))
                yield
        finally:
            self.done.set()
            thread.join()


def _worker(given: dict[str, Any]) -> None:
    """What each worker of Ray Train runs."""
    import ray.train

    job: Job = given["job"]
    job.go_there()
    run = Run(Folder(job.directory))
    context = ray.train.get_context()
    rank = context.get_world_rank()
    stacks = run.folder / STACKS / context.get_experiment_name()
    watchdog = Watchdog(stacks, rank, PART * job.placement.collective_timeout)
    session: TrainSession = given["make_session"](run, watchdog)
    try:
        with (
            run.writing() if rank == 0 else nullcontext(),
            session.watching(rank, context.get_local_rank()),
            watchdog.watching(),
        ):
            if rank == 0:
                Account(run.folder).start()
            fit(job, session)
    except Stopped:
        return  # saved; an exception would be taken for a failure
    except Exception as error:
        raise RunFailed(classify(error)) from error  # here, where the error's own cause is still known


def ray_trainer(
    job: Job, name: str, make_session: Callable[[Run, Watchdog], TrainSession], start_minutes: float
) -> "TorchTrainer":
    """Ray Train's trainer of one attempt of a run, whose placement is decided.

    Args:
        job: The run.
        name: What Ray calls it.
        make_session: Makes each worker's session.
        start_minutes: How long Ray Train waits for room.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from cluster.network import Connection

    placement = job.placement
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(60 * start_minutes)
    return TorchTrainer(
        _worker,
        train_loop_config={"job": job, "make_session": make_session},
        torch_config=Connection(timeout_s=placement.collective_timeout),
        scaling_config=ScalingConfig(
            num_workers=placement.workers,
            use_gpu=placement.gpus_per_worker > 0,
            resources_per_worker=preflight.bundle(placement),
        ),
        run_config=RunConfig(
            name=name,
            # On this node, whatever the run's storage: Ray is given no checkpoint, so that what it keeps is of no use,
            # and a call of its own to a storage that fails now and then would end the run.
            storage_path=f"{ray._private.worker._global_node.get_session_dir_path()}/raydeck",
            # Ray Train would retry whatever a worker raised, with as many workers as before, and wait for room once
            # more, and for ever, whenever that timeout has passed. What is worth another attempt is decided elsewhere.
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=0, controller_failure_limit=0),
        ),
    )


def attempt_name(run: Run) -> str:
    """What Ray calls the next attempt: a fresh name each time, as its own snapshot of an earlier one, which may be
    torn, is not to be trusted.
    """
    return f"attempt-{Account(run.folder).attempts + 1}-{uuid.uuid4().hex[:8]}"


def attempt(job: Job, run: Run, make_session: Callable[[Run, Watchdog], TrainSession], start_minutes: float) -> None:
    """Run Ray Train to its end once, off the main thread, where signals remain ours.

    Args:
        job: The run, whose placement is decided.
        run: Its directory.
        make_session: Makes each worker's session.
        start_minutes: How long Ray Train waits for room.

    Raises:
        TimeoutError: Ray Train found no room in time.
        RunFailed: It failed.
    """
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    run.wait_for_orphans()
    name, kills = attempt_name(run), preflight.on_nodes(oom_kills)
    failure = _fit_aside(ray_trainer(job, name, make_session, start_minutes))
    if isinstance(getattr(failure, "controller_failure", None), WorkerGroupStartupTimeoutError):
        raise TimeoutError from failure
    if failure is not None:
        raise RunFailed(explain(failure, run, name, kills)) from failure


def explain(error: BaseException, run: Run, name: str, kills: dict[str, Any]) -> Failure:
    """Why an attempt failed, with what is known outside its workers.

    Args:
        error: What Ray Train raised.
        run: The run's directory.
        name: What Ray called the attempt.
        kills: Number of processes that the kernel had ended for want of memory when it began, asked of every node.
    """
    found = classify(error)
    if found.kind == "lost_worker":
        before, now = preflight.answers(kills), preflight.answers(preflight.on_nodes(oom_kills))
        if any(now[node] > before[node] for node in now.keys() & before.keys()):
            return Failure("out_of_memory", OOM_BY_KERNEL)
    stacks = run.folder / STACKS / name
    if found.retried and stacks.exists():  # NCCL ends the processes that wait, which then look lost
        return Failure("hung", f"{HUNG}; the stacks of all ranks are in {stacks.short()}")
    return found


def _fit_aside(trainer: "TorchTrainer") -> BaseException | None:
    """Run a trainer in a thread of its own; returns what it failed with."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            trainer.fit()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)  # in pieces, so that signals are handled
    return failures[0] if failures else None
