"""Lines by a generator that plays against a discriminator: of an oracle, or of Shakespeare.

The oracle's negative log likelihood of its lines is 2.932 nats a token (2.958 and 3.128 with seeds 1 and 2), of the
same generator's by likelihood alone, at its best of as many epochs, 3.438 (3.430, 3.429), of real lines 2.100, in 12
min 45 s on one core, 2026-11-27: raydeck train text_gan --cpus-per-worker 1
"""

from lightning_modules.text_gan import TextGAN
from workloads import _baselines_lines
from workloads._spec import Workload
from workloads.data.lines import Lines

WORKLOAD = Workload(
    task="lines like those of a set",
    model=TextGAN,
    data=Lines,
    metric="oracle_nll",
    monitor="val/criterion",
    links={"vocabulary": "vocabulary", "length": "length", "ends": "ends"},
    defaults={
        "data.vocabulary_size": 50, "data.num_lines": 30_000, "data.batch_size": 128, "model.embedding_dim": 8,
        "model.hidden_dim": 8, "model.discriminator": "lstm", "model.pretrain_epochs": 10,
        "model.discriminator_epochs": 6, "model.discriminator_steps": 3, "model.num_rollouts": 2, "model.lr": 3e-3,
        "model.discriminator_lr": 2e-3, "trainer.max_epochs": 23, "trainer.gradient_clip_val": 5.0,
        "trainer.sample_every_n_steps": 1000,
    },
    smoke={
        "data.batch_size": 64, "data.num_lines": 320, "data.length": 6, "model.pretrain_epochs": 1,
        "model.discriminator_epochs": 1, "model.discriminator_steps": 2, "model.num_rollouts": 2,
        "trainer.max_epochs": 3,
    },
    baselines=_baselines_lines.lines,
    find_unused_parameters=True,
)  # fmt: skip
