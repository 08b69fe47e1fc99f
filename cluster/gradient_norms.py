"""How large gradients are while a run trains: whether they vanish or explode, and in which part."""

from typing import Any

import pytorch_lightning as L
import torch


class GradientNorms(L.Callback):
    """L2 norms of the gradient before clipping, at each optimizer step.

    Of all parameters the columns are ``train/grad_norm`` (mean over the epoch's steps) and ``train/grad_norm_max``; of
    a direct part of the module with parameters, say ``head``, ``train/grad_norm/head`` (mean). With several workers the
    gradient is their mean: DDP has averaged it by then. Where several optimizers move in turn, each part's mean is over
    the steps in which it has a gradient.
    """

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}
        self.largest: torch.Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "counts": self.counts, "largest": self.largest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sums, self.counts = state_dict["sums"], state_dict["counts"]
        self.largest = state_dict["largest"]

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        parts = {f"train/grad_norm/{name}": part for name, part in pl_module.named_children()}
        norms = {name: _norm(part) for name, part in {"train/grad_norm": pl_module, **parts}.items()}
        total = norms["train/grad_norm"]
        for name, norm in norms.items():
            if norm is not None:
                self.sums[name] = self.sums[name].to(norm.device) + norm if name in self.sums else norm
                self.counts[name] = self.counts.get(name, 0) + 1
        if total is not None:
            self.largest = total if self.largest is None else torch.maximum(self.largest.to(total.device), total)

    def take(self) -> dict[str, float]:
        """The epoch's columns; the next epoch begins anew."""
        if self.largest is None:
            return {}
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        row = {"train/grad_norm": means.pop("train/grad_norm"), "train/grad_norm_max": float(self.largest), **means}
        self.sums, self.counts, self.largest = {}, {}, None
        return row


def _norm(part: torch.nn.Module) -> torch.Tensor | None:
    """The norm of a part's gradient; None if it has none."""
    gradients = [p.grad for p in part.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients) if gradients else None
