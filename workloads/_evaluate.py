"""Using a finished run: evaluate its best checkpoint, predict with it. Needs no cluster."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytorch_lightning as L
import torch

from workloads._machine import Machine
from workloads._spec import Config, Workload, choices
from workloads._trainer import silent_trainer
from workloads.data._base import DataModule, Inputs, Reader
from workloads.data._batches import Batches


def restore(
    workload: Workload, config: Config, checkpoint: Path, machine: Machine
) -> tuple[L.LightningModule, DataModule]:
    """The module and the data module of a checkpoint; no data is read.

    Args:
        workload: The run's workload.
        config: The run's config, with any overrides of ``data``.
        checkpoint: Checkpoint file.
        machine: What to run on.
    """
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = workload.model(**saved["hyper_parameters"])
    model.load_state_dict(saved["state_dict"])
    data = workload.build_data(config, machine)
    data.load_state_dict(saved[type(data).__qualname__])
    data.attach(model)
    return model.eval(), data


def evaluate(model: L.LightningModule, data: DataModule, machine: Machine, whole: bool) -> dict[str, float]:
    """Test metrics.

    Args:
        model: A restored module.
        data: Its data module.
        machine: What to run on.
        whole: Evaluate on all of the source, unless it brings a test split; for data the run was not cut from.

    Raises:
        ValueError: The data is at fault, or does not fit the model.
    """
    data.setup("whole" if whole else "test")
    trainer = silent_trainer(machine)
    metrics = trainer.test(model, datamodule=data, verbose=False)[0]
    return {key.removeprefix("test/"): value for key, value in metrics.items()}


def predict(
    model: L.LightningModule,
    data: DataModule,
    reader: Reader,
    machine: Machine,
    paths: Sequence[str],
    options: Mapping[str, Any] = MappingProxyType({}),
    say: Callable[[str], None] | None = None,
) -> tuple[Inputs, list[dict[str, Any]]]:
    """Answers for a person's inputs.

    Args:
        model: A restored module.
        data: Its data module.
        reader: What encodes the inputs and words the answers.
        machine: What to run on.
        paths: The inputs.
        options: Values for keyword-only arguments of ``reader.encode`` and ``model.predict_step``.
        say: Called with what a module that answers step by step has to say, as it comes.

    Returns:
        The encoded inputs, and for each a mapping that starts with its ``input`` name.

    Raises:
        ValueError: An input is missing or broken, or an option out of range.
    """
    of_data, of_model = (
        {k: v for k, v in options.items() if k in choices(f)} for f in (reader.encode, model.predict_step)
    )
    inputs = reader.encode(paths, **of_data)
    device = torch.device("cuda" if machine.accelerator == "gpu" else "cpu")
    model = model.to(device)
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(machine.precision)
    answers: list[dict[str, Any]] = []
    with torch.inference_mode(), torch.autocast(device.type, dtype) if dtype else nullcontext():
        batches = Batches(inputs.examples, data.batch_size)
        for k, batch in enumerate(batches):
            batch = data.on_after_batch_transfer({name: c.to(device) for name, c in batch.items()}, 0)
            outputs = model.predict_step(batch, k, **of_model)
            if isinstance(outputs, Iterator):
                outputs = _stacked(outputs, reader, say)
            answers += reader.answers({name: _on_cpu(output) for name, output in outputs.items()})
    # Like lengths share a batch: the answers are put back into the order of the inputs.
    place = torch.cat(batches.plan).argsort().tolist()
    return inputs, [{"input": name, **answers[k]} for name, k in zip(inputs.names, place, strict=True)]


def _stacked(
    steps: Iterator[dict[str, torch.Tensor]], reader: Reader, say: Callable[[str], None] | None
) -> dict[str, torch.Tensor]:
    """The outputs of all steps, each stacked along a second dimension."""
    taken = []
    for outputs in steps:
        taken.append(outputs)
        if say is not None:
            say(reader.spoken({name: _on_cpu(output) for name, output in outputs.items()}))
    return {name: torch.stack([outputs[name] for outputs in taken], dim=1) for name in taken[0]}


def _on_cpu(output: torch.Tensor) -> torch.Tensor:
    """An output on the CPU, and of floating point numbers in 32 bit."""
    return output.float().cpu() if output.is_floating_point() else output.cpu()
