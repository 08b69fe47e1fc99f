"""The deck's long dependency: the first word of a sentence decides its end, at a distance of one's choice.

Accuracy 1.000 on the 600 test sentences at distance 100 in 5 s on one core, 2026-11-27:
raydeck train long_dependency --cpus-per-worker 1
"""

from lightning_modules.text_classifier import TextClassifier
from workloads import _baselines_long_dependency
from workloads._spec import Workload
from workloads.data.long_dependency import LongDependency

WORKLOAD = Workload(
    task="end of a sentence, decided by its first word",
    model=TextClassifier,
    data=LongDependency,
    metric="accuracy",
    links={key: key for key in ("num_tokens", "output", "num_outputs", "target_scale", "vectors_dim")},
    defaults={
        "model.cell": "lstm", "model.pooling": "last", "model.bidirectional": False, "model.memory_steps": 400,
        "model.embedding_dim": 32, "model.hidden_dim": 64, "model.lr": 1e-2,
        "model.word_dropout": 0.0, "model.embedding_dropout": 0.0, "model.dropout": 0.0,
        "trainer.max_epochs": 6, "trainer.gradient_clip_val": 1.0,
    },
    smoke={"data.distance": 12, "data.num_examples": 300, "model.hidden_dim": 8, "trainer.max_epochs": 2},
    baselines=_baselines_long_dependency.forgetful,
)  # fmt: skip
