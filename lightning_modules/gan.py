"""Generative adversarial network: a generator of pictures against a discriminator that tells them from real ones.

Shapes: B batch, C channels, H rows, W columns, Z noise, K classes, S steps between two pictures.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lightning_modules.shared import optimization
from lightning_modules.shared.collected import Collected, scored
from lightning_modules.shared.optimization import Schedule
from lightning_modules.shared.players import Player, Players

Loss = Literal["non_saturating", "wgan_gp", "hinge"]

STEPS = 8
"""Pictures of the way from one noise to the next, both ends included."""

NUM_SAMPLES = 64
"""Pictures that are drawn from fixed noise as training goes on."""

LEAK = 0.2
"""Slope of the discriminator's rectifiers below 0, as DCGAN has it."""


class GAN(Players):
    """Generative adversarial network (Goodfellow et al. 2014, arXiv:1406.2661) of convolutions.

    The shape is that of DCGAN (Radford et al. 2016, arXiv:1511.06434), for pictures of any size. What is evaluated,
    drawn and predicted with is a moving average of the generator.

    Args:
        input_shape: Channels, rows and columns of one picture; decided by the data.
        num_classes: Classes of the data's labels, 0 if it has none; decided by the data.
        conditional: Whether both networks are told the label, so that pictures of a class can be asked for.
        noise_dim: Numbers that a picture is made of.
        generator_channels: Channels of each block of the generator, from the smallest picture to the largest; what
            follows a block, the picture itself included, is of twice its size.
        discriminator_channels: Channels of each block of the discriminator, each of which halves the picture. It takes
            four for a feature to see all of 28 x 28 pixels.
        loss: non_saturating cross entropy; wgan_gp (Gulrajani et al. 2017, arXiv:1704.00028); or hinge (Lim and Ye
            2017, arXiv:1705.02894).
        gradient_penalty: Weight of the penalty on the discriminator's gradient: of wgan_gp that of its distance from 1
            between real and made pictures; of the other losses of its square at real ones (R1: Mescheder et al. 2018,
            arXiv:1801.04406).
        spectral_normalisation: Whether each layer of the discriminator is divided by its largest singular value
            (Miyato et al. 2018, arXiv:1802.05957).
        batch_normalisation: Whether the generator's blocks are normalised over the batch.
        minibatch_deviation: Whether the discriminator sees how much the pictures of a batch differ from each other
            (Karras et al. 2018, arXiv:1710.10196), which makes it notice that all are alike.
        augmentation: What real and made pictures are moved by alike before the discriminator sees them: shifts, and
            patches that are cut out (DiffAugment: Zhao et al. 2020, arXiv:2006.10738); against little data.
        discriminator_steps: Steps of the discriminator to one of the generator.
        average_decay: How much of the generator's moving average stays at each of its steps; 0 does without.
        lr: Learning rate of the generator.
        discriminator_lr: Learning rate of the discriminator.
        beta1: How much Adam remembers of the gradient.
        schedule: Learning rate after the warm-up: constant, cosine (to 0) or step (a tenth from half of training, a
            hundredth from three quarters).
        warmup: Fraction of all optimizer steps over which the learning rates rise from 0.

    Raises:
        ValueError: A value is out of range, or labels are asked for and there are none.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int = 0,
        conditional: bool = False,
        noise_dim: int = 64,
        generator_channels: tuple[int, ...] = (128, 128, 64),
        discriminator_channels: tuple[int, ...] = (32, 64, 128, 256),
        loss: Loss = "non_saturating",
        gradient_penalty: float = 0.0,
        spectral_normalisation: bool = True,
        batch_normalisation: bool = True,
        minibatch_deviation: bool = True,
        augmentation: Literal["none", "shift", "shift_and_cutout"] = "shift",
        discriminator_steps: int = 1,
        average_decay: float = 0.995,
        lr: float = 1e-3,
        discriminator_lr: float = 1e-3,
        beta1: float = 0.0,
        schedule: Schedule = "constant",
        warmup: float = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self._check()
        num_labels = num_classes if conditional else 0
        self.generator = Generator(input_shape, noise_dim, num_labels, generator_channels, batch_normalisation)
        self.discriminator = Discriminator(
            input_shape, num_labels, discriminator_channels, spectral_normalisation, minibatch_deviation
        )
        for network in (self.generator, self.discriminator):
            network.to(memory_format=torch.channels_last)  # faster on CPUs, and best on tensor cores
        self.averaged = AveragedModel(
            self.generator, multi_avg_fn=get_ema_multi_avg_fn(average_decay), use_buffers=True
        ).requires_grad_(False)
        rates = {"discriminator": discriminator_lr, "generator": lr}
        self.settings = {
            name: optimization.Settings(
                optimizer="adamw", lr=rate, weight_decay=0.0, schedule=schedule, warmup=warmup, betas=(beta1, 0.99)
            )
            for name, rate in rates.items()
        }
        self.val_samples, self.test_samples = (Collected(("picture", "target")) for _ in range(2))
        self.example_input_array = (
            torch.zeros(2, noise_dim),
            torch.zeros(2, dtype=torch.int64) if conditional else None,
        )
        self.register_buffer("sample_noise_BZ", torch.randn(NUM_SAMPLES, noise_dim), persistent=True)

    def _check(self) -> None:
        key = self.hparams
        if key.conditional and key.num_classes < 2:
            raise ValueError("model.conditional: the data has no classes to ask for; leave it out")
        for name in ("noise_dim", "discriminator_steps"):
            if key[name] < 1:
                raise ValueError(f"model.{name}: expected at least 1, got {key[name]}")
        for name in ("generator_channels", "discriminator_channels"):
            if not key[name] or any(width < 1 for width in key[name]):
                raise ValueError(f"model.{name}: expected widths of at least 1, got {list(key[name])}")
        if key.gradient_penalty < 0:
            raise ValueError(f"model.gradient_penalty: expected at least 0, got {key.gradient_penalty}")
        for name in ("average_decay", "beta1"):
            if not 0 <= key[name] < 1:
                raise ValueError(f"model.{name}: expected at least 0 and below 1, got {key[name]}")
        for name in ("lr", "discriminator_lr"):
            if key[name] <= 0:
                raise ValueError(f"model.{name}: expected more than 0, got {key[name]}")

    def players(self) -> Mapping[str, Player]:
        networks = {"discriminator": self.discriminator, "generator": self.generator}
        return {name: Player(networks=[net], settings=self.settings[name]) for name, net in networks.items()}

    def num_moves(self, name: str, num_batches: int) -> int:
        return num_batches // self.hparams.discriminator_steps if name == "generator" else num_batches

    def _labels(self, batch: dict[str, Tensor]) -> Tensor | None:
        return batch["target"] if self.hparams.conditional else None

    def _noise(self, count: int) -> Tensor:
        return torch.randn(count, self.hparams.noise_dim, device=self.device)

    def _judge(self, pictures_BCHW: Tensor, label_B: Tensor | None) -> Tensor:
        moved_BCHW = moved(pictures_BCHW, self.hparams.augmentation)
        return self.discriminator(moved_BCHW, label_B).float()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        real_BCHW, label_B = 2 * batch["inputs"] - 1, self._labels(batch)
        both = (self.global_step + 1) % self.hparams.discriminator_steps == 0
        with torch.set_grad_enabled(both):  # the generator's move is by the pictures that the discriminator has seen
            made_BCHW = self.generator(self._noise(len(real_BCHW)), label_B)
        told = self._move_discriminator(real_BCHW, made_BCHW.detach(), label_B)
        if both:
            with self.turn("generator") as move:
                loss = generator_loss(self.hparams.loss, self._judge(made_BCHW, label_B))
                move(loss)
            self.averaged.update_parameters(self.generator)
            told["generator_loss"] = loss.detach()
        return told

    def _move_discriminator(self, real_BCHW: Tensor, made_BCHW: Tensor, label_B: Tensor | None) -> dict[str, Tensor]:
        key = self.hparams
        with self.turn("discriminator") as move:
            if key.gradient_penalty and key.loss != "wgan_gp":
                real_BCHW = real_BCHW.requires_grad_()
            real_B, made_B = self._judge(real_BCHW, label_B), self._judge(made_BCHW, label_B)
            loss = discriminator_loss(key.loss, real_B, made_B)
            told = {
                "real_accuracy": (real_B > 0).float().mean().detach(),
                "made_accuracy": (made_B < 0).float().mean().detach(),
            }
            if key.gradient_penalty:
                penalty = self._penalty(real_BCHW, made_BCHW, real_B, label_B)
                told["gradient_penalty"] = penalty.detach()
                loss = loss + key.gradient_penalty * penalty
            move(loss)
        return {"loss": loss.detach(), **told}

    def _penalty(self, real_BCHW: Tensor, made_BCHW: Tensor, real_B: Tensor, label_B: Tensor | None) -> Tensor:
        if self.hparams.loss != "wgan_gp":
            return gradient_norm(real_B, real_BCHW).square().mean()
        part_B111 = torch.rand(len(real_BCHW), 1, 1, 1, device=real_BCHW.device)
        between_BCHW = torch.lerp(made_BCHW.float(), real_BCHW, part_B111).requires_grad_()
        score_B = self.discriminator(between_BCHW, label_B).float()
        return (gradient_norm(score_B, between_BCHW) - 1).square().mean()

    def make(self, noise_BZ: Tensor, label_B: Tensor | None) -> Tensor:
        """Pictures in [0, 1] by the averaged generator, shape (B, C, H, W)."""
        return (self.averaged.module(noise_BZ, label_B).float() + 1) / 2

    def forward(self, noise_BZ: Tensor, label_B: Tensor | None = None) -> Tensor:
        """The whole game: the discriminator's scores of pictures that the generator makes of noise, shape (B,)."""
        return self.discriminator(self.generator(noise_BZ, label_B), label_B)

    def _own_noise(self, count: int, batch_idx: int) -> Tensor:
        """This rank's part of an evaluation batch's noise; on any number of ranks the same, in every evaluation."""
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        most = max(self.trainer.datamodule.batch_size, 2 * world_size)
        noise_BZ = torch.randn(most, self.hparams.noise_dim, generator=torch.Generator().manual_seed(batch_idx))
        return noise_BZ[rank::world_size][:count].to(self.device)

    def _evaluate(self, batch: dict[str, Tensor], batch_idx: int, samples: Collected) -> None:
        made_BCHW = self.make(self._own_noise(len(batch["inputs"]), batch_idx), self._labels(batch))
        samples.update(picture=(made_BCHW * 255).round().to(torch.uint8), target=batch["target"])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, batch_idx, self.val_samples)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(scored(self, "validation", self.val_samples))

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, batch_idx, self.test_samples)

    def on_test_epoch_end(self) -> None:
        self.log_dict(scored(self, "test", self.test_samples))

    def samples(self) -> Tensor:
        """Pictures of the same noise whenever they are asked for, in [0, 1], shape (64, C, H, W)."""
        num_classes = self.hparams.num_classes
        label_B = torch.arange(NUM_SAMPLES, device=self.device) % num_classes if self.hparams.conditional else None
        return self.make(self.sample_noise_BZ, label_B)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int, *, seed: int = 0) -> dict[str, Tensor]:
        """Pictures of noise.

        Args:
            batch: ``target`` (B,): the class of each picture, of a conditional network; -1 takes any.
            batch_idx: Place of the batch.
            seed: Decides the noise.

        Returns:
            ``picture`` (B, C, H, W) in [0, 1]; and ``path`` (B, S, C, H, W) on the way to the batch's next picture.

        Raises:
            ValueError: A class is asked for of a network that knows none.
        """
        label_B = self._labels(batch)
        if label_B is None and (batch["target"] >= 0).any():
            raise ValueError("this network was trained without --model.conditional: it makes no chosen class")
        generator = torch.Generator().manual_seed(seed + batch_idx)  # of the CPU, so that a GPU draws the same
        if label_B is not None:
            any_B = torch.randint(self.hparams.num_classes, label_B.shape, generator=generator).to(label_B.device)
            label_B = torch.where(label_B < 0, any_B, label_B)
        noise_BZ = torch.randn(len(batch["target"]), self.hparams.noise_dim, generator=generator).to(self.device)
        path = [
            self.make(spherical(noise_BZ, noise_BZ.roll(-1, dims=0), part), label_B)
            for part in torch.linspace(0, 1, STEPS).tolist()
        ]
        return {"picture": path[0], "path": torch.stack(path, dim=1)}


