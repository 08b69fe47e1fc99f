"""What a sweep knows of its trials: one record a trial, in the trial's own directory, from which a sweep goes on.

Ray Tune's own snapshots are not used. They are pickles, they lag behind a killed driver, and a torn one would start the
sweep anew; a trial's directory holds what counts in any case.
"""

import json
import math
import time
from dataclasses import asdict, dataclass, field
from typing import Literal

from cluster import console
from cluster.folder import Folder
from cluster.retrying import StorageError
from cluster.spaces import Point

Status = Literal["waiting", "running", "paused", "finished", "stopped early", "out of time", "failed"]
ENDED: tuple[Status, ...] = ("finished", "stopped early", "failed")
"""A trial that ran out of time is not among them: with a larger budget it goes on."""


@dataclass
class Record:
    """One trial.

    Args:
        trial: Its name, and that of its directory.
        point: What it chose: see :mod:`cluster.spaces`.
        status: How it stands.
        best: Its score: the best value of the monitored metric, over several seeds their mean.
        epochs: Epochs of its first seed.
        seconds: Seconds of training of its first seed.
        until: Sweep time in seconds at which it ended or was last heard of.
        scores: The best value of each seed that was trained to the end.
        values: Objective to its value at the best epoch.
        error: Why it failed, in a line.
    """

    trial: str
    point: Point
    status: Status = "waiting"
    best: float | None = None
    epochs: int = 0
    seconds: float = 0.0
    until: float = 0.0
    scores: list[float] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def score(self) -> float | None:
        """``best`` if it is a finite number."""
        return self.best if self.best is not None and math.isfinite(self.best) else None


def trial_name(number: int) -> str:
    """The name of a sweep's trial, by its number from 0; people count from 1."""
    return f"{number + 1:04d}"


class Ledger:
    """The records of a sweep.

    Args:
        folder: The sweep's directory.
        mode: Whether a lower or a higher score is better.
        seeds: Seeds a trial is trained with when it is not stopped early.
        keep: Ended trials, best first, whose checkpoints are kept; 0 keeps all.
        spent: Seconds that earlier starts have taken.
    """

    def __init__(self, folder: Folder, mode: Literal["min", "max"], *, seeds: int, keep: int, spent: float) -> None:
        self.folder, self.mode, self.seeds, self.keep = folder / "trials", mode, seeds, keep
        self.records = {record.trial: record for record in self._read()}
        self.dropped: set[str] = set()
        spent = max([spent, *(record.until for record in self.records.values())])
        self.began = time.monotonic() - spent

    def elapsed(self) -> float:
        """Seconds that the sweep has taken, all starts together."""
        return time.monotonic() - self.began

    def put(self, record: Record) -> None:
        """Take up a trial, or what has become of it, and write it down."""
        self.records[record.trial] = record
        folder = self.folder / record.trial
        try:
            folder.create()
            folder.write("trial.json", json.dumps(asdict(record), indent=1).encode())
            if record.ended:
                self._keep_to_budget()
        except StorageError as error:  # trials go on; what is not written here is done again by a later start
            console.warn(f"trial {record.trial} is not written down: {error}")

    def ranked(self) -> list[Record]:
        """Those with a score, best first; those with all their seeds before those that were stopped early."""
        scored = [record for record in self.records.values() if record.score is not None]
        complete = self.seeds if self.seeds > 1 else 0
        sign = 1 if self.mode == "min" else -1
        return sorted(scored, key=lambda r: (len(r.scores) < complete, sign * r.score, r.trial))

    def best(self) -> Record | None:
        ranked = self.ranked()
        return ranked[0] if ranked else None

    def count(self, *statuses: Status) -> int:
        return sum(record.status in statuses for record in self.records.values())

    def _keep_to_budget(self) -> None:
        """Drop the checkpoints of ended trials that are not among the best. Others may yet be gone on with."""
        if not self.keep:
            return
        kept = {record.trial for record in [r for r in self.ranked() if r.ended][: self.keep]}
        ended = {record.trial for record in self.records.values() if record.ended}
        for trial in ended - kept - self.dropped:
            self.dropped.add(trial)
            for part in ("", *(f"/seed-{k}" for k in range(1, self.seeds))):
                (self.folder / f"{trial}{part}").remove("checkpoints")

    def _read(self) -> list[Record]:
        found = []
        for name in self.folder.folders():
            try:
                values = json.loads((self.folder / name).read("trial.json"))
            except FileNotFoundError:
                continue  # killed before it was written: the trial starts anew
            found.append(Record(**values))
        return found
