"""Autoencoder: a picture through a narrow code and back; plain, sparse or variational.

Shapes: B batch, C channels, H rows, W columns, D code, N images of a split, S steps between two images.
"""

import itertools
import math
from typing import Any, Literal

import pytorch_lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lightning_modules.shared import optimization
from lightning_modules.shared.activations import Activation, activate, initialise
from lightning_modules.shared.collected import Collected, scored
from lightning_modules.shared.optimization import OptimizerName, Schedule

STEPS = 8
"""Pictures of the way from one image to the next, both ends included."""

CHUNK = 1024
"""Training images whose codes are computed at once."""


class Autoencoder(L.LightningModule):
    """Autoencoder: an encoder to a code of a few numbers, and a decoder that makes the picture of them again.

    Variational (Kingma and Welling 2014, arXiv:1312.6114), the encoder gives a mean and a variance for each number of
    the code, and the loss adds the divergence from a standard normal, so that pictures can be drawn from noise.

    Args:
        input_shape: Channels, rows and columns of one picture; decided by the data.
        network: fully_connected, or convolutional: each block halves the picture on the way in and doubles it on the
            way out.
        hidden_dims: Width of each hidden layer of the encoder; the decoder's are the same in reverse. Of
            convolutional, those between the last block and the code.
        channels: Channels of each block of convolutional.
        code_dim: Numbers of the code.
        activation: Non-linearity after each hidden layer and each block.
        loss: What is summed over the pixels: bce is the cross entropy of brightness taken as a probability, mse the
            squared error.
        input_noise: Standard deviation of noise that is added to pixels of 0 to 1 in training; the picture to make is
            the clean one.
        sparsity: Weight of the mean absolute value of the code in the loss.
        variational: Whether the code is drawn, and pulled towards a standard normal.
        kl_weight: Weight of the divergence from it, once warm; 1 makes the loss the negative evidence lower bound.
        kl_warmup: Fraction of all optimizer steps over which this weight rises from 0.
        optimizer: adamw, or sgd with Nesterov momentum 0.9.
        lr: Largest learning rate.
        weight_decay: Decay of weights; biases have none.
        schedule: Learning rate after the warm-up: constant, cosine (to 0) or step (a tenth from half of training, a
            hundredth from three quarters).
        warmup: Fraction of all optimizer steps over which the learning rate rises from 0.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        network: Literal["fully_connected", "convolutional"] = "fully_connected",
        hidden_dims: tuple[int, ...] = (512, 256),
        channels: tuple[int, ...] = (32, 64),
        code_dim: int = 30,
        activation: Activation = "relu",
        loss: Literal["bce", "mse"] = "bce",
        input_noise: float = 0.0,
        sparsity: float = 0.0,
        variational: bool = False,
        kl_weight: float = 1.0,
        kl_warmup: float = 0.2,
        optimizer: OptimizerName = "adamw",
        lr: float = 2e-3,
        weight_decay: float = 0.0,
        schedule: Schedule = "cosine",
        warmup: float = 0.05,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.optimization = optimization.Settings(
            optimizer=optimizer, lr=lr, weight_decay=weight_decay, schedule=schedule, warmup=warmup
        )
        self._check()
        build = self._build_convolutional if network == "convolutional" else self._build_fully_connected
        self.encoder, self.decoder = build()
        for part in (self.encoder, self.decoder):
            initialise(part, activation)
        self.val_metrics, self.test_metrics = (
            nn.ModuleDict({name: MeanMetric() for name in ("loss", "mse", *(["kl"] if variational else []))})
            for _ in range(2)
        )
        self.test_codes = Collected(("code", "error", "target"))

    def _check(self) -> None:
        key = self.hparams
        if key.code_dim < 1:
            raise ValueError(f"model.code_dim: expected at least 1, got {key.code_dim}")
        for name in ("hidden_dims", "channels"):
            if any(width < 1 for width in key[name]):
                raise ValueError(f"model.{name}: expected widths of at least 1, got {list(key[name])}")
        for name in ("input_noise", "sparsity", "kl_weight"):
            if not 0 <= key[name] < math.inf:
                raise ValueError(f"model.{name}: expected at least 0, got {key[name]}")
        if not 0 <= key.kl_warmup <= 1:
            raise ValueError(f"model.kl_warmup: expected a fraction of all steps, from 0 to 1, got {key.kl_warmup}")
        if key.network == "convolutional" and not key.channels:
            raise ValueError("model.channels: expected at least one block")

    @property
    def _outputs(self) -> int:
        """Numbers that the encoder gives: of a variational one, mean and log variance for each of the code."""
        return (2 if self.hparams.variational else 1) * self.hparams.code_dim

    def _build_fully_connected(self) -> tuple[nn.Sequential, nn.Sequential]:
        key = self.hparams
        dims = (math.prod(key.input_shape), *key.hidden_dims)
        encoder = nn.Sequential(nn.Flatten(), *layers(dims, key.activation), nn.Linear(dims[-1], self._outputs))
        back = (key.code_dim, *reversed(key.hidden_dims))
        decoder = nn.Sequential(
            *layers(back, key.activation), nn.Linear(back[-1], dims[0]), nn.Unflatten(1, tuple(key.input_shape))
        )
        return encoder, decoder

    def _build_convolutional(self) -> tuple[nn.Sequential, nn.Sequential]:
        key = self.hparams
        in_channels, *sides = key.input_shape
        shapes = [(in_channels, *sides)]
        for out_channels in key.channels:
            sides = [-(-side // 2) for side in sides]
            shapes.append((out_channels, *sides))
        encoder = nn.Sequential()
        for (before, *_), (after, *_) in itertools.pairwise(shapes):
            encoder.extend([nn.Conv2d(before, after, 3, stride=2, padding=1), activate(key.activation)])
        dims = (math.prod(shapes[-1]), *key.hidden_dims)
        encoder.extend([nn.Flatten(), *layers(dims, key.activation), nn.Linear(dims[-1], self._outputs)])
        back = (key.code_dim, *reversed(dims))
        decoder = nn.Sequential(*layers(back, key.activation), nn.Unflatten(1, shapes[-1]))
        for (before, *_), (after, *size) in itertools.pairwise(reversed(shapes)):
            decoder.extend([nn.Upsample(tuple(size)), nn.Conv2d(before, after, 3, padding=1), activate(key.activation)])
        return encoder, decoder[:-1]  # what is left are logits

    def encode(self, inputs_BCHW: Tensor) -> tuple[Tensor, Tensor | None]:
        """The code, and of a variational autoencoder its log variance, shape (B, D); the code is then the mean."""
        if not self.hparams.variational:
            return self.encoder(inputs_BCHW), None
        mean_BD, log_variance_BD = self.encoder(inputs_BCHW).chunk(2, dim=1)
        return mean_BD, log_variance_BD

    def decode(self, code_BD: Tensor) -> Tensor:
        """Pictures in [0, 1], shape (B, C, H, W)."""
        return self.decoder(code_BD).sigmoid()

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        """The pictures as the code brings them back."""
        return self.decode(self.encode(inputs_BCHW)[0])

    def _losses(self, inputs_BCHW: Tensor, kl_weight: float, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, squared error a pixel, and divergence in nats an image (0 unless variational)."""
        key, num_pixels = self.hparams, inputs_BCHW[0].numel()
        given_BCHW = inputs_BCHW + noise * torch.randn_like(inputs_BCHW) if noise else inputs_BCHW
        code_BD, log_variance_BD = self.encode(given_BCHW)
        divergence = code_BD.new_zeros(())
        if log_variance_BD is not None:
            divergence = kl_divergence(code_BD, log_variance_BD).mean()
            if self.training:
                code_BD = code_BD + (log_variance_BD / 2).exp() * torch.randn_like(code_BD)
        logits_BCHW = self.decoder(code_BD).float()
        pictures_BCHW = logits_BCHW.sigmoid()
        mse = F.mse_loss(pictures_BCHW, inputs_BCHW)
        loss = mse if key.loss == "mse" else F.binary_cross_entropy_with_logits(logits_BCHW, inputs_BCHW)
        loss = loss + kl_weight * divergence / num_pixels
        if key.sparsity:
            loss = loss + key.sparsity * code_BD.abs().mean()
        return loss, mse, divergence

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        key = self.hparams
        warm = math.ceil(key.kl_warmup * int(self.trainer.estimated_stepping_batches))
        weight = key.kl_weight * (min(1.0, self.global_step / warm) if warm else 1.0)
        loss, mse, divergence = self._losses(batch["inputs"], weight, key.input_noise)
        return {"loss": loss, "mse": mse.detach()} | ({"kl": divergence.detach()} if key.variational else {})

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, self.val_metrics)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val/{name}": metric for name, metric in self.val_metrics.items()})

    def _evaluate(self, batch: dict[str, Tensor], metrics: nn.ModuleDict) -> None:
        values = dict(zip(("loss", "mse", "kl"), self._losses(batch["inputs"], self.hparams.kl_weight), strict=True))
        for name, metric in metrics.items():
            metric.update(values[name], weight=len(batch["inputs"]))

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, self.test_metrics)
        code_BD, _ = self.encode(batch["inputs"])
        error_B = (self.decode(code_BD) - batch["inputs"]).square().flatten(1).mean(dim=1)
        self.test_codes.update(code=code_BD.float(), error=error_B.float(), target=batch["target"])

    def on_test_epoch_end(self) -> None:
        self.log_dict({f"test/{name}": metric for name, metric in self.test_metrics.items()})
        self.log_dict(scored(self, "test", self.test_codes, **self._training_codes()))

    def _training_codes(self) -> dict[str, Tensor]:
        """Codes and classes of the training split, on every rank; nothing where the data has none."""
        data = self.trainer.datamodule
        if "train" not in data.splits:
            return {}
        codes, targets = [], []
        for index in torch.arange(len(data.splits["train"])).split(CHUNK):
            batch = data.splits["train"].gather(index)
            batch = data.on_after_batch_transfer({k: v.to(self.device) for k, v in batch.items()}, 0)
            codes.append(self.encode(batch["inputs"])[0].float().cpu())
            targets.append(batch["target"].cpu())
        return {"train_code": torch.cat(codes), "train_target": torch.cat(targets)}

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int, *, seed: int = 0) -> dict[str, Tensor]:
        """Codes, and what the decoder makes of them.

        Args:
            batch: ``inputs`` (B, C, H, W).
            batch_idx: Place of the batch.
            seed: Decides the codes that are drawn.

        Returns:
            ``code`` (B, D); ``error``, mean squared error of a pixel, (B,); ``picture``, as the code brings it back,
            (B, C, H, W); ``path`` on the straight way in code space to the batch's next image, (B, S, C, H, W);
            ``sample``, a picture of a code that is drawn from a standard normal, (B, C, H, W).
        """
        code_BD, _ = self.encode(batch["inputs"])
        picture_BCHW = self.decode(code_BD)
        error_B = (picture_BCHW - batch["inputs"]).square().flatten(1).mean(dim=1)
        part_S11 = torch.linspace(0, 1, STEPS, device=code_BD.device)[:, None, None]
        path_SBD = torch.lerp(code_BD.float(), code_BD.float().roll(-1, dims=0), part_S11)
        path_BSCHW = torch.stack([self.decode(code) for code in path_SBD], dim=1)
        generator = torch.Generator().manual_seed(seed + batch_idx)  # of the CPU, so that a GPU draws the same
        drawn_BD = torch.randn(code_BD.shape, generator=generator).to(code_BD.device)
        return {
            "code": code_BD, "error": error_B, "picture": picture_BCHW, "path": path_BSCHW,
            "sample": self.decode(drawn_BD),
        }  # fmt: skip

    def configure_optimizers(self) -> dict[str, Any]:
        return optimization.configure(self, self.optimization)


def layers(dims: tuple[int, ...], activation: Activation) -> list[nn.Module]:
    """Fully connected layers of the given widths, each with its non-linearity."""
    return [
        layer
        for in_dim, out_dim in itertools.pairwise(dims)
        for layer in (nn.Linear(in_dim, out_dim), activate(activation))
    ]


def kl_divergence(mean_BD: Tensor, log_variance_BD: Tensor) -> Tensor:
    """Kullback-Leibler divergence of diagonal normals from the standard normal, in nats, shape (B,)."""
    return 0.5 * (mean_BD.square() + log_variance_BD.exp() - 1 - log_variance_BD).sum(dim=1)
