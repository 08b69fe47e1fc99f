"""Optimizers and learning-rate schedules.

Settled here once: weight decay spares biases and normalisation, the schedule moves at every optimizer step and is a
function of that step alone, so that a run resumed with more epochs follows the longer schedule from where it is.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

OptimizerName = Literal["adamw", "sgd"]
Schedule = Literal["constant", "cosine", "step"]

MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to move the parameters of a module.

    Args:
        optimizer: adamw, or sgd with Nesterov momentum 0.9.
        lr: Largest learning rate.
        weight_decay: Decoupled (adamw) or L2 (sgd) decay of weights; biases and normalisation have none.
        schedule: See :func:`lr_factor`.
        warmup: Fraction of all steps over which the rate first rises, in [0, 1).
        betas: How much AdamW remembers of the gradient and of its square, each in [0, 1).

    Raises:
        ValueError: A value is out of range; one line that names its key.
    """

    optimizer: OptimizerName
    lr: float
    weight_decay: float
    schedule: Schedule
    warmup: float
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"model.lr: expected more than 0, got {self.lr}")
        if self.weight_decay < 0:
            raise ValueError(f"model.weight_decay: expected at least 0, got {self.weight_decay}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"model.warmup: expected a fraction of all steps, from 0 to below 1, got {self.warmup}")


def configure(module: LightningModule, settings: Settings) -> dict[str, Any]:
    """What ``configure_optimizers`` returns, for all parameters of a module that is attached to a trainer."""
    trainer = module.trainer
    num_steps = int(trainer.estimated_stepping_batches)
    return configured(module, settings, precision=trainer.precision, num_steps=num_steps)


def configured(network: nn.Module, settings: Settings, *, precision: str, num_steps: int) -> dict[str, Any]:
    """Optimizer and schedule of a network, in Lightning's notation.

    Args:
        network: What is to be moved.
        settings: How.
        precision: The trainer's.
        num_steps: Steps of the whole training.
    """
    # A fused optimizer unscales gradients by itself, which rules out clipping them under 16-mixed.
    optimizer = build(network, settings, fused=precision != "16-mixed")
    if precision == "bf16-mixed" and hasattr(optimizer, "_step_supports_amp_scaling"):
        # Lightning 2.6 refuses to clip by the same rule under bf16-mixed, where nothing is scaled.
        optimizer._step_supports_amp_scaling = False
    # A plain function, not an object: PyTorch would keep an object's state, hence the old number of steps, on resume.
    scheduler = LambdaLR(
        optimizer, lambda step: lr_factor(step, num_steps, schedule=settings.schedule, warmup=settings.warmup)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def build(module: nn.Module, settings: Settings, *, fused: bool) -> Optimizer:
    """The optimizer alone."""
    groups = decay_groups(module, settings.weight_decay)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=fused)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=MOMENTUM, nesterov=True, fused=fused)


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: weights, which decay, and vectors (biases, normalisation), which do not."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def lr_factor(step: int, num_steps: int, *, schedule: Schedule, warmup: float) -> float:
    """What to multiply the learning rate with at a step.

    It rises linearly over the first ``warmup * num_steps`` steps and reaches 1 with the last of them. Then it stays
    (constant), falls to 0 along half a cosine over the rest of training (cosine; Loshchilov and Hutter 2017,
    arXiv:1608.03983), or is 1, from half of all steps 0.1, and from three quarters 0.01 (step).

    Args:
        step: Optimizer steps taken so far.
        num_steps: Optimizer steps of the whole training.
        schedule: What follows the rise.
        warmup: Fraction of ``num_steps``, in [0, 1).

    Returns:
        A factor in [0, 1].
    """
    num_warmup = math.ceil(warmup * num_steps)
    if step < num_warmup:
        return (step + 1) / num_warmup
    if schedule == "cosine":
        progress = (step - num_warmup) / max(1, num_steps - num_warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    if schedule == "step":
        return 0.1 ** ((2 * step >= num_steps) + (4 * step >= 3 * num_steps))
    return 1.0
