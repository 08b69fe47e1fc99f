"""A sweep: many runs of one workload, whose settings are chosen from the workload's space."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any

import workloads
from cluster import console, outcome, preflight, spaces
from cluster.building import Builder
from cluster.flags import Flags, read_flags
from cluster.folder import Folder
from cluster.ledger import Ledger, trial_name
from cluster.placement import Placement, RunFlags, Saving, Search
from cluster.runs import Run, check_name, default_name
from cluster.session import Stopped
from cluster.spaces import Point
from cluster.train import connected, place, refuse_excess
from cluster.trial import Sweep, train_trial
from cluster.tuning import run_tuner
from cluster.worker import Job
from workloads._machine import inspect
from workloads._spec import Workload
from workloads._training import Training

EXTENSIBLE = ("trials", "time_budget", "concurrent", "keep_trials")
"""Flags of a search that may differ when a sweep goes on: they say how far, not what is searched."""
LOWER_IS_BETTER = ("num_parameters", "seconds", "loss", "error", "mse", "mae", "rmse", "perplexity")
HIGHER_IS_BETTER = ("accuracy", "f1", "auroc", "r2", "precision", "recall", "bleu", "chrf", "match", "return")


def command(arguments: list[str]) -> int:
    """``tune NAME [flags]``."""
    sweep, as_json = parse(arguments)
    if sweep is None:
        return 0
    run = Run(Folder(sweep.job.directory))
    refuse_foreign(run)
    try:
        tune(sweep)
    except Stopped as stopped:
        console.say(f"stopped; the same command goes on with the sweep in {run.folder.short()}")
        return 128 + stopped.signum
    outcome.present(run, as_json)
    return 0 if run.result().get("best_trial") else 1


def parse(arguments: list[str]) -> tuple[Sweep | None, bool]:
    """The sweep of ``NAME [flags]``, checked, and whether to answer in JSON; None after printing help.

    Raises:
        ValueError: A flag, a key or the space is at fault.
    """
    workload = workloads.load(arguments[0])
    flags = Flags("tune", workload, {"": [RunFlags, Search, Placement], "checkpoint.": [Saving]})
    if any(argument in ("-h", "--help") for argument in arguments):
        flags.parser.epilog = "--space.KEY VALUE|VALUE,VALUE|LOW..HIGH fixes, narrows or adds a key of the space."
        flags.parser.print_help()
        return None, False
    changes, rest = spaces.change_flags(arguments[1:])
    config, namespace = flags.parse(rest)
    where, placement, search = (read_flags(cls, namespace) for cls in (RunFlags, Placement, Search))
    if search.max_epochs:
        config["trainer"]["max_epochs"] = search.max_epochs
    Training(**config["trainer"])
    if config["data"].get("actors"):
        raise ValueError("data.actors: the trials of a sweep share all CPUs already; leave it at 0")
    space = spaces.load(workload, changes)
    if search.search == "grid":
        space.grid()
    lasting = {key: value for key, value in asdict(search).items() if key not in EXTENSIBLE}
    name = where.name
    if name is None:
        name = default_name(f"tune-{workload.name}", config, space.told(), lasting)
    if placement.is_elastic:
        raise ValueError(f"--workers {placement.workers}: each trial of a sweep has a fixed number; give one number")
    if placement.cpus_per_worker == 0:
        placement = replace(placement, cpus_per_worker=1)  # of two trials at a time and one with two, the former wins
    job = Job(
        workload=workload.name,
        config=config,
        directory=str(Folder(where.storage) / check_name(name)),
        placement=placement,
        saving=read_flags(Saving, namespace, "checkpoint."),
        baselines=False,
    )
    return Sweep(job=job, search=search, space=space, objectives=objectives_of(search, workload)), namespace["json"]


def objectives_of(search: Search, workload: Workload) -> dict[str, str]:
    """Objective to min or max.

    Raises:
        ValueError: A name does not tell which is better, or is no metric of the validation split.
    """
    if search.objectives is None:
        return {workload.monitor: workload.mode}
    found: dict[str, str] = {}
    for text in search.objectives.split(","):
        name, _, mode = text.strip().partition(":")
        leaf = name.rpartition("/")[2]
        if not mode:
            mode = "min" if leaf in LOWER_IS_BETTER else "max" if leaf in HIGHER_IS_BETTER else ""
            mode = workload.mode if name == workload.monitor else mode
        if mode not in ("min", "max"):
            raise ValueError(f"--objectives: is more or less of {name!r} better? write {name}:max or {name}:min")
        if not name.startswith("val/") and name not in ("num_parameters", "seconds"):
            raise ValueError(f"--objectives: no {name!r}; give metrics such as val/accuracy, num_parameters, seconds")
        found[name] = mode
    if len(found) < 2:
        raise ValueError("--objectives: expected at least two; a single one is the workload's own monitored metric")
    return found


def tune(sweep: Sweep, function: Callable[..., None] = train_trial) -> dict[str, Any]:
    """Do a sweep, or go on with it.

    Args:
        sweep: What to do.
        function: What a trial runs.

    Returns:
        Its ``result.json``.

    Raises:
        ValueError: The cluster cannot hold it, or the directory belongs to another sweep.
        Stopped: It was asked to stop, and has saved.
    """
    run, workload, search = Run(Folder(sweep.job.directory)), workloads.load(sweep.job.workload), sweep.search
    with run.lock():
        config = sweep.job.config | {"search": asdict(search), "space": sweep.space.told()}
        run.check(workload.name, config, [f"search.{key}" for key in EXTENSIBLE], "sweep")
        spent = run.result().get("seconds", 0.0)
        ledger = Ledger(run.folder, workload.mode, seeds=search.seeds, keep=search.keep_trials, spent=spent)
        builder = _builder(sweep, workload)
        points = _points(sweep, builder, ledger)
        if _is_done(sweep, ledger, points):
            console.say(f"sweep {run.folder.short()} is finished; nothing to do")
            return run.result()
        console.say(f"sweep {run.folder.short()}")
        with connected(sweep.job.placement) as resources:
            sweep, room = _placed(sweep, resources)
            preflight.quick(sweep.job.placement, sweep.job.directory)
            preflight.wait_for_room(sweep.job.placement)
            run.folder.make()
            run.folder.write("config.yaml", workload.to_yaml(config).encode())
            run.write_result(workload=workload.name, status="running")
            signum = run_tuner(sweep, run, ledger, builder, points, room, function)
        outcome.write(run, sweep, ledger)
        if signum:
            run.write_result(status="stopped")
            raise Stopped(signum)
        return run.write_result(status="finished")


def _builder(sweep: Sweep, workload: Workload) -> Builder:
    """Reads the data once, here, for the network's shape depends on it; what is wrong with it is told at once.

    Raises:
        ValueError: The data is at fault, or nothing in the space is what pbt could alter.
    """
    config = sweep.job.config
    data = workload.build_data(config, inspect(sweep.job.placement.accelerator, config["trainer"]["precision"], 1))
    data.prepare_data()
    data.setup("fit")
    builder = Builder(workload, config, sweep.space, workload.decided(data))
    if sweep.search.scheduler == "pbt" and not builder.perturbable:
        raise ValueError(
            "--scheduler pbt: no key of the space can change while a trial trains; add one such as "
            "--space.model.lr 1e-4..1e-2:log, or use --scheduler asha"
        )
    return builder


def _points(sweep: Sweep, builder: Builder, ledger: Ledger) -> dict[str, Point] | None:
    """Name of each trial to its point; None if they are chosen one after the other.

    Raises:
        ValueError: The space has no point that can be built.
    """
    search = sweep.search
    if search.search == "optuna":
        return None
    candidates: Iterable[Point] = (
        sweep.space.grid() if search.search == "grid" else spaces.draws(sweep.space, sweep.job.config["seed"])
    )
    count = None if search.search == "grid" else search.trials
    points = dict(zip(_names(count), builder.buildable(iter(candidates)), strict=False))
    if not points:
        raise ValueError("no point of the space can be built; widen it with --space.KEY")
    # pbt alters points as it goes: what stands in the ledger is how far a trial has come.
    return points | {name: record.point for name, record in ledger.records.items() if name in points}


def _names(count: int | None) -> Iterator[str]:
    number = 0
    while count is None or number < count:
        yield trial_name(number)
        number += 1


def _is_done(sweep: Sweep, ledger: Ledger, points: dict[str, Point] | None) -> bool:
    total = sweep.search.trials if points is None else len(points)
    budget = sweep.search.time_budget
    ended = sum(record.ended for record in ledger.records.values())
    return ended >= total or (budget is not None and bool(ledger.records) and ledger.elapsed() >= 60 * budget)


def _placed(sweep: Sweep, resources: dict[str, float]) -> tuple[Sweep, int]:
    """The sweep with its placement decided, and how many trials the cluster holds at a time.

    Raises:
        ValueError: It does not hold one, or not as many as are asked for.
    """
    asked = sweep.job.placement
    placement = preflight.fit(asked, place(asked, resources), preflight.nodes())
    workers, gpus = placement.workers, placement.gpus_per_worker
    room = int(resources.get("CPU", 0) // (workers * placement.cpus_per_worker))
    room = min(room, int(resources["GPU"] / (workers * gpus) + 1e-6)) if gpus else room
    refuse_excess("trials at a time", sweep.search.concurrent, room, "the cluster holds")
    return replace(sweep, job=replace(sweep.job, placement=placement)), sweep.search.concurrent or room


def refuse_foreign(run: Run) -> None:
    """Refuse a sweep of another user's: this one would go on from what stands in it, and write into it.

    Raises:
        ValueError: The sweep's folder belongs to another user.
    """
    if run.folder.is_local and run.folder.exists() and run.folder.local.stat().st_uid != os.getuid():
        raise ValueError(f"sweep {run.folder} belongs to another user; give another --name or --storage")
