"""The live table of a sweep."""

import sys
import time
from typing import Any

from ray import tune

from cluster import console


class Board(tune.Callback):
    """Shows a sweep as it runs: a live table in a terminal, a line a finished trial when redirected.

    Args:
        monitor: The metric that ranks trials.
        mode: Whether a lower or a higher value is better.
        total: Trials of the sweep.
    """

    def __init__(self, monitor: str, mode: str, total: int) -> None:
        self.monitor, self.mode, self.total = monitor, mode, total
        self.began = time.monotonic()
        self.rows: dict[str, dict[str, Any]] = {}
        self.live: Any = None

    def setup(self, **info: Any) -> None:
        if sys.stderr.isatty() and self.live is None:
            from rich.console import Console
            from rich.live import Live

            self.live = Live(self._table(), console=Console(stderr=True), auto_refresh=False)
            self.live.start()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._note(trial, "running")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._note(trial, "running", result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._note(trial, "done", trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._note(trial, "failed", trial.last_result)

    def get_state(self) -> dict[str, Any]:
        return {"rows": self.rows, "elapsed": time.monotonic() - self.began}

    def set_state(self, state: dict[str, Any]) -> None:
        self.rows, self.began = state["rows"], time.monotonic() - state["elapsed"]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"live": None}  # Tune pickles its callbacks; a live display has locks

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def _note(self, trial: Any, status: str, result: dict[str, Any] | None = None) -> None:
        row = self.rows.setdefault(trial.trial_id, {"epoch": 0, "best": None})
        row["status"] = status
        if result and "epoch" in result:
            row |= {"epoch": result["epoch"], "best": result.get("best")}
        if self.live is not None:
            self.live.update(self._table(), refresh=True)
        elif status != "running":
            console.say(self._line(trial.trial_id))

    def _best(self) -> float | None:
        values = [row["best"] for row in self.rows.values() if row["best"] is not None]
        return (min if self.mode == "min" else max)(values) if values else None

    def _finished(self) -> int:
        return sum(row["status"] != "running" for row in self.rows.values())

    def _line(self, trial_id: str) -> str:
        row = self.rows[trial_id]
        return (
            f"trial {trial_id} {row['status']}  epoch {row['epoch']}  {self.monitor} {console.number(row['best'])}  "
            f"({self._finished()}/{self.total}, best {console.number(self._best())})"
        )

    def _table(self) -> Any:
        from rich.console import Group
        from rich.table import Table

        finished, elapsed = self._finished(), time.monotonic() - self.began
        failed = sum(row["status"] == "failed" for row in self.rows.values())
        left = console.duration(elapsed / finished * (self.total - finished)) if finished else "?"
        stand = (
            f"{finished}/{self.total} trials, {failed} failed, best {self.monitor} "
            f"{console.number(self._best())}, {console.duration(elapsed)} so far, about {left} left"
        )
        table = Table()
        for column in ("trial", "status", "epoch", self.monitor):
            table.add_column(column)
        shown = sorted(self.rows.items(), key=lambda item: (item[1]["status"] != "running", item[0]))
        for trial_id, row in shown[:15]:
            table.add_row(trial_id, row["status"], str(row["epoch"]), console.number(row["best"]))
        return Group(stand, table)
