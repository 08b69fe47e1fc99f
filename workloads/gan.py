"""Pictures made of noise, by a generator against a discriminator.

Fréchet distance 6.65 of 1,000 samples to the 1,000 test digits of MNIST-5k, each digit at 8.1 % or more, in 23 min 4 s
on one core, 2026-11-27; a variational autoencoder's samples have 11.52 (13.69 if trained in batches of 64, not 32), a
third of which was aimed at and is missed, real training digits 0.29: raydeck train gan --cpus-per-worker 1
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
        "data.labels": "optional", "data.batch_size": 32, "model.schedule": "cosine", "trainer.max_epochs": 80,
        "trainer.check_val_every_n_epoch": 5, "trainer.sample_every_n_steps": 500,
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
