"""``raydeck show``: what a command would train, without training or allocating it."""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torchmetrics
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from cluster.placement import Placement
from workloads._machine import inspect
from workloads._spec import Config, Workload

ADAM_COPIES = 4
"""Weights, gradients and AdamW's two moments."""


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Shapes to show a network for, in place of those that the data decides; the data is then not read.

    Args:
        input_shape: Shape of one example, e.g. [1,28,28] or [4].
        output: Kind of output.
        num_outputs: Classes of a multiclass output, else 1.
    """

    input_shape: tuple[int, ...] | None = None
    output: Literal["binary", "multiclass", "regression", "count"] = "regression"
    num_outputs: int = 1


def describe(workload: Workload, config: Config, placement: Placement, shapes: Shapes) -> dict[str, Any]:
    """The config with its network's layers, counts and memory.

    Returns:
        ``config``, ``decided`` (by the data), ``layers`` (name, kind, output shape for a batch of B, parameters),
        ``num_parameters``, ``weights_bytes``, ``training_bytes`` (with gradients and AdamW's moments), ``machine``.

    Raises:
        ValueError: The network cannot be built, or the data is at fault.
    """
    machine = inspect(placement.accelerator, config["trainer"]["precision"], placement.cpus_per_worker or None)
    if shapes.input_shape is None:
        data = workload.build_data(config, machine)
        data.prepare_data()
        data.setup("fit")
        decided = workload.decided(data)
    else:
        given = {"input_shape": shapes.input_shape, "output": shapes.output, "num_outputs": shapes.num_outputs}
        decided = {k: v for k, v in given.items() if k in workload.links}
    with torch.device("meta"):
        model = workload.build_model(config, decided)
    count = sum(p.numel() for p in model.parameters())
    weights = sum(p.nbytes for p in model.parameters())
    return {
        "config": config,
        "decided": decided,
        "layers": layers(model, tuple(decided["input_shape"])) if "input_shape" in decided else layers(model, None),
        "num_parameters": count,
        "weights_bytes": weights,
        "training_bytes": weights * ADAM_COPIES,
        "machine": machine.describe(),
    }


def layers(model: nn.Module, input_shape: tuple[int, ...] | None) -> list[dict[str, Any]]:
    """The layers in the order they run, with output shapes; found by running the network on the meta device."""
    rows: list[dict[str, Any]] = []

    def note(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        shape = list(output.shape[1:]) if isinstance(output, torch.Tensor) else None
        counts = sum(p.numel() for p in module.parameters())
        kind = type(module).__name__.removeprefix("Parametrized")
        rows.append({"name": name, "kind": kind, "output": shape, "num_parameters": counts})

    leaves = [(name, m) for name, m in model.named_modules() if name and is_layer(name, m)]
    inputs = getattr(model, "example_input_array", None)
    if inputs is None and input_shape is not None:
        inputs = torch.empty(2, *input_shape, device="meta")
    if inputs is None:
        for name, module in leaves:
            note(name, module, None, None)
        return rows
    hooks = [m.register_forward_hook(functools.partial(note, name)) for name, m in leaves]
    model.eval()
    model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    for hook in hooks:
        hook.remove()
    return rows


def is_layer(name: str, module: nn.Module) -> bool:
    """Whether a module is a layer of the network rather than a container, a metric or what makes a layer's weights."""
    if ".parametrizations" in name or not (is_parametrized(module) or not list(module.children())):
        return False
    of_ours = type(module).__module__.startswith(("torch.", "lightning_modules"))
    return of_ours and not isinstance(module, torchmetrics.Metric)


def as_text(workload: Workload, config: Config, description: dict[str, Any]) -> str:
    """YAML that ``--config`` takes back; all the rest is in its comments."""
    rows = description["layers"]
    name_width = max(len(f"{row['name']} {row['kind']}") for row in rows)
    lines = [workload.to_yaml(config).rstrip(), ""]
    lines += [f"# decided by the data: {key} = {value}" for key, value in description["decided"].items()]
    lines += ["#", "# layer" + " " * (name_width - 3) + "output              parameters"]
    for row in rows:
        shape = "x".join(map(str, row["output"])) if row["output"] else "-"
        lines.append(
            f"# {row['name']} {row['kind']}".ljust(name_width + 4) + f"{shape:<18}{row['num_parameters']:>12,}"
        )
    lines += [
        "#",
        f"# {description['num_parameters']:,} parameters: {in_bytes(description['weights_bytes'])} of weights, "
        f"{in_bytes(description['training_bytes'])} with gradients and AdamW's moments",
        f"# machine: {description['machine']}",
    ]
    return "\n".join(lines)


def in_bytes(count: float) -> str:
    """Bytes in the largest unit that leaves at least one: 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
