"""Whether the network of a point of a search space can be built, found without allocating it or starting a worker."""

from collections.abc import Iterator, Mapping
from typing import Any

from ray.tune.search.sample import Domain, Float

from cluster.spaces import Point, Space, draws, points_of
from tune_spaces import Several
from workloads._spec import Config, Workload, is_key

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

    def perturbable(self) -> dict[str, Domain]:
        """The dimensions that may change while a trial trains: those that leave every tensor of the network as it is.

        Augmentation and the like, ranges of ``data.*``, may change too; the data's choices may not, for they can
        decide what is read. Whether a dimension of ``model.*`` shapes the network is found by building it.
        """
        found: dict[str, Domain] = {}
        base = next(self.buildable(draws(self.space, seed=0)))
        for name, domain in self.space.dimensions().items():
            if not is_key(name.partition("|")[0]) or _is_part_of_list(name, self.space.choices):
                continue
            if name.startswith("data."):
                if isinstance(domain, Float):
                    found[name] = domain
            elif name.startswith("model.") and self._same_shapes(base, name, domain):
                found[name] = domain
        return found

    def _same_shapes(self, base: Point, name: str, domain: Domain) -> bool:
        if name not in base:  # inactive in this point: another branch of the same key, whose active one decides
            return isinstance(domain, Float)
        try:
            networks = [self.build(base | {name: value}) for value in points_of(domain)]
        except (ValueError, RuntimeError):
            return False
        shapes = [{key: tuple(value.shape) for key, value in n.state_dict().items()} for n in networks]
        return all(shape == shapes[0] for shape in shapes)


def _is_part_of_list(name: str, choices: Mapping[str, Any]) -> bool:
    return isinstance(choices.get(name.rpartition(".")[0]), Several)
