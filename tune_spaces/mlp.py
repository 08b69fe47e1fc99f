"""Depth, width and activation of the multilayer perceptron on tables, with its optimisation."""

from ray import tune

SPACE = {
    "model.hidden_dims": tune.choice([[], [16], [64], [256], [32, 32], [128, 64], [64, 64, 64]]),
    "model.activation": tune.choice(["relu", "tanh", "gelu"]),
    "model.dropout": tune.uniform(0.0, 0.5),
    "model.label_smoothing": tune.choice([0.0, 0.05, 0.1]),
    "model.lr": tune.loguniform(1e-3, 3e-2),
    "model.weight_decay": tune.loguniform(1e-4, 1.0),
    "model.schedule": tune.choice(["constant", "cosine"]),
    "data.batch_size": tune.choice([16, 32, 64]),
}
