"""The deck's recurrent network on reviews: what their writers thought.

Accuracy 0.909 on the 2,500 test reviews of IMDB in 12 min 34 s on one core of 2, the other one in use, 2026-11-27:
raydeck train text_classifier --cpus-per-worker 1
"""

from lightning_modules.text_classifier import TextClassifier
from workloads import _baselines_text
from workloads._spec import Workload
from workloads.data.labelled_text import LabelledText

WORKLOAD = Workload(
    task="class or number of a text",
    model=TextClassifier,
    data=LabelledText,
    metric="accuracy",
    links={key: key for key in ("num_tokens", "output", "num_outputs", "target_scale", "vectors_dim")},
    defaults={
        "model.pooling": "mean+max", "model.word_dropout": 0.3, "model.embedding_dropout": 0.3,
        "trainer.max_epochs": 5, "trainer.precision": "bf16-native", "trainer.gradient_clip_val": 1.0,
    },
    smoke={
        "data.num_examples": 200, "data.vocabulary_size": 2000, "model.embedding_dim": 8,
        "model.hidden_dim": 8, "trainer.max_epochs": 2,
    },
    baselines=_baselines_text.texts,
)  # fmt: skip
