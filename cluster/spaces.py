"""Search spaces: what may be chosen, drawn point by point, narrowed from the command line, and checked before it runs.

A point is what one trial chose: dimension to value. A dimension is a dotted key, or a part of one where a key's choice
has conditional parts: ``model.channels.length`` and ``model.channels.0`` of a list, ``model.lr|sgd`` of a range that
holds for one optimizer only. A point holds the dimensions that are active in it and no others.
"""

import importlib
import json
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.search.sample import Categorical, Domain, Float, Integer, LogUniform

from tune_spaces import Given, Several
from workloads._spec import Overrides, Workload, wrong_value

GRID_POINTS = 3
"""Points of a range that a grid search tries: its ends and its middle, on the range's own scale."""
LARGEST_GRID = 1_000
"""Combinations above which a grid search is refused."""
REPEATS = 1_000
"""Draws in a row that bring nothing new after which a space is taken to be exhausted."""

Point = dict[str, Any]
Ask = Callable[[str, Domain], Any]


@dataclass(frozen=True)
class Space:
    """What a sweep may choose.

    Args:
        choices: Dotted key to a domain, a :class:`Several`, a :class:`Given`, or a value that is fixed.
    """

    choices: Mapping[str, Any]

    def walk(self, ask: Ask) -> tuple[Point, Overrides]:
        """Decide every active dimension by ``ask(dimension, domain)``.

        Returns:
            The point, and the overrides of a config that it stands for.
        """
        point: Point = {}
        overrides: dict[str, Any] = {}

        def decide(name: str, domain: Any) -> Any:
            if not isinstance(domain, Domain):
                return domain
            point[name] = plain(ask(name, domain))
            return point[name]

        independent = [key for key, choice in self.choices.items() if not isinstance(choice, Given)]
        for key in independent:
            choice = self.choices[key]
            if isinstance(choice, Several):
                length = decide(f"{key}.length", tune.randint(choice.least, choice.most + 1))
                overrides[key] = [decide(f"{key}.{k}", choice.each) for k in range(length)]
            else:
                overrides[key] = decide(key, choice)
        for key, choice in self.choices.items():
            if isinstance(choice, Given):
                value = overrides[choice.key]
                if value in choice.domains:
                    overrides[key] = decide(f"{key}|{value}", choice.domains[value])
        return point, overrides

    def draw(self, random: Any) -> Point:
        """A random point; ``random`` is a ``numpy.random.RandomState``."""
        return self.walk(lambda name, domain: domain.sample(random_state=random))[0]

    def overrides(self, point: Point) -> Overrides:
        """What a point sets in a config."""
        return self.walk(lambda name, domain: point[name])[1]

    def dimensions(self) -> dict[str, Domain]:
        """Every dimension there can be."""
        found: dict[str, Domain] = {}
        for key, choice in self.choices.items():
            if isinstance(choice, Several):
                found[f"{key}.length"] = tune.randint(choice.least, choice.most + 1)
                found |= {f"{key}.{k}": choice.each for k in range(choice.most)}
            elif isinstance(choice, Given):
                found |= {f"{key}|{value}": domain for value, domain in choice.domains.items()}
            else:
                found[key] = choice
        return {name: domain for name, domain in found.items() if isinstance(domain, Domain)}

    def grid(self) -> list[Point]:
        """Every combination, with three points of each range.

        Raises:
            ValueError: There are too many.
        """
        points: list[Point] = []
        paths: list[list[int]] = [[]]
        while paths:  # a depth-first search: what has been decided may bring further dimensions
            path = paths.pop()
            asked: list[int] = []

            def ask(name: str, domain: Domain, path: list[int] = path, asked: list[int] = asked) -> Any:
                values = points_of(domain)
                k = len(asked)
                asked.append(len(values))
                if k >= len(path):
                    paths.extend([*path, *[0] * (k - len(path)), j] for j in range(len(values) - 1, 0, -1))
                return values[path[k] if k < len(path) else 0]

            points.append(self.walk(ask)[0])
            if len(points) + len(paths) > LARGEST_GRID:
                raise ValueError(
                    f"the grid has more than {LARGEST_GRID:,} combinations; use --search random with --trials, or fix "
                    "keys with --space.KEY VALUE"
                )
        return points

    def told(self) -> dict[str, str]:
        """Dotted key to its choice in words."""
        return {key: words(choice) for key, choice in self.choices.items()}


