"""A Lightning Trainer that shows and keeps nothing: for evaluation, and for networks that are trained on the side."""

from typing import Any

import pytorch_lightning as L

from workloads._machine import Machine


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
