"""The ``trainer.*`` keys: how long and how carefully to train, wherever that happens."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long and how carefully to train.

    Args:
        max_epochs: Passes over the training split.
        precision: Arithmetic of the forward pass. auto is bf16-mixed on a GPU that has it natively, bf16-native also on
            a CPU that has (AMX, AVX-512 BF16), and both are 32 bit elsewhere; 16-mixed needs a GPU.
        gradient_clip_val: Largest L2 norm of the gradient; 0 leaves it unclipped.
        accumulate_grad_batches: Batches whose gradients are summed before an optimizer step.
        early_stopping_patience: Validations without improvement of the monitored metric before stopping; 0 never
            stops early.
        check_val_every_n_epoch: Epochs between validations.
        compile: Compile the network with torch.compile. Pays on a GPU and in long runs; off by default.
        log_gradient_norms: Record the L2 norm of the gradient before clipping, of all parameters and of each part of
            the network: mean and largest of an epoch, in metrics.csv.
        sample_every_n_steps: Steps from one picture of what the network makes to the next, under samples/ in the run,
            where it makes something; 0 draws none.
        deterministic: Refuse operations that have no deterministic implementation.
    """

    max_epochs: int = 10
    precision: Literal["auto", "bf16-native", "32", "bf16-mixed", "16-mixed"] = "auto"
    gradient_clip_val: float = 0.0
    accumulate_grad_batches: int = 1
    early_stopping_patience: int = 0
    check_val_every_n_epoch: int = 1
    compile: bool = False
    log_gradient_norms: bool = False
    sample_every_n_steps: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        for name, least in (
            ("max_epochs", 1),
            ("gradient_clip_val", 0),
            ("accumulate_grad_batches", 1),
            ("early_stopping_patience", 0),
            ("check_val_every_n_epoch", 1),
            ("sample_every_n_steps", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"trainer.{name}: expected at least {least}, got {getattr(self, name)}")