def load(workload: Workload, changes: Mapping[str, str] | None = None) -> Space:
    """A workload's space, changed by what the command line says of it.

    Args:
        workload: The workload.
        changes: Dotted key to text as of ``--space.KEY TEXT``: see :func:`parse_choice`.

    Raises:
        ValueError: It has none, names a key that there is not or that the data decides, or a change is at fault.
    """
    try:
        choices = dict(importlib.import_module(f"tune_spaces.{workload.name}").SPACE)
    except ModuleNotFoundError:
        raise ValueError(
            f"workload {workload.name!r} has no space: tune_spaces/{workload.name}.py is missing"
        ) from None
    known = workload.keys()
    for name, text in (changes or {}).items():
        key, _, part = name.rpartition(".")
        if part in ("length", "each") and isinstance(choices.get(key), Several):
            choices[key] = _narrow_several(choices[key], part, name, text, known[key])
            continue
        workload.check_keys([name], known)
        choices[name] = parse_choice(name, text, known[name], choices.get(name))
        for value in points_of(choices[name]):
            workload.config({name: value})
    workload.check_keys(choices, known)
    for key, choice in choices.items():
        if isinstance(choice, Given) and choice.key not in choices:
            raise ValueError(f"the space's {key} depends on {choice.key}, which is not in the space")
    return Space(choices)


def _narrow_several(several: Several, part: str, name: str, text: str, kind: Any) -> Several:
    if part == "each":
        item = typing.get_args(kind)[0]
        return several._replace(each=parse_choice(name, text, item, several.each))
    low, _, high = text.partition("..")
    try:
        least, most = int(low), int(high or low)
    except ValueError:
        raise ValueError(f"--space.{name}: expected a length such as 2 or 2..4, got {text!r}") from None
    if not 0 <= least <= most:
        raise ValueError(f"--space.{name}: expected a length such as 2 or 2..4, got {text!r}")
    return several._replace(least=least, most=most)


def parse_choice(key: str, text: str, kind: Any, before: Any) -> Any:
    """What ``--space.KEY TEXT`` says.

    Args:
        key: The key, for messages.
        text: A value, which fixes the key; values with commas between them, a choice; ``LOW..HIGH``, a range on the
            scale of the one it narrows, else linear, or with ``:log`` behind it logarithmic. A key that takes lists is
            given JSON: ``[16,32]`` fixes it, ``[[16],[16,32]]`` is a choice.
        kind: Declared type of the key.
        before: The space's own choice, if it has the key.

    Raises:
        ValueError: The text says nothing of the kind.
    """
    flag = f"--space.{key}"
    if ".." in text and "[" not in text:
        return _range(flag, text, kind, before)
    if "tuple" in str(kind):
        value = _value(flag, text, kind)
        several = value and all(isinstance(item, list) for item in value)
        return (tune.choice(value) if len(value) > 1 else value[0]) if several else value
    values = [_value(flag, part.strip(), kind) for part in text.split(",")]
    return tune.choice(values) if len(values) > 1 else values[0]


