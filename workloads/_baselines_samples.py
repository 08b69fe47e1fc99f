"""What a generator's samples stand beside: real pictures, a variational autoencoder's samples, and noise."""

import copy
import tempfile

import torch

from lightning_modules.autoencoder import Autoencoder
from workloads._samples import frechet_distance, reference_of
from workloads._trainer import silent_trainer
from workloads.data.images import Images

EPOCHS = 60
AUTOENCODER = {
    "variational": True, "code_dim": 8, "hidden_dims": (512, 256), "kl_weight": 1.0, "lr": 2e-3
}  # fmt: skip
"""The variational autoencoder, with settings that were chosen on validation."""


def samples(data: Images) -> dict[str, float]:
    """Fréchet distance of the test split to as many pictures of each kind.

    Real training pictures, drawn at random: no generator gets below what they have, but by chance. Samples of a
    variational autoencoder that is trained on the same pictures. Uniform noise.
    """
    reference = reference_of(data)
    real = reference.real["test"]
    count = len(real)
    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(len(reference.train_pixels), generator=generator)[:count]
    noise = torch.randint(0, 256, (count, *data.input_shape), generator=generator, dtype=torch.uint8)
    pictures = {
        "real training pictures": reference.train_pixels[some],
        "variational autoencoder": autoencoded(data, count),
        "noise": noise,
    }
    return {name: frechet_distance(reference.judge.features(some), real) for name, some in pictures.items()}


def autoencoded(data: Images, count: int) -> torch.Tensor:
    """Pictures that a variational autoencoder decodes from noise, uint8, shape (count, C, H, W)."""
    torch.manual_seed(data.seed)
    model = Autoencoder(input_shape=data.input_shape, **AUTOENCODER)
    alone = copy.copy(data)
    alone.trainer = None
    num_epochs = min(EPOCHS, data.trainer.max_epochs)
    with tempfile.TemporaryDirectory(prefix="raydeck-") as scratch:
        trainer = silent_trainer(data.machine, max_epochs=num_epochs, limit_val_batches=0, default_root_dir=scratch)
        trainer.fit(model, datamodule=alone)
    with torch.inference_mode():
        code = torch.randn(count, AUTOENCODER["code_dim"], generator=torch.Generator().manual_seed(0))
        return (model.cpu().eval().decode(code) * 255).round().to(torch.uint8)
