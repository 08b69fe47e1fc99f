"""A sweep: many runs of one workload, whose settings Ray Tune chooses from the workload's space."""

import csv
import importlib
import io
import itertools
import json
import math
import os
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import workloads
from cluster import console
from cluster.flags import Flags, read_flags
from cluster.folder import Folder
from cluster.placement import Placement, RunFlags, Saving, Search
from cluster.runs import Run, check_name, default_name
from cluster.session import Session, Stopped
from cluster.train import connected, place, refuse_excess
from cluster.worker import Job, fit
from workloads._spec import Workload, flatten
from workloads._training import Training

GRID_POINTS = 3
"""Points of a range that a grid search tries: its ends and its middle, on the range's own scale."""
LARGEST_GRID = 1_000
"""Combinations above which a grid search is refused."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One sweep, as a value.

    Args:
        job: The run that each trial varies; its directory is the sweep's.
        search: How to search.
        as_json: Whether to answer in JSON.
    """

    job: Job
    search: Search
    as_json: bool = False


class TrialSession(Session):
    """A trial with one worker, inside the trial's own actor."""

    final = False
    shows_progress = False

    def trainer_arguments(self, accelerator: str, find_unused_parameters: bool) -> dict[str, Any]:
        return {"accelerator": accelerator, "devices": 1}

    def report(self, metrics: dict[str, float], best: float | None) -> None:
        from ray import tune

        tune.report(metrics | {"best": best})

    def repeat(self, history: list[dict[str, float]], monitor: str, mode: str) -> None:
        """Report once more what a trial had reported before the sweep was killed: Tune's own record may be older."""
        best = None
        for row in history:
            if monitor in row:
                best = row[monitor] if best is None else (min if mode == "min" else max)(best, row[monitor])
            self.report(row | {"epoch": int(row["epoch"])}, best)


def command(arguments: list[str]) -> int:
    """``tune NAME [flags]``."""
    sweep = parse(arguments)
    if sweep is None:
        return 0
    run = Run(Folder(sweep.job.directory))
    if run.result().get("status") == "finished":
        run.check(sweep.job.workload, _stored(sweep)[0])
        console.say(f"sweep {run.folder.short()} is finished; nothing to do")
    else:
        console.say(f"sweep {run.folder.short()}")
        try:
            tune(sweep)
        except Stopped as stopped:
            console.say(f"stopped; the same command goes on with the sweep in {run.folder.short()}")
            return 128 + stopped.signum
    present(run, sweep.as_json)
    return 0


def parse(arguments: list[str]) -> Sweep | None:
    """The sweep of ``NAME [flags]``, checked; None after printing help.

    Raises:
        ValueError: A flag, a key or the space is at fault.
    """
    workload = workloads.load(arguments[0])
    flags = Flags("tune", workload, {"": [RunFlags, Search, Placement], "checkpoint.": [Saving]})
    if any(argument in ("-h", "--help") for argument in arguments):
        flags.parser.print_help()
        return None
    config, namespace = flags.parse(arguments[1:])
    Training(**config["trainer"])
    where, placement, search = (read_flags(cls, namespace) for cls in (RunFlags, Placement, Search))
    if placement.workers > 1:
        raise ValueError("--workers: a trial has one worker; --concurrent sets how many trials run at a time")
    domains = space(workload)
    if search.search == "grid":
        grid(domains)
    told = {key: _domain_text(domain) for key, domain in domains.items()}
    name = where.name
    if name is None:
        name = default_name(f"tune-{workload.name}", config, told, asdict(search))
    saving = read_flags(Saving, namespace, "checkpoint.")
    job = Job(
        workload=workload.name,
        config=config,
        directory=str(Folder(where.storage) / check_name(name)),
        placement=replace(placement, cpus_per_worker=placement.cpus_per_worker or 1),
        saving=saving,
        baselines=False,
    )
    return Sweep(job=job, search=search, as_json=namespace["json"])


def space(workload: Workload) -> dict[str, Any]:
    """The workload's space.

    Raises:
        ValueError: It has none, or names a key that there is not or that the data decides.
    """
    try:
        domains = importlib.import_module(f"tune_spaces.{workload.name}").SPACE
    except ModuleNotFoundError:
        raise ValueError(
            f"workload {workload.name!r} has no space: tune_spaces/{workload.name}.py is missing"
        ) from None
    workload.check_keys(domains)
    return domains


