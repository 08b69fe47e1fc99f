"""Network, width, code, loss, noise, sparsity and divergence of the autoencoder, and optimisation."""

from ray import tune

from tune_spaces import Several

SPACE = {
    "model.network": tune.choice(["fully_connected", "convolutional"]),
    "model.hidden_dims": Several(1, 3, tune.choice([128, 256, 512, 1024])),
    "model.channels": Several(1, 3, tune.choice([16, 32, 64])),
    "model.activation": tune.choice(["relu", "gelu", "sigmoid"]),
    "model.loss": tune.choice(["bce", "mse"]),
    "model.input_noise": tune.uniform(0.0, 0.4),
    "model.sparsity": tune.choice([0.0, 1e-4, 1e-3]),
    "model.lr": tune.loguniform(3e-4, 1e-2),
    "model.weight_decay": tune.loguniform(1e-4, 1.0),
    "data.batch_size": tune.choice([32, 64, 128]),
    "data.shift": tune.uniform(0.0, 2.0),
    "data.elastic": tune.uniform(0.0, 2.0),
}
