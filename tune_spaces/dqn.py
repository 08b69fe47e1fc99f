"""What Rainbow adds to the deep Q-network, one by one; exploration, target network, width, learning rate."""

from ray import tune

from tune_spaces import Several

SPACE = {
    "model.double": tune.choice([True, False]),
    "model.dueling": tune.choice([True, False]),
    "data.n_step": tune.choice([1, 3, 5]),
    "data.priority_exponent": tune.choice([0.0, 0.6]),
    "model.target_every": tune.choice([1, 2, 5]),
    "model.target_rate": tune.choice([0.1, 1.0]),
    "model.exploration_fraction": tune.choice([0.1, 0.2, 0.4]),
    "model.epsilon_end": tune.choice([0.01, 0.04, 0.1]),
    "model.gamma": tune.choice([0.98, 0.99, 0.995]),
    "model.hidden_dims": Several(1, 2, tune.choice([64, 128, 256])),
    "model.lr": tune.loguniform(1e-4, 5e-3),
    "data.batch_size": tune.choice([32, 64, 128]),
}
