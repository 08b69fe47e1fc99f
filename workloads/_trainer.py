"""Training and evaluation that show and keep nothing: for figures that stand beside a run's."""

import copy
import tempfile
from collections.abc import Mapping
from typing import Any, Literal

import pytorch_lightning as L
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from workloads._machine import Machine
from workloads.data._base import DataModule


def silent_trainer(machine: Machine, **options: Any) -> L.Trainer:
    """A Trainer on one device of a machine.

    Args:
        machine: What to run on.
        options: Further arguments of the Trainer.
    """
    return L.Trainer(
        accelerator=machine.accelerator,
        devices=1,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"precision": machine.precision, "enable_checkpointing": False, **options},
    )


def retrained(
    data: DataModule, changes: Mapping[str, Any], *, monitor: str, mode: Literal["min", "max"], max_epochs: int
) -> dict[str, float]:
    """Train the network of a finished run once more, on its data and with its seed, but for some changes.

    As of a run itself, the epoch that is best on validation is tested.

    Args:
        data: The run's data module, still attached to its trainer.
        changes: Arguments of the module that differ.
        monitor: Validation metric that ranks epochs.
        mode: Whether a lower or a higher one is better.
        max_epochs: Passes over the data.

    Returns:
        Test metrics, as ``test/<name>``.
    """
    run = data.trainer.lightning_module
    torch.manual_seed(data.seed)
    model = type(run)(**{**run.hparams, **changes})
    model.gradient_clip_val = run.gradient_clip_val
    alone = copy.copy(data)
    alone.trainer = None
    with tempfile.TemporaryDirectory(prefix="raydeck-") as scratch:
        best = ModelCheckpoint(scratch, monitor=monitor, mode=mode)
        trainer = silent_trainer(
            data.machine, max_epochs=max_epochs, callbacks=[best], enable_checkpointing=True, default_root_dir=scratch
        )
        trainer.fit(model, datamodule=alone)
        return trainer.test(model, datamodule=alone, ckpt_path=best.best_model_path, weights_only=True, verbose=False)[
            0
        ]
