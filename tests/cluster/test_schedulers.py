"""Schedulers: what they remember of an earlier start, and how pbt alters a point."""

import pytest
from ray import tune
from ray.tune.schedulers import TrialScheduler

from cluster.schedulers import explorer, stopping

OPTIONS = {"monitor": "val/loss", "mode": "min", "grace": 1, "slots": 2}


class Trial:
    """What schedulers look at of a trial that has just started."""

    def __init__(self, name):
        self.trial_id = name


def history(*losses):
    return [{"epoch": k + 1, "val/loss": loss} for k, loss in enumerate(losses)]


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_lagging_trial_is_stopped_by_what_ended_in_an_earlier_start(scheduler):
    ended = [(f"{k:04d}", history(0.5, 0.4, 0.3)) for k in range(1, 7)]
    fresh, remembering = (stopping(scheduler, max_epochs=9, ended=known, **OPTIONS) for known in ([], ended))
    for rule, decision in ((fresh, TrialScheduler.CONTINUE), (remembering, TrialScheduler.STOP)):
        late = Trial("late")
        rule.on_trial_add(None, late)
        assert rule.on_trial_result(None, late, {"epoch": 1, "val/loss": 0.9}) == decision


def test_asha_lets_a_trial_that_reaches_its_last_epoch_end_by_itself():
    rule = stopping("asha", max_epochs=9, ended=[(str(k), history(*[0.1] * 9)) for k in range(9)], **OPTIONS)
    trial = Trial("last")
    rule.on_trial_add(None, trial)
    decisions = [rule.on_trial_result(None, trial, {"epoch": k, "val/loss": 0.09}) for k in range(1, 9)]
    decisions.append(rule.on_trial_result(None, trial, {"epoch": 9, "val/loss": 5.0}))
    assert set(decisions) == {TrialScheduler.CONTINUE}


def test_a_shift_is_by_a_fifth_and_stays_within_its_domain():
    domains = {
        "lr": tune.loguniform(1e-3, 1e-1),
        "depth": tune.randint(1, 9),
        "smoothing": tune.choice([0.0, 0.1, 0.2]),
    }
    explore = explorer(domains, seed=0)
    point = {"lr": 0.09, "depth": 4, "smoothing": 0.1, "kept": "as it is"}
    seen = [explore(point) for _ in range(300)]
    assert point == {"lr": 0.09, "depth": 4, "smoothing": 0.1, "kept": "as it is"}
    assert all(1e-3 <= p["lr"] <= 1e-1 and 1 <= p["depth"] <= 8 and p["kept"] == "as it is" for p in seen)
    shifted = [p["lr"] for p in seen if p["lr"] in (pytest.approx(0.072), 0.1)]
    assert 0.65 < len(shifted) / 300 < 0.85  # three quarters are shifted, 0.108 only as far as 0.1; the rest drawn anew
    assert {p["smoothing"] for p in seen} == {0.0, 0.1, 0.2}
    assert all(isinstance(p["depth"], int) for p in seen)
    inactive = explore({"smoothing": 0.0})
    assert set(inactive) == {"smoothing"}
    again = explorer(domains, seed=0)
    assert [again(point) for _ in range(300)] == seen
