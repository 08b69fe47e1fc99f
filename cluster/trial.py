"""One trial of a sweep, in an actor of Tune's: a run like any other, in its own directory, that reports its epochs.

With one worker it trains in the actor itself, which is used again for the next trial. With several the actor starts Ray
Train and passes on what the workers' first rank reports; the workers wait for Tune's answer, so that nothing is trained
while Tune decides whether, and with which weights and settings, the trial goes on.
"""

import asyncio
import functools
import signal
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import workloads
from cluster.attempts import Account
from cluster.elastic import STOP
from cluster.failures import Failure, RunFailed, classify
from cluster.folder import Folder
from cluster.placement import Search
from cluster.ray_train import TrainSession, attempt_name, ray_trainer
from cluster.runs import Run
from cluster.session import Session
from cluster.spaces import Space
from cluster.watchdog import Watchdog
from cluster.worker import Job, fit

PATIENCE = 60
"""Seconds that a trial waits for its directory while an earlier actor of its own is ending."""
END = 60
"""Seconds that the workers of a stopped trial have to end."""
ENDING, ENDED = threading.Event(), threading.Event()
"""Of the trial in this process: Tune wants it to end; its workers have."""
ENDED.set()
EPOCH = "epoch"
"""File of a Tune checkpoint: all that it holds is the last epoch Tune has seen of the trial."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One sweep, as a value that can be sent to its trials.

    Args:
        job: The run that each trial varies; its directory is the sweep's.
        search: How to search.
        space: What to search.
        objectives: Objective to min or max; the first is the workload's monitored metric if none were asked for.
    """

    job: Job
    search: Search
    space: Space
    objectives: dict[str, str]

    @property
    def max_epochs(self) -> int:
        return self.job.config["trainer"]["max_epochs"]

    @property
    def pauses(self) -> bool:
        """Whether the scheduler pauses trials, which then go on in another actor."""
        return self.search.scheduler in ("pbt", "hyperband")

    @property
    def perturb_every(self) -> int:
        """Epochs between pbt's alterations."""
        return self.search.perturb_every or max(1, self.max_epochs // 10)

    def job_of(self, trial: str, point: dict[str, Any]) -> Job:
        """The run of a trial."""
        config = workloads.load(self.job.workload).config(self.job.config, self.space.overrides(point))
        return replace(self.job, config=config, directory=f"{self.job.directory}/trials/{trial}")


class Reporter:
    """Reports a trial's epochs to Tune.

    Args:
        sweep: The sweep.
        known: The last epoch that Tune has seen of this trial.
    """

    def __init__(self, sweep: Sweep, known: int) -> None:
        self.sweep, self.known = sweep, known
        self.workload = workloads.load(sweep.job.workload)
        self.last: dict[str, Any] = {}

    def report(self, row: dict[str, float], best: dict[str, float]) -> None:
        """An epoch, and the best so far. Does not return if Tune stops the trial."""
        self.last = row | {
            "epoch": int(row["epoch"]),
            "best": best.get(self.workload.monitor),
            "values": {name: best[name] for name in self.sweep.objectives if name in best},
            "scores": [],
        }
        self._send()

    def beat(self, row: dict[str, float], best: dict[str, float]) -> None:
        """Say once more what is known: a further seed is training, and Tune may want to stop."""
        self._send()

    def conclude(self, outcomes: list[dict[str, float]]) -> None:
        """The score over all seeds: the mean of each seed's best epoch."""
        missing = [name for name in self.sweep.objectives if name not in outcomes[0]]
        if missing:
            measured = ", ".join(key for key in outcomes[0] if key.startswith("val/"))
            raise ValueError(f"--objectives: no {missing[0]!r}; there are {measured}, num_parameters, seconds")
        scores = [outcome[self.workload.monitor] for outcome in outcomes]
        values = {name: statistics.fmean(o[name] for o in outcomes) for name in self.sweep.objectives}
        self.last |= {"best": statistics.fmean(scores), "scores": scores, "values": values}
        self._send()

    def repeat(self, history: list[dict[str, float]]) -> None:
        """Report what an earlier start of the sweep had been told.

        pbt would alter a trial for each of its past epochs: it is told the last one alone.
        """
        best: dict[str, float] = {}
        for row in history:
            best = self._better(best, row)
            if row["epoch"] > self.known and (self.sweep.search.scheduler != "pbt" or row is history[-1]):
                self.report(row, best)

    def outcome(self, run: Run) -> dict[str, float]:
        """The best epoch of a finished run."""
        best: dict[str, float] = {}
        for row in run.history():
            best = self._better(best, row)
        return best | {"num_parameters": run.result()["num_parameters"]}

    def _better(self, best: dict[str, float], row: dict[str, float]) -> dict[str, float]:
        key, sign = self.workload.monitor, 1 if self.workload.mode == "min" else -1
        if key not in row or not (key not in best or sign * row[key] < sign * best[key]):
            return best
        return row

    def _send(self) -> None:
        from ray import tune

        if not self.sweep.pauses:
            tune.report(self.last)
            return
        with tempfile.TemporaryDirectory(prefix="raydeck-") as folder:
            (Path(folder) / EPOCH).write_text(str(self.last["epoch"]))
            tune.report(self.last, checkpoint=tune.Checkpoint.from_directory(folder))


class TrialSession(Session):
    """A trial with one worker, inside the trial's own actor.

    Args:
        report: Takes an epoch and the best so far.
        span: Epochs back from the newest of which all checkpoints are kept.
    """

    final = False
    shows_progress = False

    def __init__(self, report: Callable[[dict[str, float], dict[str, float]], None], span: int) -> None:
        self.report, self.span = report, span

    def trainer_arguments(self, accelerator: str, find_unused_parameters: bool) -> dict[str, Any]:
        return {"accelerator": accelerator, "devices": 1}


class Relay:
    """Between the workers of a trial and the trial: an actor that holds a report until it is answered."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[Any] = asyncio.Queue()
        self.answers: asyncio.Queue[bool] = asyncio.Queue()

    async def report(self, row: dict[str, float], best: dict[str, float]) -> bool:
        """Hand in a report; returns whether to go on, once that is decided."""
        await self.reports.put((row, best))
        return await self.answers.get()

    async def take(self, seconds: float) -> tuple[dict[str, float], dict[str, float]] | None:
        """The next report, or None if none comes in time."""
        try:
            return await asyncio.wait_for(self.reports.get(), seconds)
        except TimeoutError:
            return None

    async def answer(self, go_on: bool) -> None:
        await self.answers.put(go_on)


class RelayedSession(TrainSession):
    """A worker of a trial with several.

    Args:
        run: The trial's run.
        watchdog: Its rank's.
        relay: Handle of a :class:`Relay`.
        span: Epochs back from the newest of which all checkpoints are kept.
    """

    final = False
    moves = False  # Tune itself starts a lost trial anew

    def __init__(self, run: Run, watchdog: Watchdog, relay: Any, span: int) -> None:
        super().__init__(run, watchdog)
        self.relay, self.span = relay, span

    def report(self, row: dict[str, float], best: dict[str, float]) -> None:
        import ray
        import ray.train

        # The other ranks wait for this one in the next exchange between them.
        if ray.train.get_context().get_world_rank() == 0 and not ray.get(self.relay.report.remote(row, best)):
            self.signum = signal.SIGTERM


def train_trial(config: dict[str, Any], sweep: Sweep) -> None:
    """What Tune runs for each trial; ``config`` is ``{"asked": {"trial": name, "point": point}}``.

    Tune starts a failed trial again, whatever it failed from. One that would fail again does so at once.

    Raises:
        RunFailed: The trial failed.
    """
    job = sweep.job_of(**config["asked"])
    job.go_there()
    run = Run(Folder(job.directory))
    with run.lock(PATIENCE):
        before = run.result().get("failure")
        if before and not Failure.read(before).retried:
            raise RunFailed(Failure.read(before))
        try:
            _train_trial(job, run, sweep)
        except Exception as error:
            failure = classify(error)
            with suppress(OSError):
                run.write_result(status="failed", failure=failure.told())
            raise RunFailed(failure) from error


def _train_trial(job: Job, run: Run, sweep: Sweep) -> None:
    """Train a trial, with each of its seeds, and report it."""
    reporter = Reporter(sweep, _known_epoch())
    train = _with_workers if job.placement.workers > 1 else _here
    if sweep.search.scheduler == "pbt" and run.folder.exists("config.yaml"):
        workload = workloads.load(job.workload)  # pbt may have altered it since
        run.folder.write("config.yaml", workload.to_yaml(job.config).encode())
    reporter.repeat(run.history())
    train(job, sweep, reporter.report)
    outcomes = [reporter.outcome(run)]
    for k in range(1, sweep.search.seeds):
        config = job.config | {"seed": job.config["seed"] + k}
        another = Run(Folder(f"{job.directory}/seed-{k}"))
        if another.result().get("status") != "finished":
            train(replace(job, config=config, directory=str(another.folder)), sweep, reporter.beat)
        outcomes.append(reporter.outcome(another))
    if sweep.search.seeds > 1 or sweep.search.objectives:
        reporter.conclude(outcomes)


def _known_epoch() -> int:
    from ray import tune

    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        return int((Path(folder) / EPOCH).read_text())


def _span(sweep: Sweep) -> int:
    """pbt takes over a checkpoint of at most one interval ago; one more epoch may be saved before Tune hears of it."""
    return sweep.perturb_every + 1 if sweep.search.scheduler == "pbt" else 0


def _here(job: Job, sweep: Sweep, report: Callable[..., None]) -> None:
    Account(Folder(job.directory)).start()
    fit(job, TrialSession(report, _span(sweep)))


def _with_workers(job: Job, sweep: Sweep, report: Callable[..., None]) -> None:
    import ray

    run = Run(Folder(job.directory))
    run.folder.remove(STOP)
    relay = ray.remote(num_cpus=0)(Relay).remote()
    make_session = functools.partial(RelayedSession, relay=relay, span=_span(sweep))
    trainer = ray_trainer(job, attempt_name(run), make_session, job.placement.placement_timeout)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            trainer.fit()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    ENDING.clear()
    ENDED.clear()
    thread.start()
    try:
        while thread.is_alive():
            told = ray.get(relay.take.remote(0.5))
            if told:
                report(*told)  # does not return if Tune stops the trial
                ray.get(relay.answer.remote(True))
            elif ENDING.is_set():
                sys.exit()
    finally:
        run.folder.write(STOP, str(int(signal.SIGTERM)).encode())  # for workers in the middle of an epoch
        relay.answer.remote(False)  # for those that wait for an answer
        thread.join(END)
        run.folder.remove(STOP)
        ENDED.set()
    if failures:
        raise failures[0]


def trainable(function: Callable[..., None], sweep: Sweep) -> type:
    """What Tune runs, as a class that ends its workers before its actor goes.

    Tune lets the process of a stopped trial go at once. Ray Train's workers would then keep their CPUs for as long as
    it takes Ray to notice, while the next trial waits for them.
    """
    from ray import tune
    from ray.tune.trainable.function_trainable import wrap_function

    class Trial(wrap_function(tune.with_parameters(function, sweep=sweep))):
        def cleanup(self) -> None:
            try:
                super().cleanup()
            finally:
                end_workers()

    return Trial


def end_workers() -> None:
    """Wait until the workers of the trial in this process, if it has any, have ended."""
    ENDING.set()
    ENDED.wait(END)
