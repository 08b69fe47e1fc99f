"""What to search: one file a workload, with ``SPACE``, dotted config key to what may be chosen for it.

A choice is a domain of ``ray.tune`` (``uniform``, ``loguniform``, ``randint``, ``choice`` ...), a plain value, which is
then fixed, or one of the two below, whose parts exist only under a condition.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Several(NamedTuple):
    """A list of a chosen length, each of whose items is chosen by itself: the width of every block of a chosen depth.

    Args:
        least: Fewest items.
        most: Most items.
        each: Domain of one item.
    """

    least: int
    most: int
    each: Any


class Given(NamedTuple):
    """A choice that depends on another: the learning rate's range given the optimizer.

    Args:
        key: Dotted key of the other choice, which does not itself depend on a third.
        domains: Value of that key to the domain here; for other values the key keeps its default.
    """

    key: str
    domains: Mapping[Any, Any]
