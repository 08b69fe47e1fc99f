"""Depth, width and activation of the multilayer perceptron on images, with its optimisation and augmentation."""

from ray import tune

SPACE = {
    "model.hidden_dims": tune.choice([[128], [512], [256, 128], [512, 256], [1024, 512], [256, 256, 256]]),
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
