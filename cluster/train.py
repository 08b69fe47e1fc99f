"""One run: in this process, or by Ray Train on a cluster."""

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cluster import console, elastic, preflight
from cluster.access import address_of, check_access
from cluster.elastic import STOP
from cluster.folder import Folder
from cluster.placement import Placement
from cluster.retrying import StorageError
from cluster.runs import Run
from cluster.session import LocalSession, Session, Stopped, catch_signals, ddp_options
from cluster.worker import Job, fit
from workloads._machine import available_cpus

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

FAULT = ".fault"
"""File in the run directory with the one line that a worker has for the user."""


def train(job: Job) -> dict[str, Any]:
    """Do a run, or go on with it, where its placement says.

    Returns:
        ``result.json``.

    Raises:
        ValueError: The user's settings or data are at fault; nothing has been written.
        Stopped: The run was asked to stop, and has saved.
        RuntimeError: The run failed.
    """
    run = Run(Folder(job.directory))
    with run.lock():
        try:
            return _train_by_ray(job, run) if uses_ray(job.placement) else _train_here(job)
        except Stopped:
            run.write_result(status="stopped")
            raise
        except (ValueError, StorageError):
            raise  # a mistake of the user's, not a failure of the run; or there is nowhere to write it down
        except Exception as error:
            run.write_result(status="failed", error=f"{type(error).__name__}: {error}")
            raise


def uses_ray(placement: Placement) -> bool:
    """More than one worker, or a cluster named by flag or environment; otherwise a run needs no Ray."""
    return placement.most > 1 or bool(placement.address or os.environ.get("RAY_ADDRESS"))


def _train_here(job: Job) -> dict[str, Any]:
    placement = job.placement
    if placement.gpus_per_worker not in ("auto", 0):
        import torch

        refuse_excess("GPUs", placement.gpus_per_worker, min(1, torch.cuda.device_count()), "this process has")
    refuse_excess("CPUs", placement.cpus_per_worker, available_cpus(), "this machine has")
    if placement.gpus_per_worker == 0:
        job = replace(job, placement=replace(placement, accelerator="cpu"))
    session = LocalSession()
    with session.signals():
        return fit(job, session)


def refuse_excess(what: str, wanted: float, available: float, has: str) -> None:
    """Raise ValueError if more is wanted than there is."""
    if wanted > available:
        raise ValueError(f"{wanted:g} {what} are asked for and {has} {available:g}; ask for fewer workers or less each")


