"""Running a sweep by Ray Tune: which trials there are, which scheduler and search algorithm, and how it all ends."""

import csv
import io
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.tune import Stopper
from ray.tune.search.basic_variant import BasicVariantGenerator

import workloads
from cluster.board import Board
from cluster.building import Builder
from cluster.ledger import Ledger
from cluster.recorder import as_csv
from cluster.runs import Run
from cluster.schedulers import Population, explorer, stopping
from cluster.spaces import Point
from cluster.trial import Sweep, trainable

TUNE = ".tune"
"""Tune's own folder in a sweep's: needed while it runs, and removed afterwards."""
PERTURBATIONS = "perturbations.csv"

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our trials write their own metrics
    "RAY_AIR_NEW_OUTPUT": "0",  # and the board is our own
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # snapshots of all trials, from which we do not go on
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # data may be named relative to where the command was typed
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # what a stopped trial with several workers needs to end
}


def run_tuner(
    sweep: Sweep,
    run: Run,
    ledger: Ledger,
    builder: Builder,
    points: dict[str, Point] | None,
    slots: int,
    function: Callable[..., None],
) -> int:
    """Run those trials of a sweep that have not ended.

    Args:
        sweep: The sweep, its placement decided.
        run: Its directory.
        ledger: Its records.
        builder: Knows which points can be built.
        points: Name of each trial to its point; None if optuna chooses them.
        slots: Trials at a time.
        function: What a trial runs.

    Returns:
        The signal that stopped it, or 0.
    """
    os.environ.update(ENVIRONMENT)
    workload = workloads.load(sweep.job.workload)
    budget = sweep.search.time_budget and 60 * sweep.search.time_budget
    total = sweep.search.trials if points is None else len(points)
    board = Board(ledger, workload.monitor, total, sweep.max_epochs, budget)
    run.folder.remove(TUNE)
    with _interruptible() as asked:
        try:
            tune.run(
                tune.with_resources(trainable(function, sweep), _resources(sweep)),
                name=TUNE,
                **run.folder.for_ray(),
                scheduler=_scheduler(sweep, run, ledger, builder, slots),
                stop=Budget(budget - ledger.elapsed()) if budget else None,
                callbacks=[board],
                reuse_actors=True,
                max_failures=sweep.job.placement.max_failures,  # a trial itself tells what is worth another attempt
                trial_dirname_creator=lambda trial: trial.trial_id,
                verbose=0,
                raise_on_failed_trial=False,
                **_search(sweep, ledger, builder, points, slots),
            )
        finally:
            board.close()
    for record in ledger.records.values():
        if not record.ended and board.out_of_time():
            record.status, record.until = "out of time", ledger.elapsed()
            ledger.put(record)
    run.folder.remove(TUNE)
    if board.out_of_time() or sum(record.ended for record in ledger.records.values()) >= total:
        return 0
    return asked[0] if asked else signal.SIGINT  # on which Tune returns as if all were done


def _resources(sweep: Sweep) -> dict[str, float]:
    """What a trial's actor holds. One that only waits for its workers holds a byte of memory.

    A part of a CPU would be one part too many on a machine with just enough for the workers, and Tune wants something.
    """
    placement = sweep.job.placement
    if placement.workers > 1:
        return {"CPU": 0, "memory": 1}
    gpus = {"GPU": placement.gpus_per_worker} if placement.gpus_per_worker else {}
    return {"CPU": placement.cpus_per_worker} | gpus


def _search(
    sweep: Sweep, ledger: Ledger, builder: Builder, points: dict[str, Point] | None, slots: int
) -> dict[str, Any]:
    """Which trials to run, as arguments of ``tune.run``."""
    if points is not None:
        ended = {name for name, record in ledger.records.items() if record.ended}
        asked = [{"trial": name, "point": point} for name, point in points.items() if name not in ended]
        # A scheduler that pauses trials needs all of them, and keeps to the slots itself.
        limit = 0 if sweep.pauses else slots
        return {
            "config": {"asked": tune.grid_search(asked)},
            "search_alg": BasicVariantGenerator(max_concurrent=limit),
        }
    from cluster.optuna_search import OptunaSearch

    search = OptunaSearch(
        builder,
        objectives=sweep.objectives,
        seed=sweep.job.config["seed"],
        max_epochs=sweep.max_epochs,
        records=list(ledger.records.values()),
    )
    remaining = sweep.search.trials - sum(record.ended for record in ledger.records.values())
    return {"search_alg": search, "num_samples": remaining, "max_concurrent_trials": slots}


def _scheduler(sweep: Sweep, run: Run, ledger: Ledger, builder: Builder, slots: int) -> Any:
    workload, search = workloads.load(sweep.job.workload), sweep.search
    if search.scheduler != "pbt":
        ended = (
            (record.trial, Run(ledger.folder / record.trial).history())
            for record in ledger.records.values()
            if record.ended
        )
        return stopping(
            search.scheduler,
            monitor=workload.monitor,
            mode=workload.mode,
            max_epochs=sweep.max_epochs,
            grace=search.grace,
            slots=slots,
            ended=ended,
        )
    seed = sweep.job.config["seed"]
    random.seed(seed)  # Tune chooses whom to take over from by it
    return Population(
        slots,
        sweep.max_epochs,
        explorer(builder.perturbable, seed + len(ledger.records)),
        lambda *taken: _take_over(sweep, run, ledger, *taken),
        time_attr="epoch",
        metric=workload.monitor,
        mode=workload.mode,
        perturbation_interval=sweep.perturb_every,
    )


def _take_over(
    sweep: Sweep, run: Run, ledger: Ledger, mine: str, theirs: str, result: dict[str, Any], point: Point
) -> None:
    """Make a trial go on from another's checkpoint, with an altered point; neither is training."""
    workload = workloads.load(sweep.job.workload)
    source, target = (Run(ledger.folder / name) for name in (theirs, mine))
    target.checkpoints(workload.mode).take_over(source.checkpoints(workload.mode), int(result["step"]))
    history = [row for row in source.history() if row["epoch"] <= result["epoch"]]
    target.folder.write("metrics.csv", as_csv(history).encode())
    record, donor = ledger.records[mine], ledger.records[theirs]
    altered = {name: [donor.point.get(name), value] for name, value in point.items() if donor.point.get(name) != value}
    record.point = point
    ledger.put(record)
    try:
        before = run.folder.read(PERTURBATIONS).decode()
    except FileNotFoundError:
        before = "seconds,trial,epoch,step,from,altered\n"
    line = io.StringIO()
    told = [round(ledger.elapsed(), 1), mine, int(result["epoch"]), int(result["step"]), theirs, json.dumps(altered)]
    csv.writer(line, lineterminator="\n").writerow(told)
    run.folder.write(PERTURBATIONS, (before + line.getvalue()).encode())


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Make SIGTERM end a sweep as SIGINT does, the one signal on which Tune leaves its trials as they stand.

    Yields:
        The signals asked for by SIGTERM.
    """
    asked: list[int] = []

    def note(signum: int, frame: Any) -> None:
        asked.append(signum)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


class Budget(Stopper):
    """Ends a sweep when its time is over.

    Args:
        seconds: The time it has.
    """

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return time.monotonic() >= self.deadline
