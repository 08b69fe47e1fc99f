"""Whether the network of a point of a search space can be built, found without allocating it or starting a worker."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from ray.tune.search.sample import Domain, Float

from cluster.spaces import Point, Space, draws, points_of
from tune_spaces import Several
from workloads._spec import Config, Workload

TRIES = 100
"""Points in a row that cannot be built, after which a space is given up."""


class Builder:
    """Builds the network of a point without allocating it, to tell beforehand whether it can be built at all.

    Args:
        workload: The sweep's workload.
        config: The config that points vary.
        space: The space.
        decided: What the data decides of the network: see :meth:`Workload.decided`.
    """

    def __init__(self, workload: Workload, config: Config, space: Space, decided: Mapping[str, Any]) -> None:
        self.workload, self.config, self.space, self.decided = workload, config, space, decided

    def config_of(self, point: Point) -> Config:
        """The config of a point.

        Raises:
            ValueError: A value is not one that its key takes.
        """
        return self.workload.config(self.config, self.space.overrides(point))

    def build(self, point: Point) -> Any:
        """The network of a point, on the meta device.

        Raises:
            ValueError: It cannot be built.
        """
        import torch

        with torch.device("meta"):
            return self.workload.build_model(self.config_of(point), self.decided)

    def fault(self, point: Point) -> str | None:
        """Why the network of a point cannot be built; None if it can."""
        try:
            self.build(point)
        except (ValueError, RuntimeError) as error:
            return " ".join(str(error).split())
        return None

    def buildable(self, points: Iterator[Point]) -> Iterator[Point]:
        """Those that can be built.

        Raises:
            ValueError: A hundred in a row could not be.
        """
        faults = 0
        for point in points:
            fault = self.fault(point)
            if fault is None:
                faults = 0
                yield point
                continue
            faults += 1
            if faults == TRIES:
                raise ValueError(f"{TRIES} points of the space in a row cannot be built; the last: {fault}")

    @functools.cached_property
    def perturbable(self) -> dict[str, Domain]:
        """The dimensions that may change while a trial trains: numbers that leave every tensor of the network as it is.

        Whether a dimension of ``model.*`` shapes the network is found by building it. Of ``data.*`` ranges may change,
        such as those of augmentation; choices may not, for they can decide what is read.
        """
        found: dict[str, Domain] = {}
        base = next(self.buildable(draws(self.space, seed=0)))
        for name, domain in self.space.dimensions().items():
            numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in points_of(domain))
            if not numbers or isinstance(self.space.choices.get(name.rpartition(".")[0]), Several):
                continue
            if name.startswith("data."):
                if isinstance(domain, Float):
                    found[name] = domain
            elif name.startswith("model.") and self._same_shapes(base, name, domain):
                found[name] = domain
        return found

    def _same_shapes(self, base: Point, name: str, domain: Domain) -> bool:
        if "|" in name:  # of a key whose range depends on another: take a point in which this one is active
            base = self._active(name, base)
        try:
            networks = [self.build(base | {name: value}) for value in points_of(domain)]
        except (ValueError, RuntimeError):
            return False
        shapes = [{key: tuple(value.shape) for key, value in n.state_dict().items()} for n in networks]
        return all(shape == shapes[0] for shape in shapes)

    def _active(self, name: str, base: Point) -> Point:
        return next((p for p in self.buildable(draws(self.space, seed=0)) if name in p), base)