@contextmanager
def connected(placement: Placement) -> Iterator[dict[str, float]]:
    """Ray, started here or joined, for as long as the block lasts; yields the cluster's resources.

    Raises:
        ValueError: The cluster cannot be joined, or is open to everybody and ``--insecure`` does not accept it.
    """
    import logging

    import ray

    address = address_of(placement)
    started_here = not ray.is_initialized()
    if started_here:
        if address != "local":
            check_access(address, placement.insecure)
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
        if address == "local":
            options |= {"include_dashboard": False, "num_cpus": available_cpus()}
        try:
            ray.init(address=address, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ValueError(f"no Ray cluster at {address}: {' '.join(str(error).split())[:300]}") from None
    try:
        yield ray.cluster_resources()
    finally:
        if started_here:
            ray.shutdown()


def place(placement: Placement, resources: dict[str, float]) -> Placement:
    """Decide CPUs and GPUs of each worker from what a cluster has.

    Returns:
        The placement with ``cpus_per_worker``, ``gpus_per_worker`` (a number) and ``accelerator`` decided.

    Raises:
        ValueError: The cluster cannot hold it, even when idle.
    """
    workers, cpus, gpus = placement.fewest, resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    per_worker = placement.gpus_per_worker
    if per_worker == "auto":
        per_worker = 1.0 if placement.accelerator != "cpu" and gpus >= workers else 0.0
    if placement.accelerator == "gpu" and per_worker == 0:
        raise ValueError(f"--accelerator gpu: {workers} workers need a GPU each and the cluster has {gpus:g}")
    refuse_excess("GPUs", workers * per_worker, gpus, "the cluster has")
    refuse_excess("CPUs", workers * max(1, placement.cpus_per_worker), cpus, "the cluster has")
    each = placement.cpus_per_worker or max(1, int(cpus // placement.most))
    accelerator = "gpu" if per_worker else "cpu"
    return replace(placement, cpus_per_worker=each, gpus_per_worker=per_worker, accelerator=accelerator)


class TrainSession(Session):
    """A worker of Ray Train. It is asked to stop through a file in the run directory, or by a notice to its node.

    Attributes:
        moves: Whether a notice to the node stops the run, for its launcher to go on with it elsewhere.
    """

    shows_progress = False
    moves = True

    def __init__(self, run: Run) -> None:
        self.run, self.signum, self.done = run, 0, threading.Event()

    def trainer_arguments(self, accelerator: str, find_unused_parameters: bool) -> dict[str, Any]:
        from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

        return {
            "accelerator": accelerator,
            "devices": "auto",
            "strategy": RayDDPStrategy(**ddp_options(find_unused_parameters)),
            "plugins": [RayLightningEnvironment()],
        }

    def asked_to_stop(self) -> int:
        return self.signum

    @contextmanager
    def watching(self, rank: int, local_rank: int) -> Iterator[None]:
        """Look while inside for the stop file, on rank 0, and for a notice, once a node: the Recorder tells the others.

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
    session: TrainSession = given["make_session"](run)
    try:
        with session.watching(rank, context.get_local_rank()):
            fit(job, session)
    except Stopped:
        return  # saved; an exception would be taken for a lost worker and tried again
    except ValueError as error:
        # The data and the settings are the same on every rank and in every attempt: trying again would not help.
        if rank == 0:
            run.folder.write(FAULT, str(error).encode())


def _train_by_ray(job: Job, run: Run) -> dict[str, Any]:
    if address_of(job.placement) == "local":
        refuse_excess("workers", job.placement.fewest, available_cpus(), "this machine has CPUs for")
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    os.environ.setdefault("RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING", "0")
    stopped_by: list[int] = []

    def ask_to_stop(signum: int) -> None:
        stopped_by.append(signum)
        run.folder.write(STOP, str(signum).encode())

    for left in (STOP, FAULT):
        run.folder.remove(left)
    with connected(job.placement) as resources:
        placed = preflight.fit(job.placement, place(job.placement, resources), preflight.nodes())
        preflight.quick(placed, job.directory)
        try:
            with _following(run), catch_signals(ask_to_stop):
                _run_trainer(replace(job, placement=placed), run, lambda: bool(stopped_by))
        finally:
            run.folder.remove(".ray")
    if stopped_by:
        run.folder.remove(STOP)
        if run.result().get("status") != "finished":
            raise Stopped(stopped_by[0])
    return run.result()


def ray_trainer(
    job: Job, name: str, make_session: Callable[[Run], TrainSession], max_failures: int, start_minutes: float
) -> "TorchTrainer":
    """Ray Train's trainer of a run, whose placement is decided.

    Args:
        job: The run.
        name: What Ray calls it.
        make_session: Makes each worker's session.
        max_failures: Losses after which Ray Train itself starts the workers anew.
        start_minutes: How long Ray Train waits for room.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from cluster.network import Connection

    placement = job.placement
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(60 * start_minutes)
    return TorchTrainer(
        _worker,
        train_loop_config={"job": job, "make_session": make_session},
        torch_config=Connection(),
        scaling_config=ScalingConfig(
            num_workers=placement.workers,
            use_gpu=placement.gpus_per_worker > 0,
            resources_per_worker=preflight.bundle(placement),
        ),
        run_config=RunConfig(
            name=name,
            **(Folder(job.directory) / ".ray").for_ray(),
            # By default Ray Train waits for room once more, and for ever, whenever that timeout has passed.
            failure_config=FailureConfig(
                max_failures=max_failures, max_preemption_failures=max_failures, controller_failure_limit=0
            ),
        ),
    )


def _run_trainer(job: Job, run: Run, stopped: Callable[[], bool] = lambda: False) -> None:
    """Run Ray Train to the run's end, anew from the last checkpoint whenever workers are lost or should be others.

    Ray Train itself would start as many workers as before, and tells neither a node that was announced to go from one
    that was lost, nor workers that are lost while they start from a mistake of its own.

    Args:
        job: The run, with a placement that has been decided.
        run: Its directory.
        stopped: Whether the run has been asked to stop.
    """
    placement, left, sizes = job.placement, job.placement.max_failures, []

    def attempt(workers: int, start_minutes: float) -> None:
        sizes.append(workers)
        _attempt(replace(job, placement=replace(placement, workers=workers)), start_minutes)
        if run.folder.exists(FAULT):
            fault = run.folder.read(FAULT).decode()
            run.folder.remove(FAULT)
            raise ValueError(fault)

    while True:
        try:
            elastic.keep_going(placement, run, stopped, attempt)
            break
        except ValueError as error:
            if run.folder.exists("config.yaml"):
                run.write_result(status="failed", error=str(error))
            raise
        except Exception as failure:
            announced = elastic.was_taken_away(failure)
            if stopped() or not (announced or left):
                raise RuntimeError(cause(failure)) from failure
            left -= not announced
            what = "a node was taken away" if announced else f"workers were lost ({cause(failure)[:120]})"
            console.warn(f"{what}; going on from the last checkpoint")
    if placement.is_elastic and run.result().get("status") == "finished":
        run.write_result(workers=placement.workers, world_sizes=sizes)


def _attempt(job: Job, start_minutes: float) -> None:
    """Train with as many workers as the placement says until they end.

    Raises:
        TimeoutError: Ray Train found no room for them in time.
        Exception: What Ray Train raises.
    """
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    name = uuid.uuid4().hex[:8]  # a fresh name: Ray's own snapshot of an earlier attempt is not to be trusted
    failure = _fit_aside(ray_trainer(job, name, TrainSession, 0, start_minutes))
    if isinstance(getattr(failure, "controller_failure", None), WorkerGroupStartupTimeoutError):
        raise TimeoutError from failure
    if failure is not None:
        raise failure


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


def cause(error: BaseException) -> str:
    """The first line of what went wrong in the first worker that failed."""
    workers = getattr(error, "worker_failures", None)
    inner: BaseException = workers[min(workers)] if workers else error
    while getattr(inner, "cause", None) or inner.__cause__:
        inner = getattr(inner, "cause", None) or inner.__cause__
    lines = [line for line in str(inner).splitlines() if line.strip()]
    return lines[-1] if lines else type(inner).__name__


@contextmanager
def _following(run: Run) -> Iterator[None]:
    """Print the epochs that the workers write down, while inside."""
    done = threading.Event()
    shown = len(run.history())

    def follow() -> None:
        nonlocal shown
        finished = False
        while not finished:
            finished = done.wait(1.0)
            with suppress(OSError):
                history = run.history()
                for row in history[shown:]:
                    console.say(console.epoch(row))
                shown = max(shown, len(history))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
