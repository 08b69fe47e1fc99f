"""Autoencoder of pictures: a narrow code, plain, sparse or variational.

Squared error a pixel 0.0062 on the 1,000 test digits of MNIST-5k by a code of 30 numbers, beside 0.0165 of as many
principal components, in 1 min 38 s on one core, 2026-11-27: raydeck train autoencoder --cpus-per-worker 1
"""

from lightning_modules.autoencoder import Autoencoder
from workloads import _codes
from workloads._spec import Workload
from workloads.data.images import Images

WORKLOAD = Workload(
    task="a code of a few numbers for an image",
    model=Autoencoder,
    data=Images,
    metric="mse",
    monitor="val/mse",
    links={"input_shape": "input_shape"},
    defaults={
        "data.labels": "optional", "data.shift": 1.0, "data.rotation": 8.0, "data.elastic": 1.0,
        "model.code_dim": 30, "trainer.max_epochs": 100,
    },
    smoke={"data.num_examples": 300, "model.hidden_dims": (32,), "model.code_dim": 8, "trainer.max_epochs": 2},
    baselines=_codes.baselines,
    reader=_codes.Codes,
    scorer=_codes.scores,
)  # fmt: skip
