"""Depth, width of every block, normalisation and head of the convolutional network, optimisation and augmentation."""

from ray import tune

from tune_spaces import Several

SPACE = {
    "model.channels": Several(2, 4, tune.choice([16, 32, 64, 128])),
    "model.kernel_size": tune.choice([3, 5]),
    "model.convs_per_block": tune.choice([1, 2]),
    "model.pooling": tune.choice(["max", "average"]),
    "model.normalisation": tune.choice(["batch", "group"]),
    "model.activation": tune.choice(["relu", "gelu"]),
    "model.head_dims": tune.choice([[], [128]]),
    "model.dropout": tune.uniform(0.0, 0.5),
    "model.label_smoothing": tune.choice([0.0, 0.05, 0.1]),
    "model.lr": tune.loguniform(5e-4, 1e-2),
    "model.weight_decay": tune.loguniform(1e-2, 3.0),
    "data.batch_size": tune.choice([32, 64, 128]),
    "data.shift": tune.uniform(0.0, 3.0),
    "data.rotation": tune.uniform(0.0, 20.0),
    "data.scale": tune.uniform(0.0, 0.2),
    "data.shear": tune.uniform(0.0, 15.0),
    "data.elastic": tune.uniform(0.0, 3.0),
}
