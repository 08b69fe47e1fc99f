"""Depth, width of every layer and activation of the multilayer perceptron on tables, with its optimisation."""

from ray import tune

from tune_spaces import Given, Several

SPACE = {
    "model.hidden_dims": Several(0, 3, tune.choice([8, 16, 32, 64, 128])),
    "model.activation": tune.choice(["relu", "tanh", "gelu"]),
    "model.dropout": tune.uniform(0.0, 0.5),
    "model.label_smoothing": tune.choice([0.0, 0.05, 0.1]),
    "model.optimizer": tune.choice(["adamw", "sgd"]),
    "model.lr": Given("model.optimizer", {"adamw": tune.loguniform(1e-3, 3e-2), "sgd": tune.loguniform(1e-2, 0.3)}),
    "model.weight_decay": Given(
        "model.optimizer", {"adamw": tune.loguniform(1e-4, 1.0), "sgd": tune.loguniform(1e-5, 1e-2)}
    ),
    "model.schedule": tune.choice(["constant", "cosine"]),
    "data.batch_size": tune.choice([16, 32, 64]),
}
