"""The deck's simple neural network on flattened images.

Accuracy 0.975 on the 1,000 test digits of MNIST-5k (0.977 and 0.979 with seeds 1 and 2) in 12 s on 2 cores, 2026-11-23:
raydeck train mlp_images
"""

from lightning_modules.mlp import MLP
from workloads import _baselines
from workloads._spec import Workload
from workloads.data.images import Images

WORKLOAD = Workload(
    task="class or number of an image",
    model=MLP,
    data=Images,
    metric="accuracy",
    links={key: key for key in ("input_shape", "output", "num_outputs", "target_scale")},
    defaults={
        "model.hidden_dims": (512, 256), "model.dropout": 0.2, "model.lr": 2e-3, "model.weight_decay": 0.05,
        "data.shift": 1.5, "data.rotation": 10.0, "data.scale": 0.1, "trainer.max_epochs": 60,
    },
    smoke={"data.num_examples": 300, "model.hidden_dims": (32,), "trainer.max_epochs": 2},
    baselines=_baselines.logistic,
)  # fmt: skip
