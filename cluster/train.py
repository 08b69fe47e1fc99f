"""One run: in this process, or by Ray Train on a cluster."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from cluster import elastic, preflight, worker_console
from cluster.access import address_of, check_access
from cluster.attempts import Account, persevere
from cluster.elastic import STOP
from cluster.failures import Failure, RunFailed, classify
from cluster.folder import Folder
from cluster.placement import Placement
from cluster.ray_train import TrainSession, attempt
from cluster.runs import Run
from cluster.session import LocalSession, Stopped, catch_signals
from cluster.worker import Job, fit
from workloads._machine import available_cpus


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
            return _train_by_ray(job, run) if uses_ray(job) else _train_here(job, run)
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


def uses_ray(job: Job) -> bool:
    """More than one worker, actors, or a cluster named by flag or environment; otherwise a run needs no Ray."""
    named = job.placement.address or os.environ.get("RAY_ADDRESS")
    return job.placement.most > 1 or bool(job.num_actors or named)


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


def place(placement: Placement, resources: dict[str, float], num_actors: int = 0) -> Placement:
    """Decide CPUs and GPUs of each worker from what a cluster has.

    Args:
        placement: What is asked for.
        resources: What the cluster has.
        num_actors: CPUs that each worker needs for actors, beside its own.

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
    refuse_excess("CPUs", workers * (max(1, placement.cpus_per_worker) + num_actors), cpus, "the cluster has")
    each = placement.cpus_per_worker or max(1, int(cpus // placement.most) - num_actors)
    accelerator = "gpu" if per_worker else "cpu"
    return replace(placement, cpus_per_worker=each, gpus_per_worker=per_worker, accelerator=accelerator)


def _train_by_ray(job: Job, run: Run) -> dict[str, Any]:
    if address_of(job.placement) == "local":
        refuse_excess("workers", job.placement.fewest, available_cpus(), "this machine has CPUs for")
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    os.environ.setdefault("RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # what is printed goes into the run's own logs
    stopped_by: list[int] = []
    sizes: list[int] = []

    def ask_to_stop(signum: int) -> None:
        stopped_by.append(signum)
        run.folder.write(STOP, str(signum).encode())

    def once(workers: int, start_minutes: float) -> None:
        sizes.append(workers)
        attempt(replace(job, placement=replace(placed, workers=workers)), run, make_session, start_minutes)

    def go() -> None:
        try:
            elastic.keep_going(placed, run, lambda: bool(stopped_by), once)
        except ValueError as error:
            raise RunFailed(Failure("no_room", str(error))) from error

    run.folder.remove(STOP)
    with connected(job.placement) as resources:
        placed = preflight.fit(job.placement, place(job.placement, resources, job.num_actors), preflight.nodes())
        preflight.quick(placed, job.directory)
        with worker_console.shown(run.folder) as speaker, catch_signals(ask_to_stop):
            make_session = partial(TrainSession, speaker=speaker)
            persevere(run.folder, placed.max_failures, go)
    if placed.is_elastic and run.result().get("status") == "finished":
        run.write_result(workers=placed.workers, world_sizes=sizes)
    if stopped_by:
        run.folder.remove(STOP)
        if run.result().get("status") != "finished":
            raise Stopped(stopped_by[0])
    return run.result()
