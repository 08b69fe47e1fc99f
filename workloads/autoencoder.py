"""Autoencoder of pictures: a narrow code, plain, sparse or variational.

Not measured yet 0.0: raydeck train autoencoder
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
