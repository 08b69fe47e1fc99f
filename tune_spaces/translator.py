"""Cell, depth, widths and attention of the translator, its tokens, and its optimisation."""

from ray import tune

SPACE = {
    "model.cell": tune.choice(["gru", "lstm"]),
    "model.embedding_dim": tune.choice([64, 128, 256]),
    "model.hidden_dim": tune.choice([128, 256, 512]),
    "model.num_layers": tune.choice([1, 2]),
    "model.attention": tune.choice(["luong", "bahdanau"]),
    "model.dropout": tune.uniform(0.0, 0.5),
    "model.label_smoothing": tune.choice([0.0, 0.05, 0.1]),
    "model.teacher_forcing": tune.uniform(0.5, 1.0),
    "model.lr": tune.loguniform(5e-4, 1e-2),
    "model.weight_decay": tune.loguniform(1e-4, 0.1),
    "data.tokenizer": tune.choice(["bpe", "character"]),
    "data.vocabulary_size": tune.choice([1000, 2000, 4000]),
    "data.batch_size": tune.choice([64, 128, 256]),
}
