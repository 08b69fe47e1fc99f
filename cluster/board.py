"""What a sweep shows and writes down as it runs."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from ray import tune

from cluster import console
from cluster.failures import of_text
from cluster.ledger import Ledger, Record

SHOWN = 15
"""Trials in the live table."""


class Board(tune.Callback):
    """Keeps the ledger, and shows it: a live table in a terminal, a line an ended trial when redirected.

    Args:
        ledger: The sweep's records.
        monitor: The metric that ranks trials.
        total: Trials of the sweep.
        max_epochs: Epochs of a trial that is not stopped early.
        budget: Seconds the sweep may take; None for no limit.
    """

    def __init__(self, ledger: Ledger, monitor: str, total: int, max_epochs: int, budget: float | None) -> None:
        self.ledger, self.monitor, self.total = ledger, monitor, total
        self.max_epochs, self.budget = max_epochs, budget
        self.live: Any = None
        self.drawn = 0.0

    def setup(self, **info: Any) -> None:
        if sys.stderr.isatty() and self.live is None:
            from rich.console import Console
            from rich.live import Live

            self.live = Live(self._table(), console=Console(stderr=True), auto_refresh=False)
            self.live.start()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        asked = trial.config["asked"]
        record = self.ledger.records.get(asked["trial"])
        if record is None:
            self.ledger.put(Record(asked["trial"], asked["point"], status="running"))
        else:
            record.status = "running"

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._record(trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._record(trial, trial.last_result)
        record.status = "finished" if self._is_finished(record) else "stopped early"
        if record.status != "finished" and self.out_of_time():
            record.status = "out of time"
        self._end(record)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._record(trial, trial.last_result)
        # Where Tune notes it first; `get_error` looks where it will have been copied to.
        record.status, record.error = "failed", of_text(Path(trial.error_file).read_text(encoding="utf-8"))
        self._end(record)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self.live is None or time.monotonic() - self.drawn < 0.5:
            return
        self.drawn = time.monotonic()
        for trial in trials:
            record = self.ledger.records.get(trial.config["asked"]["trial"])
            if record and not record.ended:
                told = {"RUNNING": "running", "PAUSED": "paused", "PENDING": "waiting"}
                record.status = told.get(trial.status, record.status)
        self.live.update(self._table(), refresh=True)

    def out_of_time(self) -> bool:
        """Whether the sweep has used up its time."""
        return self.budget is not None and self.ledger.elapsed() >= self.budget

    def close(self) -> None:
        if self.live is not None:
            self.live.update(self._table(), refresh=True)
            self.live.stop()
            self.live = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks into snapshots, which a sweep does not go on from

    def _record(self, trial: Any, result: dict[str, Any] | None) -> Record:
        """The record of a trial, brought up to date."""
        record = self.ledger.records[trial.config["asked"]["trial"]]
        if result and "epoch" in result:
            record.best, record.epochs, record.seconds = result["best"], result["epoch"], result["seconds"]
            record.values, record.scores = dict(result["values"]), list(result["scores"])
        record.until = self.ledger.elapsed()
        return record

    def _is_finished(self, record: Record) -> bool:
        """Whether a trial ended by itself: its run says so, since patience can end one before its last epoch."""
        try:
            result = json.loads((self.ledger.folder / record.trial).read("result.json"))
        except FileNotFoundError:
            return False
        whole = len(record.scores) == self.ledger.seeds or self.ledger.seeds == 1
        return result.get("status") == "finished" and whole

    def _end(self, record: Record) -> None:
        self.ledger.put(record)
        if self.live is None:
            ended = self.ledger.count("finished", "stopped early", "out of time", "failed")
            best = self.ledger.best()
            console.say(
                f"trial {record.trial} {record.status}  epoch {record.epochs}  {self.monitor} "
                f"{console.number(record.best)}  ({ended}/{self.total}, best {console.number(best and best.best)})"
                + (f"  {record.error}" if record.error else "")
            )

    def _left(self) -> str:
        """The time left, as far as it can be told."""
        elapsed = self.ledger.elapsed()
        part = sum(1.0 if r.ended else r.epochs / self.max_epochs for r in self.ledger.records.values()) / self.total
        left = elapsed * (1 - part) / part if part else None
        if self.budget is not None:
            left = self.budget - elapsed if left is None else min(left, self.budget - elapsed)
        return "?" if left is None else console.duration(max(0.0, left))

    def _table(self) -> Any:
        from rich.console import Group
        from rich.table import Table

        ledger, best = self.ledger, self.ledger.best()
        counts = [(name, ledger.count(name)) for name in ("running", "paused", "finished", "stopped early", "failed")]
        told = ", ".join(f"{count} {name}" for name, count in counts if count or name in ("running", "failed"))
        table = Table()
        for column in ("trial", "status", "epoch", self.monitor):
            table.add_column(column)
        busy = sorted((r for r in ledger.records.values() if r.status in ("running", "paused")), key=lambda r: r.trial)
        best_ended = [record for record in ledger.ranked() if record.status not in ("running", "paused")]
        for record in (busy[: SHOWN - 5] + best_ended)[:SHOWN]:
            table.add_row(record.trial, record.status, str(record.epochs), console.number(record.best))
        return Group(
            f"{self.total} trials: {told}; best {self.monitor} {console.number(best and best.best)}"
            + (f" (trial {best.trial})" if best else ""),
            f"{console.duration(ledger.elapsed())} so far, about {self._left()} left",
            table,
        )