def _range(flag: str, text: str, kind: Any, before: Any) -> Domain:
    bounds, _, scale = text.partition(":")
    low, _, high = bounds.partition("..")
    logarithmic = scale == "log" or (isinstance(before, Domain) and is_logarithmic(before))
    try:
        ends = (float(low), float(high))
        if scale not in ("", "log") or not (0 if logarithmic else -math.inf) < ends[0] < ends[1] < math.inf:
            raise ValueError
    except ValueError:
        raise ValueError(f"{flag}: expected a range such as 0.1..0.5 or 1e-4..1e-2:log, got {text!r}") from None
    if kind is int:
        return (tune.lograndint if logarithmic else tune.randint)(int(ends[0]), int(ends[1]) + 1)
    return (tune.loguniform if logarithmic else tune.uniform)(*ends)


def _value(flag: str, text: str, kind: Any) -> Any:
    """A value of a key's kind in YAML's spelling; its place among the others is checked with the whole config."""
    import yaml

    try:
        value = yaml.safe_load(text)
        if kind is float and isinstance(value, (str, int)) and not isinstance(value, bool):
            value = float(value)  # YAML takes 1e-3 for text
        if "tuple" in str(kind) and not isinstance(value, list):
            raise ValueError
    except (yaml.YAMLError, ValueError):
        raise ValueError(wrong_value(flag, text, kind)) from None
    return value


def is_logarithmic(domain: Domain) -> bool:
    return isinstance(domain.get_sampler(), LogUniform)


def points_of(domain: Any) -> list[Any]:
    """The values of a domain that a grid tries."""
    if not isinstance(domain, Domain):
        return [domain]
    if isinstance(domain, Categorical):
        return list(domain.categories)
    low, high = bounds(domain)
    shares = [k / (GRID_POINTS - 1) for k in range(GRID_POINTS)]
    values = [low * (high / low) ** s if is_logarithmic(domain) else low + (high - low) * s for s in shares]
    return values if isinstance(domain, Float) else sorted({round(value) for value in values})


def bounds(domain: Float | Integer) -> tuple[float, float]:
    """The least and the greatest value of a range."""
    return domain.lower, domain.upper - (1 if isinstance(domain, Integer) else 0)


def words(choice: Any) -> str:
    """A choice as people would write it."""
    if isinstance(choice, Several):
        return f"{choice.least} to {choice.most} of ({words(choice.each)})"
    if isinstance(choice, Given):
        told = "; ".join(f"{value}: {words(domain)}" for value, domain in choice.domains.items())
        return f"given {choice.key}: {told}"
    if isinstance(choice, Categorical):
        return "one of " + ", ".join(json.dumps(value) for value in choice.categories)
    if isinstance(choice, (Float, Integer)):
        low, high = bounds(choice)
        return f"{low:g} to {high:g}{', logarithmic' if is_logarithmic(choice) else ''}"
    return f"fixed at {json.dumps(choice)}"


def plain(value: Any) -> Any:
    """A value that JSON takes: numpy's numbers as Python's own, tuples as lists."""
    if hasattr(value, "item"):
        return value.item()
    return list(value) if isinstance(value, tuple) else value


def draws(space: Space, seed: int) -> Iterator[Point]:
    """Different random points, the same ones for a seed; they end when 1,000 draws in a row bring nothing new."""
    import numpy as np

    random = np.random.RandomState(seed)
    seen: set[str] = set()
    repeated = 0
    while repeated < REPEATS:
        point = space.draw(random)
        name = json.dumps(point, sort_keys=True)
        repeated = repeated + 1 if name in seen else 0
        if name not in seen:
            seen.add(name)
            yield point


def change_flags(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Take ``--space.KEY TEXT`` out of a command line.

    Returns:
        Key to text, and the other arguments.

    Raises:
        ValueError: A flag lacks its text.
    """
    changes: dict[str, str] = {}
    rest: list[str] = []
    given = iter(arguments)
    for argument in given:
        if not argument.startswith("--space."):
            rest.append(argument)
            continue
        flag, equals, text = argument.partition("=")
        text = text if equals else next(given, "")
        if not text:
            raise ValueError(f"{flag}: expected a value, values with commas between them, or a range LOW..HIGH")
        changes[flag.removeprefix("--space.")] = text
    return changes, rest
