"""Optuna's samplers as a search algorithm of Tune's."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ray.tune.search import Searcher
from ray.tune.search.sample import Categorical, Domain, Float

from cluster.building import TRIES, Builder
from cluster.ledger import Record, trial_name
from cluster.spaces import Point, bounds, is_logarithmic
from workloads._extras import need


class OptunaSearch(Searcher):
    """Chooses each point after those that have ended: by TPE, for several objectives by NSGA-II.

    A trial that was stopped early counts with the epoch it got to, as Optuna's pruned trials do.

    Args:
        builder: Knows the space and which points can be built.
        objectives: Objective to min or max.
        seed: Decides the choices, given the results.
        max_epochs: Epochs of a trial that is not stopped early.
        records: Trials of an earlier start: what has ended is learnt from, what has not is asked again, first.
    """

    def __init__(
        self,
        builder: Builder,
        *,
        objectives: dict[str, str],
        seed: int,
        max_epochs: int,
        records: Sequence[Record],
    ) -> None:
        super().__init__(metric=next(iter(objectives)), mode=next(iter(objectives.values())))
        optuna = _optuna()
        self.builder, self.objectives, self.max_epochs = builder, objectives, max_epochs
        samplers = optuna.samplers
        sampler = samplers.TPESampler(seed=seed) if len(objectives) == 1 else samplers.NSGAIISampler(seed=seed)
        directions = ["minimize" if mode == "min" else "maximize" for mode in objectives.values()]
        self.study = optuna.create_study(sampler=sampler, directions=directions)
        self.asked: dict[str, Any] = {}
        self.unfinished = [record for record in records if not record.ended]
        self.count = len(records)
        self._learn(record for record in records if record.ended)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        if self.unfinished:
            record = self.unfinished.pop(0)
            self.study.enqueue_trial(self._encoded(record.point))
            trial = self.study.ask()
            return self._ask(trial_id, trial, record.trial, self._draw(trial))
        for _ in range(TRIES):
            trial = self.study.ask()
            point = self._draw(trial)
            fault = self.builder.fault(point)
            if fault is None:
                self.count += 1
                return self._ask(trial_id, trial, trial_name(self.count - 1), point)
            self.study.tell(trial, state=_optuna().trial.TrialState.FAIL)
        raise ValueError(f"{TRIES} points of the space in a row cannot be built; the last: {fault}")

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial, state = self.asked.pop(trial_id), _optuna().trial.TrialState
        values = self._values(result or {})
        if error or values is None:
            self.study.tell(trial, state=state.FAIL)
        elif len(values) == 1 and result["epoch"] < self.max_epochs:
            trial.report(values[0], int(result["epoch"]))
            self.study.tell(trial, state=state.PRUNED)
        else:
            self.study.tell(trial, values)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: a sweep goes on from what its trials wrote down. Tune looks for the file."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """See :meth:`save`."""
        return

    def _values(self, result: dict[str, Any]) -> list[float] | None:
        """The objectives' values in a report; None if one is missing or not finite."""
        if len(self.objectives) == 1:
            values = [result.get("best")]
        else:
            values = [result.get(f"values/{name}", result.get("values", {}).get(name)) for name in self.objectives]
        return values if all(v is not None and math.isfinite(v) for v in values) else None

    def _ask(self, trial_id: str, trial: Any, name: str, point: Point) -> dict[str, Any]:
        self.asked[trial_id] = trial
        return {"asked": {"trial": name, "point": point}}

    def _draw(self, trial: Any) -> Point:
        return self.builder.space.walk(lambda name, domain: _suggest(trial, name, domain))[0]

    def _encoded(self, point: Point) -> dict[str, Any]:
        """A point in Optuna's terms: a category is its JSON text, for lists are no values to Optuna."""
        domains = self.builder.space.dimensions()
        return {k: json.dumps(v) if isinstance(domains[k], Categorical) else v for k, v in point.items()}

    def _learn(self, records: Iterable[Record]) -> None:
        optuna = _optuna()
        state = optuna.trial.TrialState
        domains = self.builder.space.dimensions()
        for record in records:
            values = self._values({"best": record.best, "values": record.values})
            if values is None:
                continue
            pruned = len(values) == 1 and record.epochs < self.max_epochs
            self.study.add_trial(
                optuna.trial.create_trial(
                    state=state.PRUNED if pruned else state.COMPLETE,
                    values=None if pruned else values,
                    params=self._encoded(record.point),
                    distributions={name: _distribution(optuna, domains[name]) for name in record.point},
                    intermediate_values={record.epochs: values[0]} if pruned else None,
                )
            )


def _optuna() -> ModuleType:
    optuna = need("optuna", "search")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _suggest(trial: Any, name: str, domain: Domain) -> Any:
    if isinstance(domain, Categorical):
        return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in domain.categories]))
    suggest = trial.suggest_float if isinstance(domain, Float) else trial.suggest_int
    return suggest(name, *bounds(domain), log=is_logarithmic(domain))


def _distribution(optuna: ModuleType, domain: Domain) -> Any:
    if isinstance(domain, Categorical):
        return optuna.distributions.CategoricalDistribution([json.dumps(value) for value in domain.categories])
    kinds = optuna.distributions
    kind = kinds.FloatDistribution if isinstance(domain, Float) else kinds.IntDistribution
    return kind(*bounds(domain), log=is_logarithmic(domain))
