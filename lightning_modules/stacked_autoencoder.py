"""Stacked denoising autoencoder: layers pretrained one by one to undo noise, then the whole trained with labels.

Shapes: B batch, C channels, H rows, W columns, P pixels of all channels, U units of a layer, K logits.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lightning_modules.shared import objectives, optimization
from lightning_modules.shared.activations import Activation, activate, initialise
from lightning_modules.shared.optimization import OptimizerName, Schedule
from lightning_modules.shared.players import Player, Players, phase_at

Noise = Literal["none", "masking", "salt_and_pepper", "gaussian"]

MOST_FILTERS = 100
"""Filters of the first layer that are drawn."""


class StackedAutoencoder(Players):
    """Stacked denoising autoencoder (Vincent et al. 2010, JMLR 11).

    In the first epochs, which need no labels, each layer in turn learns to bring back what it is given from a corrupted
    copy, while those below it stay as they are. In the epochs that follow, all layers and a classifier on top of them
    learn from the labelled images. How many epochs need no labels is ``data.unlabelled_epochs``; the layers share them.

    Args:
        input_shape: Channels, rows and columns of one picture; decided by the data.
        output: binary or multiclass; decided by the data.
        num_outputs: Number of classes for multiclass, else 1; decided by the data.
        unlabelled_epochs: Epochs of pretraining, for all layers together; decided by the data.
        hidden_dims: Width of each layer.
        activation: Non-linearity after each layer.
        noise: What a layer's input is corrupted by: masking sets a part of it to 0, salt_and_pepper to the least or
            the largest value of the batch, gaussian adds to all of it; none leaves it clean.
        noise_level: Part of the input, or standard deviation of gaussian noise as a multiple of the input's own.
        tied: Whether a layer's decoder uses the encoder's weights, transposed.
        pretrain_lr: Largest learning rate of pretraining.
        dropout: Probability that a unit is left out of a training step with labels.
        label_smoothing: Part of a label's probability that is spread evenly over all classes in training.
        optimizer: adamw, or sgd with Nesterov momentum 0.9.
        lr: Largest learning rate of training with labels.
        weight_decay: Decay of weights; biases have none.
        schedule: Learning rate of each phase after its warm-up: constant, cosine (to 0) or step (a tenth from half of
            the phase, a hundredth from three quarters).
        warmup: Fraction of each phase's steps over which the learning rate rises from 0.

    Raises:
        ValueError: A value is out of range, or the data has no classes.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output: str,
        num_outputs: int,
        unlabelled_epochs: int = 0,
        hidden_dims: tuple[int, ...] = (1000, 1000, 1000),
        activation: Activation = "relu",
        noise: Noise = "masking",
        noise_level: float = 0.5,
        tied: bool = True,
        pretrain_lr: float = 1e-3,
        dropout: float = 0.3,
        label_smoothing: float = 0.0,
        optimizer: OptimizerName = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        schedule: Schedule = "cosine",
        warmup: float = 0.05,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self._check()
        dims = (math.prod(input_shape), *hidden_dims)
        self.encoders = nn.ModuleList(nn.Linear(before, after) for before, after in itertools.pairwise(dims))
        self.decoders = nn.ModuleList(Decoder(layer, tied) for layer in self.encoders)
        self.dropout = nn.Dropout(dropout)
        self.activation = activate(activation)
        self.head = nn.Linear(dims[-1], objectives.num_logits(output, num_outputs))
        initialise(nn.ModuleList([*self.encoders, self.head]), activation)
        rates = {"layer": pretrain_lr, "head": lr}
        self.settings = {
            name: optimization.Settings(
                optimizer=optimizer, lr=rate, weight_decay=weight_decay, schedule=schedule, warmup=warmup
            )
            for name, rate in rates.items()
        }
        self.val_metrics, self.test_metrics = (objectives.Metrics(output, num_outputs, 1.0) for _ in range(2))
        self.val_denoising = MeanMetric()

    def _check(self) -> None:
        key = self.hparams
        objectives.check(dropout=key.dropout, label_smoothing=key.label_smoothing)
        if key.output not in ("binary", "multiclass"):
            raise ValueError(
                "stacked_autoencoder needs the classes of some images: put them into a folder per class, or write "
                "metadata.csv with the columns file_name and label"
            )
        if not key.hidden_dims or any(width < 1 for width in key.hidden_dims):
            raise ValueError(f"model.hidden_dims: expected widths of at least 1, got {list(key.hidden_dims)}")
        if 0 < key.unlabelled_epochs < len(key.hidden_dims):
            raise ValueError(
                f"data.unlabelled_epochs: {key.unlabelled_epochs} are fewer than one for each of "
                f"{len(key.hidden_dims)} layers; 0 does without pretraining"
            )
        most = math.inf if key.noise == "gaussian" else 1
        if not 0 <= key.noise_level < most:
            limits = "at least 0" if key.noise == "gaussian" else "a part from 0 to below 1"
            raise ValueError(f"model.noise_level: expected {limits} for {key.noise}, got {key.noise_level}")
        if key.pretrain_lr <= 0:
            raise ValueError(f"model.pretrain_lr: expected more than 0, got {key.pretrain_lr}")

    @property
    def phases(self) -> list[tuple[str, int]]:
        """Phases of pretraining and their epochs; the first layers take those that cannot be shared evenly."""
        num_layers = len(self.encoders)
        each, rest = divmod(self.hparams.unlabelled_epochs, num_layers)
        return [(f"layer {k + 1}", each + (k < rest)) for k in range(num_layers)]

    @property
    def phase(self) -> str:
        return phase_at(self.current_epoch, self.phases, "supervised")

    def players(self) -> Mapping[str, Player]:
        layers = {
            name: Player(networks=[self.encoders[k], self.decoders[k]], settings=self.settings["layer"])
            for k, (name, _) in enumerate(self.phases)
        }
        return layers | {"supervised": Player(networks=[self.encoders, self.head], settings=self.settings["head"])}

    def num_moves(self, name: str, num_batches: int) -> int:
        each = num_batches // self.trainer.max_epochs
        before = dict(self.phases)
        return each * before.get(name, self.trainer.max_epochs - self.hparams.unlabelled_epochs)

    def below(self, inputs_BCHW: Tensor, layer: int) -> Tensor:
        """What a layer is given, counted from 0: shape (B, P) before the first, (B, U) before the others."""
        hidden_BU = inputs_BCHW.flatten(1)
        for encoder in self.encoders[:layer]:
            hidden_BU = self.activation(encoder(hidden_BU))
        return hidden_BU

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        """Logits, shape (B, K)."""
        hidden_BU = inputs_BCHW.flatten(1)
        for encoder in self.encoders:
            hidden_BU = self.activation(encoder(self.dropout(hidden_BU)))
        return self.head(self.dropout(hidden_BU))

    def denoising(self, inputs_BCHW: Tensor, layer: int) -> Tensor:
        """Mean loss of a layer that brings back what it is given from a corrupted copy.

        The cross entropy where that lies between 0 and 1, else the squared error.
        """
        with torch.no_grad():
            clean_BU = self.below(inputs_BCHW, layer)
        noisy_BU = corrupt(clean_BU, self.hparams.noise, self.hparams.noise_level)
        back_BU = self.decoders[layer](self.activation(self.encoders[layer](noisy_BU))).float()
        if layer == 0 or self.hparams.activation == "sigmoid":
            return F.binary_cross_entropy_with_logits(back_BU, clean_BU.float())
        return F.mse_loss(back_BU, clean_BU.float())

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        phase = self.phase
        with self.turn(phase) as move:
            if phase == "supervised":
                logits_BK = self(batch["inputs"])
                smoothing = self.hparams.label_smoothing
                loss = objectives.loss(self.hparams.output, logits_BK, batch["target"], label_smoothing=smoothing)
            else:
                loss = self.denoising(batch["inputs"], list(dict(self.phases)).index(phase))
            move(loss)
        return {"loss": loss}

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        phase = self.phase
        if phase == "supervised":
            self.val_metrics.update(self(batch["inputs"]), batch["target"])
        else:
            torch.manual_seed(batch_idx)  # the same noise in every epoch; training seeds each of its own batches
            loss = self.denoising(batch["inputs"], list(dict(self.phases)).index(phase))
            self.val_denoising.update(loss, weight=len(batch["inputs"]))

    def on_validation_epoch_end(self) -> None:
        phase = self.phase
        if phase == "supervised":
            self.log_dict(self.val_metrics.named("val"))
        else:
            self.log(f"val/denoising_{phase.replace(' ', '_')}", self.val_denoising)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.test_metrics.update(self(batch["inputs"]), batch["target"])

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.test_metrics.named("test"))

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return objectives.answer(self.hparams.output, self(batch["inputs"]))

    def samples(self) -> Tensor:
        """The first layer's filters as pictures in [0, 1], grey where a weight is 0, shape (U, C, H, W)."""
        filters_UP = self.encoders[0].weight.detach()[:MOST_FILTERS].float()
        scaled_UP = 0.5 + 0.5 * filters_UP / filters_UP.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
        return scaled_UP.unflatten(1, tuple(self.hparams.input_shape))