def grid(domains: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All combinations of a space.

    Raises:
        ValueError: There are too many.
    """
    points = {key: _points(domain) for key, domain in domains.items()}
    size = math.prod(len(values) for values in points.values())
    if size > LARGEST_GRID:
        raise ValueError(
            f"the grid has {size:,} combinations, more than {LARGEST_GRID:,}; use --search random with --trials"
        )
    return [dict(zip(points, values, strict=True)) for values in itertools.product(*points.values())]


def _points(domain: Any) -> list[Any]:
    from ray.tune.search.sample import Categorical, Domain, Float, Integer, LogUniform

    if not isinstance(domain, Domain):
        return [domain]
    if isinstance(domain, Categorical):
        return list(domain.categories)
    low, high = domain.lower, domain.upper - (1 if isinstance(domain, Integer) else 0)
    shares = [k / (GRID_POINTS - 1) for k in range(GRID_POINTS)]
    logarithmic = isinstance(domain.get_sampler(), LogUniform)
    values = [low * (high / low) ** s if logarithmic else low + (high - low) * s for s in shares]
    return values if isinstance(domain, Float) else sorted({round(value) for value in values})


def _domain_text(domain: Any) -> str:
    return f"{type(domain).__name__} {getattr(domain, 'domain_str', domain)}"


def _stored(sweep: Sweep) -> tuple[dict[str, Any], str]:
    """What the sweep's config.yaml holds, as a value and as text."""
    workload = workloads.load(sweep.job.workload)
    domains = {key: _domain_text(domain) for key, domain in space(workload).items()}
    config = sweep.job.config | {"search": asdict(sweep.search), "space": domains}
    return config, workload.to_yaml(config)


def _trial(params: dict[str, Any], sweep: Sweep) -> None:
    """What the actor of a trial runs; a trial's directory is a run directory like any other."""
    from ray import tune

    job = sweep.job
    workload = workloads.load(job.workload)
    config = workload.config(job.config, params)
    directory = f"{job.directory}/trials/{tune.get_context().get_trial_id()}"
    run, session = Run(Folder(directory)), TrialSession()
    with run.lock():
        session.repeat(run.history(), workload.monitor, workload.mode)
        fit(replace(job, config=config, directory=directory), session)


def tune(sweep: Sweep) -> dict[str, Any]:
    """Do a sweep, or go on with it.

    Returns:
        Its ``result.json``.

    Raises:
        ValueError: The cluster cannot hold it, or the directory belongs to another sweep.
        Stopped: It was asked to stop, and has saved.
    """
    run = Run(Folder(sweep.job.directory))
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # our trials write their own metrics
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # and the board is our own
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "2")  # what a killed sweep may forget
    with run.lock():
        with connected(sweep.job.placement) as resources:
            placement, gpus = place(sweep.job.placement, resources)
            room = int(resources.get("CPU", 0) // placement.cpus_per_worker)
            room = min(room, int(resources["GPU"] // gpus)) if gpus else room
            refuse_excess("trials at a time", sweep.search.concurrent, room, "the cluster holds")
            sweep = replace(sweep, job=replace(sweep.job, placement=placement))
            run.start(sweep.job.workload, *_stored(sweep))
            run.write_result(workload=sweep.job.workload, status="running")
            signum, trials = _run_tuner(sweep, run, gpus, sweep.search.concurrent or room)
        write_summary(run, workloads.load(sweep.job.workload), sweep, trials)
        if signum:
            run.write_result(status="stopped")
            raise Stopped(signum)
        return run.write_result(status="finished")


def _run_tuner(sweep: Sweep, run: Run, gpus: float, concurrent: int) -> tuple[int, list[Any]]:
    """Run Ray Tune to its end; returns the signal that stopped it (or 0) and its trials."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
    from ray.tune.search.basic_variant import BasicVariantGenerator

    from cluster.board import Board

    workload, search, job = workloads.load(sweep.job.workload), sweep.search, sweep.job
    domains, num_samples = space(workload), search.trials
    if search.search == "grid":
        points, num_samples = grid(domains), 1
        domains = {"": tune.grid_search(points)}
    trainable = tune.with_resources(
        tune.with_parameters(_grid_trial if search.search == "grid" else _trial, sweep=sweep),
        {"CPU": job.placement.cpus_per_worker} | ({"GPU": gpus} if gpus else {}),
    )
    epochs = job.config["trainer"]["max_epochs"]
    asha = ASHAScheduler(time_attr="epoch", max_t=max(epochs, search.grace), grace_period=min(search.grace, epochs))
    total = len(points) if search.search == "grid" else search.trials
    board = Board(workload.monitor, workload.mode, total)
    path = f"{run.folder}/tune"
    if tune.Tuner.can_restore(path):
        refuse_foreign(run)
        tuner = tune.Tuner.restore(path, trainable, resume_unfinished=True, param_space=domains)
        tuner._local_tuner._run_config.callbacks = [board]
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=domains,
            tune_config=tune.TuneConfig(
                metric=workload.monitor,
                mode=workload.mode,
                num_samples=num_samples,
                max_concurrent_trials=concurrent,
                scheduler=asha if search.scheduler == "asha" else FIFOScheduler(),
                search_alg=BasicVariantGenerator(random_state=job.config["seed"]),
                time_budget_s=search.time_budget and search.time_budget * 60,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(storage_path=str(run.folder), name="tune", verbose=0, callbacks=[board]),
        )
    asked: list[int] = []

    def note(signum: int, frame: Any) -> None:
        asked.append(signum)
        os.kill(os.getpid(), signal.SIGINT)  # the one signal on which Tune saves and leaves its trials resumable

    before = signal.signal(signal.SIGTERM, note)
    try:
        trials = tuner.fit()._experiment_analysis.trials
    finally:
        signal.signal(signal.SIGTERM, before)
        board.close()
    unfinished = any(not trial.is_finished() for trial in trials)
    return (asked[0] if asked else signal.SIGINT) if unfinished else 0, trials


def refuse_foreign(run: Run) -> None:
    """Refuse to restore another user's sweep: Ray Tune unpickles its state, which can run any code.

    Raises:
        ValueError: The sweep's folder belongs to another user.
    """
    if run.folder.is_local and (run.folder.local / "tune").stat().st_uid != os.getuid():
        raise ValueError(f"sweep {run.folder} belongs to another user; give another --name or --storage")


def _grid_trial(params: dict[str, Any], sweep: Sweep) -> None:
    _trial(params[""], sweep)


def write_summary(run: Run, workload: Workload, sweep: Sweep, trials: list[Any]) -> None:
    """Write ``trials.csv``, ``best.yaml`` and the sweep's part of ``result.json``."""
    max_epochs = sweep.job.config["trainer"]["max_epochs"]
    rows = [_row(trial, max_epochs) for trial in trials]
    scored = [row for row in rows if isinstance(row["best"], float) and math.isfinite(row["best"])]
    scored.sort(key=lambda row: row["best"] if workload.mode == "min" else -row["best"])
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(scored + [row for row in rows if row not in scored])
    run.folder.write("trials.csv", text.getvalue().encode())
    best = scored[0] if scored else None
    if best:
        config = workload.config(sweep.job.config, {k: json.loads(v) for k, v in best.items() if "." in k})
        run.folder.write("best.yaml", workload.to_yaml(config).encode())
    run.write_result(
        monitor={"name": workload.monitor, "mode": workload.mode, "best": best and best["best"]},
        best_trial=best and best["trial"],
        num_trials=len(rows),
        num_failed=sum(row["status"] == "failed" for row in rows),
        num_stopped_early=sum(row["status"] == "stopped early" for row in rows),
        cpus_per_worker=sweep.job.placement.cpus_per_worker,
    )


def _row(trial: Any, max_epochs: int) -> dict[str, Any]:
    """A trial in a line; values of keys as JSON."""
    result = trial.last_result or {}
    params = trial.config.get("", trial.config)
    finished = result.get("epoch", 0) >= max_epochs
    status = {"ERROR": "failed", "TERMINATED": "finished" if finished else "stopped early"}
    error = trial.get_error() if trial.status == "ERROR" else None
    return {
        "trial": trial.trial_id,
        "status": status.get(trial.status, "unfinished"),
        "best": result.get("best"),
        "epochs": result.get("epoch", 0),
        "seconds": result.get("seconds", 0),
        **{key: json.dumps(value) for key, value in flatten(params).items()},
        "error": str(error).strip().splitlines()[-1] if error else "",
    }


def present(run: Run, as_json: bool) -> None:
    """The best trials, and what to do next."""
    result = run.result()
    if as_json:
        print(json.dumps({"sweep": str(run.folder), **result}, indent=1))
        return
    rows = list(csv.DictReader(run.folder.read("trials.csv").decode().splitlines()))
    name = result["monitor"]["name"]
    best = [(row["trial"], row["status"], row["epochs"], _short(row["best"]), _settings(row)) for row in rows[:10]]
    console.table(f"best of {len(rows)} trials by {name}", ("trial", "status", "epochs", name, "settings"), best)
    stopped, failed = result["num_stopped_early"], result["num_failed"]
    print(f"\n{result['num_trials']} trials: {stopped} stopped early, {failed} failed")
    for row in rows:
        if row["error"]:
            print(f"  {row['trial']} failed: {row['error']}")
    if result["best_trial"]:
        print(
            f"\nnext:\n  raydeck train {result['workload']} --config {run.folder.short()}/best.yaml "
            f"--cpus-per-worker {result['cpus_per_worker']}"
        )


def _settings(row: dict[str, str]) -> str:
    """What a trial tried, in a line: the keys without the part before the dot, which is clear from the rest."""
    tried = {key.partition(".")[2]: _short(value).strip('"') for key, value in row.items() if "." in key}
    return "  ".join(f"{key} {value}" for key, value in tried.items())


def _short(text: str) -> str:
    """A number in a table to four digits."""
    try:
        return text if text.isdigit() else f"{float(text):.4g}"
    except ValueError:
        return text
