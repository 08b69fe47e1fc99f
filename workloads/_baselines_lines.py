"""What an adversary's lines stand beside: the same generator by likelihood alone, real lines, and tokens at random."""

import torch

from workloads._trainer import retrained
from workloads.data._ragged import PAD
from workloads.data.lines import Lines


def lines(data: Lines) -> dict[str, float]:
    """The quoted metric of as many lines as the test split has.

    By likelihood alone: the same generator, for as many epochs as the whole run has, and the epoch that is best on
    validation. Real lines of training. Tokens as frequent as in training, in no order.
    """
    test, train = (
        data.splits[name].gather(torch.arange(len(data.splits[name])))["tokens"] for name in ("test", "train")
    )
    generator = torch.Generator().manual_seed(0)
    real = train[torch.randperm(len(train), generator=generator)[: len(test)]]
    tokens = train[train != PAD]
    mixed = tokens[torch.randint(len(tokens), test.shape, generator=generator)].masked_fill(test == PAD, PAD)
    return {
        "likelihood alone": by_likelihood(data),
        "real training lines": data.scores("test", {"tokens": real})[data.metric],
        "tokens in no order": data.scores("test", {"tokens": mixed})[data.metric],
    }


def by_likelihood(data: Lines) -> float:
    """The quoted metric of the same generator, trained by likelihood for as many epochs as the run."""
    epochs = data.trainer.max_epochs
    found = retrained(data, {"pretrain_epochs": epochs}, monitor="val/criterion", mode="min", max_epochs=epochs)
    return found[f"test/{data.metric}"]
