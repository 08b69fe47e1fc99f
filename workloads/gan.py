"""Pictures made of noise, by a generator against a discriminator.

Fréchet distance 8.19 of 1,000 samples to the 1,000 test digits of MNIST-5k, each digit at 7.5 % or more, in 21 min 54 s
on one core, 2026-11-27; a variational autoencoder's samples have 14.19, of which a third was aimed at, real training
digits 0.32: raydeck train gan --cpus-per-worker 1
"""

from lightning_modules.gan import GAN
from workloads import _baselines_samples, _samples
from workloads._spec import Workload
from workloads.data.images import Images

WORKLOAD = Workload(
    task="pictures like those of a set, made of noise",
    model=GAN,
    data=Images,
    metric="frechet_distance",
    monitor="val/frechet_distance",
    links={"input_shape": "input_shape", "num_classes": "num_classes"},
    defaults={
        "data.labels": "optional", "model.schedule": "cosine", "trainer.precision": "bf16-mixed",
        "trainer.max_epochs": 120, "trainer.check_val_every_n_epoch": 5, "trainer.sample_every_n_steps": 500,
    },
    smoke={
        "data.num_examples": 300, "model.generator_channels": (16, 8), "model.discriminator_channels": (8, 16),
        "model.noise_dim": 16, "trainer.max_epochs": 2, "trainer.check_val_every_n_epoch": 1,
    },
    baselines=_baselines_samples.samples,
    reader=_samples.Samples,
    scorer=_samples.scores,
    find_unused_parameters=True,
)  # fmt: skip
