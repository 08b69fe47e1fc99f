"""The deck's simple neural network on tables.

Test accuracy 0.900 on iris, 0.972 on wine, 0.974 on breast_cancer, r2 0.510 on diabetes, in a second each on 2 cores,
2026-11-23: raydeck train mlp --data.source wine
"""

from lightning_modules.mlp import MLP
from workloads import _baselines
from workloads._spec import Workload
from workloads.data.tables import Tables

WORKLOAD = Workload(
    task="class or number of a table's row",
    model=MLP,
    data=Tables,
    metric="accuracy",
    links={key: key for key in ("input_shape", "output", "num_outputs", "target_scale")},
    defaults={
        "model.hidden_dims": (32,), "model.dropout": 0.1, "model.lr": 1e-2, "model.weight_decay": 0.1,
        "trainer.max_epochs": 60,
    },
    smoke={"model.hidden_dims": (8,), "trainer.max_epochs": 2},
    baselines=_baselines.tables,
)  # fmt: skip
