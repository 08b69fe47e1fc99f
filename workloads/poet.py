"""Language model that has read Shakespeare's plays and writes on.

The settings below are not measured yet. Nats per character 1.451 on 3 test plays never seen (1.453 on validation),
short of the 1.38 aimed at, after three of four epochs, 18 min on one core shared with others, 2026-11-27, by
raydeck train poet --data.tokenizer bpe --data.vocabulary_size 1024 --data.batch_size 32 --model.embedding_dim 512
--model.lr 0.003 --model.dropout 0.15 --trainer.max_epochs 4
"""

from lightning_modules.poet import Poet
from workloads import _baselines_verse
from workloads._spec import Workload
from workloads.data.plain_text import PlainText

WORKLOAD = Workload(
    task="text that goes on from a prompt",
    model=Poet,
    data=PlainText,
    metric="nats_per_character",
    monitor="val/nats_per_character",
    links={"vocabulary": "vocabulary"},
    defaults={
        "data.batch_size": 64, "model.embedding_dim": 128, "model.lr": 4e-3,
        "trainer.precision": "bf16-mixed", "trainer.gradient_clip_val": 1.0, "trainer.max_epochs": 5,
    },
    smoke={
        "data.num_characters": 40_000, "data.batch_size": 8,
        "model.hidden_dim": 32, "model.embedding_dim": 32, "trainer.max_epochs": 2,
    },
    baselines=_baselines_verse.verse,
)  # fmt: skip
