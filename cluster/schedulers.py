"""Tune's schedulers, made to keep to a number of trials at a time and to remember trials of an earlier start.

Tune starts every trial that finds resources. That is right for schedulers that stop trials, but pbt and hyperband pause
them, need all of them from the start, and must choose themselves which goes on: here their trials wait paused.
"""

import random
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, Literal

from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search.sample import Categorical, Domain, Float

from cluster.spaces import Point, bounds, plain

REDUCTION = 3
"""One trial in this many goes on at each rung of asha and hyperband."""
QUANTILE = 0.25
"""Part of pbt's population that is replaced by as many of the best."""
RESAMPLE = 0.25
"""Probability that pbt draws a setting anew instead of shifting it."""
FACTORS = (0.8, 1.2)
"""What pbt multiplies a setting with, as in the paper."""

History = list[dict[str, float]]


class Asha(AsyncHyperBandScheduler):
    """Stops trials that lag behind at the rungs."""

    def remember(self, trials: Iterable[tuple[str, History]]) -> None:
        """Take the rungs of ended trials from what they wrote down."""
        for name, history in trials:
            known = SimpleNamespace(trial_id=name)
            self.on_trial_add(None, known)
            for row in history:
                self.on_trial_result(None, known, row)


class Median(MedianStoppingRule):
    """Stops trials whose best is below the median of the others' means."""

    def remember(self, trials: Iterable[tuple[str, History]]) -> None:
        """Take the means of ended trials from what they wrote down."""
        for name, history in trials:
            for row in history:
                if self._metric in row:
                    self.on_trial_complete(None, name, row)


class Gate:
    """Lets at most ``slots`` trials run at a time; the others wait paused until the scheduler chooses them."""

    slots: int

    def on_trial_add(self, controller: Any, trial: Trial) -> None:
        super().on_trial_add(controller, trial)
        if trial.status == Trial.PENDING:
            trial.set_status(Trial.PAUSED)
            self.admit(trial)

    def admit(self, trial: Trial) -> None:
        """Make a new trial one that the scheduler may choose."""
        return

    def choose_trial_to_run(self, controller: Any) -> Trial | None:
        busy = sum(trial.status in (Trial.RUNNING, Trial.PENDING) for trial in controller.get_trials())
        return super().choose_trial_to_run(controller) if busy < self.slots else None


class HyperBand(Gate, HyperBandScheduler):
    """Successive halving in groups that wait for each other."""

    def admit(self, trial: Trial) -> None:
        self._trial_info[trial][0].trials_to_unpause.add(trial)


class Population(Gate, PopulationBasedTraining):
    """Population based training, in step: every trial waits at an interval's end until all are there.

    Otherwise what happens would depend on which trial is faster, and the first to arrive could never be taken over
    from, for Tune keeps a checkpoint of a trial only once it knows that others are worse.

    Args:
        slots: Trials at a time.
        max_epochs: Epochs of a trial; at the last nothing is altered any more.
        explore: Gives the altered point of a point.
        clone: Called with the trial that takes over, the one it takes over from, the latter's result to start from and
            the new point, while neither is training; makes the first go on from there.
        options: Of Tune's own scheduler.
    """

    def __init__(
        self,
        slots: int,
        max_epochs: int,
        explore: Callable[[Point], Point],
        clone: Callable[[str, str, dict[str, Any], Point], None],
        **options: Any,
    ) -> None:
        super().__init__(custom_explore_fn=lambda config: config, log_config=False, synch=True, **options)
        self.slots, self.max_epochs, self.explore, self.clone = slots, max_epochs, explore, clone

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if result["epoch"] >= self.max_epochs:
            return self.CONTINUE
        return super().on_trial_result(controller, trial, result)

    def choose_trial_to_run(self, controller: Any) -> Trial | None:
        chosen = super().choose_trial_to_run(controller)
        statuses = {trial.status for trial in controller.get_trials()}
        if chosen is None and Trial.PAUSED in statuses and not statuses & {Trial.RUNNING, Trial.PENDING}:
            # All wait for one that has ended, or failed, in the meantime.
            self._next_perturbation_sync += self._perturbation_interval
            chosen = super().choose_trial_to_run(controller)
        return chosen

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        """Where Tune lets a subclass decide on the settings; the weights are taken over at the same time.

        Tune itself would hand on a checkpoint that it keeps. Ours lies in the other trial's directory, which may drop
        it once that trial goes on; so it is copied now.
        """
        mine, theirs = trial.config["asked"], trial_to_clone.config["asked"]
        point = self.explore(theirs["point"])
        self.clone(mine["trial"], theirs["trial"], self._trial_state[trial_to_clone].last_result, point)
        return {"asked": {"trial": mine["trial"], "point": point}}, {}


def explorer(dimensions: dict[str, Domain], seed: int) -> Callable[[Point], Point]:
    """How pbt alters a point: each perturbable dimension is drawn anew or shifted a little, within its domain.

    Args:
        dimensions: What may be altered.
        seed: Decides the alterations.
    """
    import numpy as np

    draw, numpy_draw = random.Random(seed), np.random.RandomState(seed)

    def explore(point: Point) -> Point:
        altered = dict(point)
        for name, domain in dimensions.items():
            if name not in point:
                continue
            if draw.random() < RESAMPLE:
                altered[name] = plain(domain.sample(random_state=numpy_draw))
            elif isinstance(domain, Categorical):
                k = domain.categories.index(point[name]) + draw.choice((-1, 1))
                altered[name] = domain.categories[min(max(k, 0), len(domain.categories) - 1)]
            else:
                low, high = bounds(domain)
                value = min(max(point[name] * draw.choice(FACTORS), low), high)
                altered[name] = value if isinstance(domain, Float) else round(value)
        return altered

    return explore


def stopping(
    scheduler: Literal["asha", "hyperband", "median", "fifo"],
    *,
    monitor: str,
    mode: str,
    max_epochs: int,
    grace: int,
    slots: int,
    ended: Iterable[tuple[str, History]],
) -> TrialScheduler:
    """A scheduler that stops trials, or none.

    Args:
        scheduler: Its name.
        monitor: The metric it compares.
        mode: Whether a lower or a higher value is better.
        max_epochs: Epochs of a trial that is not stopped.
        grace: Epochs before a trial may be stopped.
        slots: Trials at a time.
        ended: Trials of an earlier start that have ended, with what they reported.
    """
    options: dict[str, Any] = {"time_attr": "epoch", "metric": monitor, "mode": mode}
    if scheduler == "asha":
        grace = min(grace, max_epochs)
        asha = Asha(
            **options,
            max_t=max(grace, max_epochs - 1),  # a rung at the very end would stop nothing but the trial's summing up
            grace_period=grace,
            reduction_factor=REDUCTION,
            stop_last_trials=False,
        )
        asha.remember(ended)
        return asha
    if scheduler == "median":
        # Without samples to compare with, Tune's rule would pause a trial after each epoch to let others run first.
        median = Median(**options, grace_period=grace, min_time_slice=float("inf"))
        median.remember(ended)
        return median
    if scheduler == "hyperband":
        hyperband = HyperBand(**options, max_t=max_epochs, reduction_factor=REDUCTION, stop_last_trials=False)
        hyperband.slots = slots
        return hyperband
    return FIFOScheduler()
