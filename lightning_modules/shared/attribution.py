"""Which parts of an input moved an answer.

Shapes: B batch, T steps, D features, K logits (1, or the number of classes).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_modules.shared.objectives import Output

POINTS = 64
"""Points on the path along which gradients are integrated."""


def class_logits(output: Output, logits_BK: Tensor) -> Tensor:
    """A logit for each class, shape (B, classes), also of a binary output; a number's logit as it is."""
    return torch.cat([torch.zeros_like(logits_BK), logits_BK], dim=1) if output == "binary" else logits_BK


def log_odds(logits_BK: Tensor, chosen_B: Tensor) -> Tensor:
    """Log odds of one class against all others, shape (B,); of a single logit, the logit."""
    chosen_B1 = chosen_B[:, None]
    if logits_BK.shape[1] == 1:
        return logits_BK[:, 0]
    others_B = logits_BK.scatter(1, chosen_B1, -torch.inf).logsumexp(dim=1)
    return logits_BK.gather(1, chosen_B1)[:, 0] - others_B


def integrated_gradients(score: Callable[[Tensor], Tensor], inputs_BTD: Tensor) -> Tensor:
    """Mean gradient of a score along the straight path from zeros to the inputs, by the midpoint rule.

    M. Sundararajan, A. Taly and Q. Yan 2017, "Axiomatic Attribution for Deep Networks", arXiv:1703.01365.

    Args:
        score: Makes of inputs one number for each example, shape (B,), which depends on that example alone.
        inputs_BTD: Where the path ends.

    Returns:
        Shape (B, T, D). Times the inputs, and summed, it is the score's rise along the path.
    """
    total_BTD = torch.zeros_like(inputs_BTD)
    for point in range(POINTS):
        with torch.enable_grad():
            between_BTD = (inputs_BTD * ((point + 0.5) / POINTS)).requires_grad_()
            total_BTD += torch.autograd.grad(score(between_BTD).sum(), between_BTD)[0]
    return total_BTD / POINTS
