"""Depth, width of every layer and activation of the multilayer perceptron on images, with its augmentation."""

from ray import tune

from tune_spaces import Several

SPACE = {
    "model.hidden_dims": Several(1, 3, tune.choice([128, 256, 512, 1024])),
    "model.activation": tune.choice(["relu", "tanh", "gelu"]),
    "model.dropout": tune.uniform(0.0, 0.5),
    "model.label_smoothing": tune.choice([0.0, 0.05, 0.1]),
    "model.lr": tune.loguniform(3e-4, 1e-2),
    "model.weight_decay": tune.loguniform(1e-3, 0.3),
    "data.batch_size": tune.choice([32, 64, 128]),
    "data.shift": tune.uniform(0.0, 3.0),
    "data.rotation": tune.uniform(0.0, 15.0),
    "data.scale": tune.uniform(0.0, 0.2),
}
