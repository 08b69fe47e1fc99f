"""What to train: one file a workload, and the file is its own registration.

This module needs the standard library alone, so that ``raydeck list`` and name checks import neither torch nor Ray.
"""

import ast
import difflib
import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workloads._spec import Workload


def names() -> list[str]:
    """Names of all workloads, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_") and not m.ispkg)


def check(name: str) -> str:
    """Return ``name`` if there is such a workload.

    Raises:
        ValueError: There is none; the message names the nearest and all others.
    """
    known = names()
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"no workload {name!r}; {hint}there are: {', '.join(known)}")


def load(name: str) -> "Workload":
    """Import a workload (and with it torch).

    Raises:
        ValueError: No such workload.
    """
    return importlib.import_module(f"workloads.{check(name)}").WORKLOAD


def describe(name: str) -> dict[str, str]:
    """What a workload's file says of itself, read from its source without running it.

    Returns:
        ``name, summary, task, architecture, data, metric, result``, all text. ``result`` is the docstring's measured
        result with its command, or empty.
    """
    tree = ast.parse((Path(__path__[0]) / f"{check(name)}.py").read_text(encoding="utf-8"))
    doc = (ast.get_docstring(tree) or "").strip()
    summary, _, rest = doc.partition("\n")
    assigned = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    call = assigned["WORKLOAD"]
    assert isinstance(call, ast.Call), f"workloads/{name}.py: WORKLOAD = Workload(...) is expected"
    given = {k.arg: k.value for k in call.keywords}
    text = {k: v.value for k, v in given.items() if isinstance(v, ast.Constant)}
    return {
        "name": name,
        "summary": summary.rstrip("."),
        "task": str(text.get("task", "")),
        "architecture": ast.unparse(given["model"]),
        "data": ast.unparse(given["data"]),
        "metric": str(text.get("metric", "")),
        "result": " ".join(rest.split()),
    }
