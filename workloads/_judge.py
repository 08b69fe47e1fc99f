"""A network that looks at pictures as a person would, to compare made pictures with real ones by what it sees.

It is the convolutional network of raydeck, trained on the data's own labels; of data without labels, the picture at low
resolution stands in for what it sees.

Shapes: N pictures, C channels, H rows, W columns, F features, K classes.
"""

import copy
import hashlib
import os
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.cnn import CNN
from workloads._extras import need
from workloads._trainer import silent_trainer
from workloads.data.images import Images

EPOCHS, LR, WEIGHT_DECAY, DROPOUT = 15, 3e-3, 1.0, 0.3
TURNS = {"rotation": 10.0, "scale": 0.1, "shear": 8.0, "horizontal_flip": False}
MOVES = 0.05
"""How it is trained: much as the workload ``cnn`` is, for a shorter time; moves are a part of a picture's side."""

SIDE = 8
"""Side of the low resolution, in pixels."""

CHUNK = 512
"""Pictures looked at at once."""


class Judge(nn.Module):
    """What is seen in pictures.

    Args:
        network: A trained network; None where the data has no classes.
    """

    def __init__(self, network: CNN | None) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures_NCHW: Tensor) -> Tensor:
        """Features of pictures of bytes, shape (N, F): the mean of each channel of the last block, or few pixels."""
        inputs_NCHW = pictures_NCHW.float() / 255
        if self.network is None:
            return F.adaptive_avg_pool2d(inputs_NCHW, SIDE).flatten(1)
        return self.network.blocks(inputs_NCHW.contiguous(memory_format=torch.channels_last)).mean(dim=(2, 3))

    @torch.inference_mode()
    def features(self, pictures_NCHW: Tensor) -> Tensor:
        """Features of any number of pictures of bytes, on the CPU."""
        return torch.cat([self(some).float().cpu() for some in pictures_NCHW.split(CHUNK)])

    @torch.inference_mode()
    def classes(self, pictures_NCHW: Tensor) -> Tensor:
        """The class that each picture looks most like, shape (N,)."""
        parts = [self.network(some.float() / 255).argmax(dim=1).cpu() for some in pictures_NCHW.split(CHUNK)]
        return torch.cat(parts)


def judge_of(data: Images) -> Judge:
    """The judge of a data module's training split; trained once, and kept in its ``cache_dir`` for other runs.

    Args:
        data: A prepared data module.
    """
    if data.num_classes < 2:
        return Judge(None)
    split = data.splits["train"]
    digest = hashlib.sha256(repr([EPOCHS, LR, WEIGHT_DECAY, DROPOUT, TURNS, MOVES, data.classes]).encode())
    for index in torch.arange(len(split)).split(CHUNK):
        part = split.gather(index)
        digest.update(part["inputs"].cpu().numpy().tobytes() + part["target"].cpu().numpy().tobytes())
    path = data.cache_dir / "judges" / f"{digest.hexdigest()[:32]}.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    # Runs that start together: the first trains, the others wait and read.
    with need("filelock", extra="vision").FileLock(f"{path}.lock"), torch.random.fork_rng(devices=[]):
        network = CNN(**_arguments(data))
        if path.exists():
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        else:
            _train(network, data)
            staged = Path(f"{path}.{os.getpid()}")
            torch.save(network.state_dict(), staged)
            staged.replace(path)
    return Judge(network.eval().requires_grad_(False))


def _arguments(data: Images) -> dict:
    torch.manual_seed(0)
    return {
        "input_shape": data.input_shape, "output": "multiclass", "num_outputs": data.num_classes,
        "lr": LR, "weight_decay": WEIGHT_DECAY, "dropout": DROPOUT,
    }  # fmt: skip


def _train(network: CNN, data: Images) -> None:
    labelled = copy.copy(data)
    labelled.trainer, labelled.seed = None, 0
    farthest = MOVES * data.input_shape[1]
    labelled.augmentation = {**TURNS, "shift": farthest, "elastic": farthest}
    split = data.splits["train"]
    known = torch.nonzero(split.gather(torch.arange(len(split)))["target"].cpu() >= 0)[:, 0]
    labelled.splits = {"train": copy.copy(split)}
    labelled.splits["train"].labelled, labelled.splits["train"].unlabelled_epochs = known, 0
    labelled.batch_size = 64
    with tempfile.TemporaryDirectory(prefix="raydeck-") as scratch:
        trainer = silent_trainer(data.machine, max_epochs=EPOCHS, limit_val_batches=0, default_root_dir=scratch)
        trainer.fit(network, datamodule=labelled)
