"""Cell, depth and widths of the language model, its tokens, how far gradients reach back, and optimisation."""

from ray import tune

from tune_spaces import Given

SPACE = {
    "model.cell": tune.choice(["lstm", "gru", "rnn"]),
    "model.num_layers": tune.choice([1, 2, 3]),
    "model.hidden_dim": tune.choice([256, 512, 768]),
    "model.embedding_dim": tune.choice([64, 128, 256, 512]),
    "model.dropout": tune.uniform(0.0, 0.5),
    "model.lr": tune.loguniform(5e-4, 1e-2),
    "model.weight_decay": tune.loguniform(1e-3, 0.3),
    "data.tokenizer": tune.choice(["character", "bpe"]),
    "data.vocabulary_size": Given("data.tokenizer", {"bpe": tune.choice([500, 1000, 2000, 4000])}),
    "data.chunk_tokens": tune.choice([32, 64, 128]),
    "data.batch_size": tune.choice([32, 64, 128]),
}
