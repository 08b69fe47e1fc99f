"""Attempts of a run: whether another one is made, and what they cost."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cluster import console
from cluster.failures import RunFailed
from cluster.folder import Folder

FILE = ".account"
"""File in the run directory with the account, also of attempts that earlier commands have made."""
EVERY, EVERY_REMOTE = 1.0, 20.0
"""Seconds between notes of how far training is, on a local disk and elsewhere."""
FACTOR = 0.5
"""What the learning rate is multiplied by when a run has gone back because its loss was not finite."""


class Account:
    """What the interruptions of a run have cost, since its first start and over all commands that went on with it.

    ==============  ================================================================================================
    attempts        Times that the run was started, by a command or again after a failure.
    steps_redone    Optimizer steps that an attempt took and that were lost with it, because they came after the
                    checkpoint from which the next one went on. Known to the second (elsewhere than on a local disk: to
                    20 seconds).
    seconds_lost    Wall-clock seconds since training first began that went into no step that was kept: into steps that
                    were lost, and the time from each interruption to the next step, whoever caused it.
    goodput         Share of the wall-clock time, from the run's first start to the end of its training or to now, that
                    went into steps that were kept, their validation and saving included; from 0 to 1. The start of the
                    first attempt counts as time without a step. The time between the end of a finished run and the
                    command that goes on with it for more epochs does not count.
    ==============  ================================================================================================

    Args:
        folder: The run directory.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.noted = time.monotonic()
        try:
            self.values: dict[str, Any] = json.loads(folder.read(FILE))
        except (FileNotFoundError, json.JSONDecodeError):
            self.values = {"started": time.time()}

    @property
    def attempts(self) -> int:
        return self.values.get("attempts", 0)

    @property
    def rollbacks(self) -> int:
        """Times that the run has gone back because its loss was not finite: 0 or 1."""
        return self.values.get("rollbacks", 0)

    def open(self) -> None:
        """A command takes the run up."""
        if "ended" in self.values:
            away = time.time() - self.values.pop("ended")
            self.values["started"] += away
            self.values["trained"] += away
        self._write()

    def start(self) -> None:
        """One more attempt starts."""
        self.values["attempts"] = self.attempts + 1
        self.folder.create()
        self._write()

    def begin(self, step: int, seconds: float) -> None:
        """Training goes on from a checkpoint.

        Args:
            step: Optimizer steps that it holds; 0 without one.
            seconds: Seconds of training that it holds.
        """
        if "trained" not in self.values:
            self.values["trained"] = time.time() - seconds  # of a run from before there were accounts
            self.values["started"] -= seconds
        self.values["redone"] = self.values.get("redone", 0) + max(0, self.values.get("step", 0) - step)
        self.save(step, seconds)

    def due(self) -> bool:
        """Whether it is time for a note."""
        return time.monotonic() - self.noted > (EVERY if self.folder.is_local else EVERY_REMOTE)

    def note(self, step: int) -> None:
        """So many optimizer steps are taken."""
        self.values["step"] = step
        with suppress(OSError):  # training does not depend on it
            self._write()

    def save(self, step: int, seconds: float) -> None:
        """A checkpoint is stored that holds so many steps and seconds of training."""
        self.values["kept"] = seconds
        self.note(step)

    def end(self, step: int, seconds: float) -> dict[str, Any]:
        """Training has ended and is stored; returns what ``result.json`` says of it."""
        self.values["ended"] = time.time()
        self.save(step, seconds)
        return self.told()

    def roll_back(self) -> bool:
        """Whether the run may go back because its loss is not finite: once. Notes that it does."""
        if self.rollbacks:
            return False
        self.values["rollbacks"] = 1
        self._write()
        return True

    def told(self) -> dict[str, Any]:
        """What ``result.json`` says of it."""
        now, kept = self.values.get("ended", time.time()), self.values.get("kept", 0.0)
        wall, training = now - self.values["started"], now - self.values.get("trained", now)
        return {
            "attempts": self.attempts,
            "steps_redone": self.values.get("redone", 0),
            "seconds_lost": round(max(0.0, training - kept), 3),
            "goodput": round(min(1.0, kept / wall), 4) if wall > 0 else 0.0,
        }

    def _write(self) -> None:
        self.noted = time.monotonic()
        self.folder.write(FILE, json.dumps(self.values).encode(), durable=False)


def persevere(folder: Folder, retries: int, attempt: Callable[[], None]) -> None:
    """Make attempts until one succeeds, or fails in a way that another one would not mend.

    A lost or hung worker is made good ``retries`` times. A loss that is not finite is made good once in the life of a
    run: with half the learning rate, from the last checkpoint. Every attempt goes on from there by itself.

    Args:
        folder: The run directory.
        retries: Attempts after a lost or hung worker; those after a node was taken back do not count.
        attempt: Raises RunFailed.

    Raises:
        RunFailed: The last attempt's.
    """
    left = retries
    while True:
        try:
            return attempt()
        except RunFailed as error:
            failure = error.failure
            account = Account(folder)
            if failure.kind == "nan_loss" and account.roll_back():
                where = "the last checkpoint" if account.values.get("kept") else "the start"
                console.warn(f"{failure.message}; going back to {where}, once, with half the learning rate")
                continue
            if not failure.retried or not (left or failure.kind == "preempted"):
                raise
            left -= failure.kind != "preempted"  # it was announced, and nobody's fault
            more = f"{left} more such failure{'s' if left != 1 else ''}" if left else "no further failure"
            console.warn(f"{failure.message}; going on from the last checkpoint, with room for {more}")
