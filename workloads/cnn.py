"""The deck's convolutional network on images."""

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
        "model.channels": (24, 48, 96), "model.dropout": 0.2,
        "data.shift": 2.0, "data.rotation": 12.0, "data.scale": 0.1, "trainer.max_epochs": 80,
    },
    smoke={"data.num_examples": 300, "model.channels": (8, 16), "trainer.max_epochs": 2},
    baselines=_baselines.images,
)  # fmt: skip
