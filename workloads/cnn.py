"""The deck's convolutional network on images.

Accuracy 0.990 on the 1,000 test digits of MNIST-5k (0.991 and 0.992 with seeds 1 and 2) in 2 min 12 s on 2 cores,
2026-11-23: raydeck train cnn
"""

from lightning_modules.cnn import CNN
from workloads import _baselines
from workloads._spec import Workload
from workloads.data.images import Images

WORKLOAD = Workload(
    task="class or number of an image",
    model=CNN,
    data=Images,
    metric="accuracy",
    links={key: key for key in ("input_shape", "output", "num_outputs", "target_scale")},
    defaults={
        "model.channels": (32, 64, 128), "model.dropout": 0.5, "model.label_smoothing": 0.05,
        "model.lr": 3e-3, "model.weight_decay": 1.0,
        "data.shift": 1.5, "data.rotation": 10.0, "data.scale": 0.1, "data.shear": 8.0, "data.elastic": 1.5,
        "trainer.max_epochs": 65,
    },
    smoke={"data.num_examples": 300, "model.channels": (8, 16), "trainer.max_epochs": 2},
    baselines=_baselines.images,
)  # fmt: skip
