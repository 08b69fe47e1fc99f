"""What an adversary's lines stand beside: the same generator by likelihood alone, real lines, and tokens at random."""

import copy
import tempfile

import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from workloads._trainer import silent_trainer
from workloads.data._ragged import PAD
from workloads.data.lines import Lines

MONITOR = "val/criterion"


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
    run = data.trainer
    torch.manual_seed(data.seed)
    model = type(run.lightning_module)(**{**run.lightning_module.hparams, "pretrain_epochs": run.max_epochs})
    model.gradient_clip_val = run.lightning_module.gradient_clip_val
    alone = copy.copy(data)
    alone.trainer = None
    with tempfile.TemporaryDirectory(prefix="raydeck-") as scratch:
        best = ModelCheckpoint(scratch, monitor=MONITOR, mode="min")
        trainer = silent_trainer(
            data.machine,
            max_epochs=run.max_epochs,
            callbacks=[best],
            enable_checkpointing=True,
            default_root_dir=scratch,
        )
        trainer.fit(model, datamodule=alone)
        values = trainer.test(model, datamodule=alone, ckpt_path=best.best_model_path, weights_only=True, verbose=False)
    return values[0][f"test/{data.metric}"]
