"""One run: in this process, or by Ray Train on a cluster."""

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cluster import console, preflight
from cluster.access import address_of, check_access
from cluster.attempts import Account, persevere
from cluster.failures import HUNG, OOM_BY_KERNEL, Failure, RunFailed, classify, oom_kills
from cluster.folder import Folder
from cluster.placement import Placement
from cluster.runs import Run
from cluster.session import LocalSession, Session, Stopped, catch_signals, ddp_options
from cluster.watchdog import PART, Watchdog
from cluster.worker import Job, fit
from workloads._machine import available_cpus

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

STOP = ".stop"
"""File in the run directory that asks the workers to save and stop; holds the signal's number."""
STACKS = "stacks"
"""Folder in the run directory with the stacks of all ranks, a folder an attempt in which a rank hung."""


def train(job: Job) -> dict[str, Any]:
    """Do a run, or go on with it, where its placement says.

    Returns:
        ``result.json``.

    Raises:
        ValueError: The user's settings or data are at fault; nothing has been written.
        Stopped: The run was asked to stop, and has saved.
        RunFailed: The run failed.
    """
    run = Run(Folder(job.directory))
    with run.lock():
        run.wait_for_orphans()
        Account(run.folder).open()
        try:
            return _train_by_ray(job, run) if uses_ray(job.placement) else _train_here(job, run)
        except Stopped:
            run.write_result(status="stopped", **Account(run.folder).told())
            raise
        except RunFailed as error:
            record(run, error.failure)
            if error.failure.exit_code == 2:
                raise ValueError(error.failure.message) from error
            raise


def record(run: Run, failure: Failure) -> None:
    """Write down that a run has failed, and why, as far as there is somewhere to write.

    A mistake of the user's in a run that has not begun leaves nothing.
    """
    with suppress(OSError):
        if failure.exit_code != 2 or run.folder.exists("config.yaml"):
            run.write_result(status="failed", failure=failure.told(), **Account(run.folder).told())


def uses_ray(placement: Placement) -> bool:
    """More than one worker, or a cluster named by flag or environment; otherwise a run needs no Ray."""
    return placement.workers > 1 or bool(placement.address or os.environ.get("RAY_ADDRESS"))


