"""Stacked denoising autoencoder: layers that learn from images without labels, then the whole from a few with.

Accuracy 0.890 on the 1,000 test digits of MNIST-5k with 300 labels of its 3,500 training digits, 0.878 without
pretraining, 0.883 by an SVM, in 48 s on one core, 2026-11-27: raydeck train stacked_autoencoder --cpus-per-worker 1
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
