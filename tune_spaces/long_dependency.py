"""Cell, width, how long gates remember before training, and optimisation of a network that has to remember."""

from ray import tune

from tune_spaces import Given

SPACE = {
    "model.cell": tune.choice(["rnn", "gru", "lstm"]),
    "model.activation": Given("model.cell", {"rnn": tune.choice(["tanh", "relu", "sigmoid"])}),
    "model.memory_steps": Given(
        "model.cell", {"gru": tune.choice([0, 10, 100, 1000]), "lstm": tune.choice([0, 10, 100, 1000])}
    ),
    "model.embedding_dim": tune.choice([16, 32, 64]),
    "model.hidden_dim": tune.choice([32, 64, 128]),
    "model.num_layers": tune.choice([1, 2]),
    "model.lr": tune.loguniform(1e-3, 3e-2),
    "trainer.gradient_clip_val": tune.choice([0.1, 1.0]),
    "data.batch_size": tune.choice([32, 64, 128]),
}