def _train_here(job: Job, run: Run) -> dict[str, Any]:
    placement = job.placement
    if placement.gpus_per_worker not in ("auto", 0):
        import torch

        refuse_excess("GPUs", placement.gpus_per_worker, min(1, torch.cuda.device_count()), "this process has")
    refuse_excess("CPUs", placement.cpus_per_worker, available_cpus(), "this machine has")
    if placement.gpus_per_worker == 0:
        job = replace(job, placement=replace(placement, accelerator="cpu"))
    session = LocalSession()

    def attempt() -> None:
        try:
            Account(run.folder).start()
            fit(job, session)
        except Exception as error:
            raise RunFailed(classify(error)) from error

    with session.signals():
        persevere(run.folder, 0, attempt)
    return run.result()


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
    workers, cpus, gpus = placement.workers, resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    per_worker = placement.gpus_per_worker
    if per_worker == "auto":
        per_worker = 1.0 if placement.accelerator != "cpu" and gpus >= workers else 0.0
    if placement.accelerator == "gpu" and per_worker == 0:
        raise ValueError(f"--accelerator gpu: {workers} workers need a GPU each and the cluster has {gpus:g}")
    refuse_excess("GPUs", workers * per_worker, gpus, "the cluster has")
    refuse_excess("CPUs", workers * max(1, placement.cpus_per_worker), cpus, "the cluster has")
    each = placement.cpus_per_worker or int(cpus // workers)
    accelerator = "gpu" if per_worker else "cpu"
    return replace(placement, cpus_per_worker=each, gpus_per_worker=per_worker, accelerator=accelerator)


class TrainSession(Session):
    """A worker of Ray Train. It is asked to stop through a file in the run directory."""

    shows_progress = False

    def __init__(self, run: Run, watchdog: Watchdog) -> None:
        self.run, self.watchdog, self.signum, self.done = run, watchdog, 0, threading.Event()

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

    def asked_to_stop(self) -> int:
        return self.signum

    @contextmanager
    def watching(self, rank: int) -> Iterator[None]:
        """Look for the stop file while inside, on rank 0: the Recorder tells the others."""

        def watch() -> None:
            while not self.done.wait(1.0):
                with suppress(OSError):  # storage that fails now may answer in a second
                    if self.run.folder.exists(STOP):
                        self.signum = int(self.run.folder.read(STOP))
                        return

        thread = threading.Thread(target=watch, daemon=True)
        if rank == 0:
            thread.start()
        try:
            yield
        finally:
            self.done.set()
            if rank == 0:
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
        with run.writing() if rank == 0 else nullcontext(), session.watching(rank), watchdog.watching():
            if rank == 0:
                Account(run.folder).start()
            fit(job, session)
    except Stopped:
        return  # saved; an exception would be taken for a failure
    except Exception as error:
        raise RunFailed(classify(error)) from error  # here, where the error's own cause is still known


def _train_by_ray(job: Job, run: Run) -> dict[str, Any]:
    if address_of(job.placement) == "local":
        refuse_excess("workers", job.placement.workers, available_cpus(), "this machine has CPUs for")
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    os.environ.setdefault("RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING", "0")
    stopped_by: list[int] = []

    def ask_to_stop(signum: int) -> None:
        stopped_by.append(signum)
        run.folder.write(STOP, str(signum).encode())

    run.folder.remove(STOP)
    with connected(job.placement) as resources:
        placed = preflight.fit(job.placement, place(job.placement, resources), preflight.nodes())
        preflight.quick(placed, job.directory)
        job = replace(job, placement=placed)
        with _following(run), catch_signals(ask_to_stop):
            persevere(run.folder, placed.max_failures, lambda: attempt_by_ray(job, run))
    run.folder.remove(".ray")
    if stopped_by:
        run.folder.remove(STOP)
        if run.result().get("status") != "finished":
            raise Stopped(stopped_by[0])
    return run.result()


def ray_trainer(job: Job, name: str, make_session: Callable[[Run, Watchdog], TrainSession]) -> "TorchTrainer":
    """Ray Train's trainer of one attempt of a run, whose placement is decided.

    Args:
        job: The run.
        name: What Ray calls it.
        make_session: Makes each worker's session.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    placement = job.placement
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(60 * placement.placement_timeout)
    return TorchTrainer(
        _worker,
        train_loop_config={"job": job, "make_session": make_session},
        scaling_config=ScalingConfig(
            num_workers=placement.workers,
            use_gpu=placement.gpus_per_worker > 0,
            resources_per_worker=preflight.bundle(placement),
        ),
        torch_config=TorchConfig(timeout_s=placement.collective_timeout),
        run_config=RunConfig(
            name=name,
            **(Folder(job.directory) / ".ray").for_ray(),
            # Ray Train would retry whatever a worker raised, and wait for room once more, and for ever, whenever that
            # timeout has passed. What is worth another attempt is decided in `persevere`.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )


def attempt_name(run: Run) -> str:
    """What Ray calls the next attempt: a fresh name each time, as its own snapshot of an earlier one, which may be
    torn, is not to be trusted.
    """
    return f"attempt-{Account(run.folder).attempts + 1}-{uuid.uuid4().hex[:8]}"


def attempt_by_ray(job: Job, run: Run) -> None:
    """Run Ray Train to its end once, off the main thread, where signals remain ours.

    Raises:
        RunFailed: It failed.
    """
    run.wait_for_orphans()
    try:
        preflight.wait_for_room(job.placement)
    except ValueError as error:
        raise RunFailed(Failure("no_room", str(error))) from None
    name, kills = attempt_name(run), preflight.on_nodes(oom_kills)
    failure = _fit_aside(ray_trainer(job, name, TrainSession))
    if failure is not None:
        raise RunFailed(explain(failure, job, run, name, kills)) from failure


def explain(error: BaseException, job: Job, run: Run, name: str, kills: dict[str, Any]) -> Failure:
    """Why an attempt failed, with what is known outside its workers.

    Args:
        error: What Ray Train raised.
        job: The run, whose placement is decided.
        run: Its directory.
        name: What Ray called the attempt.
        kills: Number of processes that the kernel had ended for want of memory when it began, asked of every node.
    """
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    if isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupTimeoutError):
        return Failure("no_room", preflight.not_placed(job.placement))
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
