"""Stacked denoising autoencoder: layers that learn from images without labels, then the whole from a few with.

Not measured yet 0.0: raydeck train stacked_autoencoder
"""

from lightning_modules.stacked_autoencoder import StackedAutoencoder
from workloads import _baselines_labelled
from workloads._spec import Workload
from workloads.data.images import Images

WORKLOAD = Workload(
    task="class of an image, where few have a label",
    model=StackedAutoencoder,
    data=Images,
    metric="accuracy",
    monitor="val/accuracy",
    mode="max",
    links={key: key for key in ("input_shape", "output", "num_outputs", "unlabelled_epochs")},
    defaults={
        "data.labels": "optional", "data.num_labelled": 300, "data.unlabelled_epochs": 30,
        "trainer.max_epochs": 45, "trainer.sample_every_n_steps": 500,
    },
    smoke={
        "data.num_examples": 300, "data.num_labelled": 100, "data.unlabelled_epochs": 4,
        "model.hidden_dims": (32, 32), "trainer.max_epochs": 6,
    },
    baselines=_baselines_labelled.labelled,
    find_unused_parameters=True,
)  # fmt: skip
