"""Losses, metrics and answers of the four kinds of output that a network can have.

========== ============================ =========================== ==========================================
output     logits                       target                      loss
========== ============================ =========================== ==========================================
binary     one: log odds of class 1     class index                 binary cross entropy
multiclass one a class                  class index                 cross entropy
regression one: standardised value      standardised value          mean squared error
count      one: logarithm of the rate   count                       Poisson negative log likelihood
========== ============================ =========================== ==========================================

Shapes: B examples, K logits (1, or the number of classes).
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanMetric, MeanSquaredError, Metric, R2Score
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

Output = Literal["binary", "multiclass", "regression", "count"]


def num_logits(output: Output, num_outputs: int) -> int:
    """K: the width of a network's last layer.

    Raises:
        ValueError: The data has no labels to predict.
    """
    if output not in get_args(Output):
        raise ValueError("the data has no labels to learn from; put each class into a folder, or name their column")
    return num_outputs if output == "multiclass" else 1


def check(*, dropout: float, label_smoothing: float) -> None:
    """Refuse strengths out of range, when a module is built.

    Raises:
        ValueError: One of them is; one line that names its key.
    """
    for key, value in (("dropout", dropout), ("label_smoothing", label_smoothing)):
        if not 0 <= value < 1:
            raise ValueError(f"model.{key}: expected a fraction from 0 to below 1, got {value}")


def loss(output: Output, logits_BK: Tensor, target_B: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean loss of a batch.

    Args:
        output: What the logits stand for.
        logits_BK: The network's answer.
        target_B: Class indices (int64), or floats.
        label_smoothing: Part of the target's probability that is spread evenly over all classes, in [0, 1); for classes
            alone.

    Returns:
        A scalar.
    """
    if output == "multiclass":
        return F.cross_entropy(logits_BK, target_B, label_smoothing=label_smoothing)
    logit_B, target_B = logits_BK.squeeze(1), target_B.to(logits_BK.dtype)
    if output == "binary":
        smooth_B = target_B * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logit_B, smooth_B)
    if output == "regression":
        return F.mse_loss(logit_B, target_B)
    return F.poisson_nll_loss(logit_B, target_B, log_input=True)


def probabilities(output: Output, logits_BK: Tensor) -> Tensor:
    """Probability of each class, shape (B, classes); two columns for binary."""
    if output == "binary":
        return torch.cat([-logits_BK, logits_BK], dim=1).sigmoid()
    return logits_BK.softmax(dim=1)


def values(output: Output, logits_BK: Tensor) -> Tensor:
    """Predicted value, shape (B,): the standardised value of a regression, the expected count of a count."""
    return logits_BK.squeeze(1).exp() if output == "count" else logits_BK.squeeze(1)


def answer(output: Output, logits_BK: Tensor) -> dict[str, Tensor]:
    """What ``predict_step`` returns: ``probability`` (B, classes), or ``value`` (B,)."""
    logits_BK = logits_BK.float()
    if output in ("binary", "multiclass"):
        return {"probability": probabilities(output, logits_BK)}
    return {"value": values(output, logits_BK)}


class R2(R2Score):
    """Coefficient of determination; not a number for fewer than two examples, where it is undefined."""

    def compute(self) -> Tensor:
        return super().compute() if self.total >= 2 else torch.full_like(self.sum_error, torch.nan)


class Metrics(nn.Module):
    """Loss and metrics of one split, accumulated over batches and summed over ranks.

    Every example counts once, whatever the sizes of the batches. Classes: accuracy and f1 (unweighted mean over
    classes). Regression: r2, and mae and rmse in the target's own units. Count: mae. The loss is without smoothing, so
    that runs that smooth differently can be compared.

    Args:
        output: What the logits stand for.
        num_outputs: Number of classes, for multiclass.
        target_scale: Standard deviation of a regression's target in its own units.
    """

    def __init__(self, output: Output, num_outputs: int, target_scale: float) -> None:
        super().__init__()
        self.output, self.target_scale = output, target_scale
        self.loss = MeanMetric()
        self.scores = nn.ModuleDict()
        if output in ("binary", "multiclass"):
            num_classes = max(2, num_outputs)
            self.scores["accuracy"] = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
            self.scores["f1"] = MulticlassF1Score(num_classes, average="macro", validate_args=False)
        else:
            self.scores["mae"] = MeanAbsoluteError()
        if output == "regression":
            self.scores["r2"] = R2()
            self.scores["rmse"] = MeanSquaredError(squared=False)

    def update(self, logits_BK: Tensor, target_B: Tensor) -> None:
        """Add a batch."""
        logits_BK = logits_BK.float()
        self.loss.update(loss(self.output, logits_BK, target_B), weight=len(target_B))
        if self.output in ("binary", "multiclass"):
            predicted_B = probabilities(self.output, logits_BK).argmax(dim=1)
        else:
            predicted_B = values(self.output, logits_BK) * self.target_scale
            target_B = target_B * self.target_scale
        for score in self.scores.values():
            score.update(predicted_B, target_B)

    def named(self, split: str) -> dict[str, Metric]:
        """``split/name`` to metric, for ``log_dict``, which computes, synchronises and resets them once an epoch."""
        return {f"{split}/loss": self.loss} | {f"{split}/{name}": score for name, score in self.scores.items()}
