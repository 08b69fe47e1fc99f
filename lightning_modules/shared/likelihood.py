"""How likely a network finds texts: in nats per token and per character, and as perplexity.

Shapes: B examples, T tokens, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

PAD = 0
"""The token that fills up a batch."""


def nats(logits_BTV: Tensor, target_BT: Tensor) -> Tensor:
    """Negative log likelihood of each target, shape (B * T,); 0 where there is none (``PAD``)."""
    return F.cross_entropy(logits_BTV.flatten(0, 1).float(), target_BT.flatten(), ignore_index=PAD, reduction="none")


class Ratio(Metric):
    """A sum over a sum, of all batches and workers.

    Args:
        exponential: Whether its exponential is what is wanted, as for perplexity.
    """

    def __init__(self, exponential: bool = False) -> None:
        super().__init__()
        self.exponential = exponential
        for name in ("total", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, total: Tensor, count: Tensor) -> None:
        self.total += total
        self.count += count

    def compute(self) -> Tensor:
        ratio = self.total / self.count
        return ratio.exp() if self.exponential else ratio


class Metrics(nn.Module):
    """Likelihood of a split's texts: loss (nats per token), perplexity (of a token), and nats per character.

    Nats per character are all tokens' nats, those of the texts' ends among them, over the characters of the text: what
    different tokenizers can be compared by.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loss, self.perplexity, self.nats_per_character = Ratio(), Ratio(exponential=True), Ratio()

    def update(self, logits_BTV: Tensor, target_BT: Tensor, characters_B: Tensor) -> None:
        """Add a batch."""
        total, num_tokens = nats(logits_BTV, target_BT).double().sum(), (target_BT != PAD).sum()
        self.loss.update(total, num_tokens)
        self.perplexity.update(total, num_tokens)
        self.nats_per_character.update(total, characters_B.sum())

    def named(self, split: str) -> dict[str, Metric]:
        """``split/name`` to metric, for ``log_dict``, which computes, synchronises and resets them once an epoch."""
        return {f"{split}/{name}": metric for name, metric in self.named_children()}
