"""Horizon, passes, clipping, entropy, normalisation, width, learning rate and size of updates of actor and critic."""

from ray import tune

from tune_spaces import Several

SPACE = {
    "model.gamma": tune.choice([0.9, 0.98, 0.99, 0.995]),
    "model.gae_lambda": tune.choice([0.8, 0.9, 0.95, 1.0]),
    "model.num_passes": tune.choice([4, 10, 20]),
    "model.clip_range": tune.choice([0.1, 0.2, 0.3]),
    "model.entropy_weight": tune.choice([0.0, 0.003, 0.01]),
    "model.value_weight": tune.choice([0.25, 0.5, 1.0]),
    "model.normalise_advantages": tune.choice([True, False]),
    "model.normalise_observations": tune.choice([True, False]),
    "model.normalise_returns": tune.choice([True, False]),
    "model.activation": tune.choice(["tanh", "relu"]),
    "model.hidden_dims": Several(1, 2, tune.choice([32, 64, 128])),
    "model.lr": tune.loguniform(1e-4, 3e-3),
    "data.batch_size": tune.choice([32, 64]),
}