class Generator(nn.Module):
    """Noise to a picture with values from -1 to 1."""

    def __init__(
        self,
        shape: tuple[int, ...],
        noise_dim: int,
        num_classes: int,
        channels: tuple[int, ...],
        batch_normalisation: bool,
    ) -> None:
        super().__init__()
        out_channels, *size = shape
        sizes = [tuple(size)]
        for _ in channels:
            sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
        sizes.reverse()
        self.embedding = nn.Embedding(num_classes, noise_dim) if num_classes else None
        in_dim = noise_dim * (2 if num_classes else 1)

        def activated(width: int) -> list[nn.Module]:
            return [nn.BatchNorm2d(width) if batch_normalisation else nn.Identity(), nn.ReLU(inplace=True)]

        first = channels[0]
        self.network = nn.Sequential(
            nn.Linear(in_dim, first * sizes[0][0] * sizes[0][1]), nn.Unflatten(1, (first, *sizes[0])), *activated(first)
        )
        for before, after, target in zip(channels, (*channels[1:], out_channels), sizes[1:], strict=True):
            kernel_2 = tuple(4 - side % 2 for side in target)  # doubles the side, or one less where that is odd
            self.network.append(nn.ConvTranspose2d(before, after, kernel_2, stride=2, padding=1))
            self.network.extend([nn.Tanh()] if target == sizes[-1] else activated(after))

    def forward(self, noise_BZ: Tensor, label_B: Tensor | None = None) -> Tensor:
        """Shape (B, C, H, W)."""
        if self.embedding is not None:
            noise_BZ = torch.cat([noise_BZ, self.embedding(label_B)], dim=1)
        return self.network(noise_BZ)


