"""Depth, width, noise, non-linearity and learning rates of the stacked denoising autoencoder."""

from ray import tune

from tune_spaces import Several

SPACE = {
    "model.hidden_dims": Several(1, 4, tune.choice([250, 500, 1000, 2000])),
    "model.activation": tune.choice(["sigmoid", "relu"]),
    "model.noise": tune.choice(["masking", "salt_and_pepper", "gaussian"]),
    "model.noise_level": tune.uniform(0.0, 0.6),
    "model.tied": tune.choice([True, False]),
    "model.pretrain_lr": tune.loguniform(1e-4, 1e-2),
    "model.dropout": tune.uniform(0.0, 0.5),
    "model.label_smoothing": tune.choice([0.0, 0.1]),
    "model.lr": tune.loguniform(1e-4, 1e-2),
    "model.weight_decay": tune.loguniform(1e-4, 1.0),
    "data.batch_size": tune.choice([32, 64, 128]),
}
