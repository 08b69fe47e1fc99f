"""Cell, depth, width, pooling and dropout of the recurrent network on texts, its optimisation, and what a token is."""

from ray import tune

from tune_spaces import Given

SPACE = {
    "model.cell": tune.choice(["rnn", "gru", "lstm"]),
    "model.activation": Given("model.cell", {"rnn": tune.choice(["tanh", "relu", "sigmoid"])}),
    "model.embedding_dim": tune.choice([32, 64, 128]),
    "model.hidden_dim": tune.choice([32, 64, 128]),
    "model.num_layers": tune.choice([1, 2]),
    "model.bidirectional": tune.choice([True, False]),
    "model.pooling": tune.choice(["last", "mean", "max", "mean+max", "attention"]),
    "model.pool_words": tune.choice([True, False]),
    "model.word_dropout": tune.uniform(0.0, 0.5),
    "model.embedding_dropout": tune.uniform(0.0, 0.6),
    "model.dropout": tune.uniform(0.0, 0.6),
    "model.label_smoothing": tune.choice([0.0, 0.05, 0.1]),
    "model.lr": tune.loguniform(5e-4, 5e-3),
    "model.weight_decay": tune.loguniform(1e-3, 0.3),
    "data.batch_size": tune.choice([16, 32, 64]),
    "data.tokenizer": tune.choice(["word", "bpe"]),
    "data.vocabulary_size": tune.choice([5000, 10_000, 20_000, 30_000]),
}