class Discriminator(nn.Module):
    """A picture, and its label if asked, to a score that is high for real ones (projection: arXiv:1802.05637)."""

    def __init__(
        self, shape: tuple[int, ...], num_classes: int, channels: tuple[int, ...], spectral: bool, deviation: bool
    ) -> None:
        super().__init__()
        norm: Callable[[nn.Module], nn.Module] = spectral_norm if spectral else lambda layer: layer
        before, *size = shape
        self.deviation = deviation
        self.network = nn.Sequential()
        for after in channels:
            self.network.extend(
                [norm(nn.Conv2d(before, after, 3, padding=1, stride=2)), nn.LeakyReLU(LEAK, inplace=True)]
            )
            before, size = after, [-(-side // 2) for side in size]
        num_features = (before + deviation) * size[0] * size[1]
        self.head = norm(nn.Linear(num_features, 1))
        self.embedding = norm(nn.Embedding(num_classes, num_features)) if num_classes else None

    def forward(self, pictures_BCHW: Tensor, label_B: Tensor | None = None) -> Tensor:
        """Shape (B,)."""
        features_BCHW = self.network(pictures_BCHW)
        if self.deviation:
            features_BCHW = torch.cat([features_BCHW, deviation(features_BCHW)], dim=1)
        features_BF = features_BCHW.flatten(1)
        score_B = self.head(features_BF).squeeze(1)
        if self.embedding is not None:
            score_B = score_B + (self.embedding(label_B) * features_BF).sum(dim=1)
        return score_B


def deviation(features_BCHW: Tensor) -> Tensor:
    """Standard deviation over the batch, averaged over all features, as one more channel, shape (B, 1, H, W)."""
    mean = (features_BCHW.float().var(dim=0, correction=0) + 1e-8).sqrt().mean()
    return mean.to(features_BCHW.dtype).expand(len(features_BCHW), 1, *features_BCHW.shape[2:])


def discriminator_loss(loss: Loss, real_B: Tensor, made_B: Tensor) -> Tensor:
    """Mean loss of the discriminator's scores of real and of made pictures."""
    if loss == "non_saturating":
        return F.softplus(-real_B).mean() + F.softplus(made_B).mean()
    if loss == "hinge":
        return F.relu(1 - real_B).mean() + F.relu(1 + made_B).mean()
    return made_B.mean() - real_B.mean()


def generator_loss(loss: Loss, made_B: Tensor) -> Tensor:
    """Mean loss of the generator, of the discriminator's scores of what it has made."""
    return F.softplus(-made_B).mean() if loss == "non_saturating" else -made_B.mean()


def gradient_norm(score_B: Tensor, pictures_BCHW: Tensor) -> Tensor:
    """L2 norm of the gradient of each score with respect to its picture, shape (B,); can itself be differentiated."""
    (gradient_BCHW,) = torch.autograd.grad(score_B.sum(), pictures_BCHW, create_graph=True)
    return gradient_BCHW.flatten(1).norm(dim=1)


def moved(pictures_BCHW: Tensor, augmentation: str) -> Tensor:
    """Pictures shifted by up to an eighth of their size, and with a patch of half their size cut out, each in its way.

    Differentiable, and the empty parts are of the least brightness, -1.
    """
    if augmentation == "none":
        return pictures_BCHW
    size, (height, width) = len(pictures_BCHW), pictures_BCHW.shape[2:]
    device = pictures_BCHW.device
    reach_2 = (max(1, height // 8), max(1, width // 8))
    rows_BH, columns_BW = (
        torch.arange(side, device=device) + torch.randint(0, 2 * reach + 1, (size, 1), device=device)
        for side, reach in zip((height, width), reach_2, strict=True)
    )
    padded_BCHW = F.pad(pictures_BCHW, (reach_2[1], reach_2[1], reach_2[0], reach_2[0]), value=-1.0)
    batch_B11 = torch.arange(size, device=device)[:, None, None]
    shifted_BCHW = padded_BCHW.permute(0, 2, 3, 1)[batch_B11, rows_BH[:, :, None], columns_BW[:, None, :]]
    shifted_BCHW = shifted_BCHW.permute(0, 3, 1, 2)
    if augmentation == "shift":
        return shifted_BCHW
    row_B1, column_B1 = (torch.rand(size, 1, device=device) * side for side in (height, width))
    rows_BH = (torch.arange(height, device=device) - row_B1).abs() < height / 4
    columns_BW = (torch.arange(width, device=device) - column_B1).abs() < width / 4
    return shifted_BCHW.masked_fill((rows_BH[:, :, None] & columns_BW[:, None, :])[:, None], -1.0)


def spherical(from_BZ: Tensor, to_BZ: Tensor, part: float) -> Tensor:
    """A point on the arc from one noise to another, where the noise is as long as on its ends (White 2016)."""
    cosine_B1 = F.cosine_similarity(from_BZ, to_BZ, dim=1).clamp(-0.9999, 0.9999)[:, None]
    angle_B1 = cosine_B1.acos()
    return (((1 - part) * angle_B1).sin() * from_BZ + (part * angle_B1).sin() * to_BZ) / angle_B1.sin()