class Decoder(nn.Module):
    """The way back through a layer.

    Args:
        layer: The layer.
        tied: Whether its weights are used, transposed; else the decoder has its own.
    """

    def __init__(self, layer: nn.Linear, tied: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(layer.in_features))
        self.weight = None if tied else nn.Parameter(layer.weight.new_empty(layer.weight.shape))
        self.layer = [layer]  # in a list: it is registered elsewhere
        if self.weight is not None:
            nn.init.xavier_uniform_(self.weight)

    def forward(self, hidden_BU: Tensor) -> Tensor:
        """What the layer was given: of values between 0 and 1, their logits."""
        weight = self.layer[0].weight if self.weight is None else self.weight
        return hidden_BU @ weight + self.bias


def corrupt(clean_BU: Tensor, noise: Noise, level: float) -> Tensor:
    """A corrupted copy.

    Args:
        clean_BU: Values.
        noise: masking sets each value to 0 with probability ``level``; salt_and_pepper to the least or the largest of
            all values, each with probability ``level`` / 2; gaussian adds a normal draw whose standard deviation is
            ``level`` times that of all values.
        level: How much.
    """
    if noise == "none" or level == 0:
        return clean_BU
    if noise == "gaussian":
        return clean_BU + level * clean_BU.std() * torch.randn_like(clean_BU)
    chance_BU = torch.rand_like(clean_BU)
    if noise == "masking":
        return clean_BU.masked_fill(chance_BU < level, 0.0)
    salted_BU = torch.where(chance_BU < level / 2, clean_BU.amax(), clean_BU)
    return torch.where(chance_BU > 1 - level / 2, clean_BU.amin(), salted_BU)
