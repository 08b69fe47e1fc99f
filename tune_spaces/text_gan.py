"""Generator, discriminator, how the one learns from the other, phases and ratios."""

from ray import tune

SPACE = {
    "model.embedding_dim": tune.choice([32, 64, 128]),
    "model.hidden_dim": tune.choice([32, 64, 128]),
    "model.discriminator": tune.choice(["cnn", "lstm"]),
    "model.num_filters": tune.choice([32, 64, 128]),
    "model.discriminator_dropout": tune.uniform(0.0, 0.5),
    "model.method": tune.choice(["policy_gradient", "gumbel_softmax"]),
    "model.num_rollouts": tune.choice([4, 8, 16]),
    "model.temperature": tune.loguniform(0.3, 3.0),
    "model.pretrain_epochs": tune.choice([10, 20, 40]),
    "model.discriminator_steps": tune.choice([1, 3, 5, 10]),
    "model.likelihood_weight": tune.choice([0.0, 0.1, 1.0]),
    "model.pretrain_lr": tune.loguniform(1e-3, 3e-2),
    "model.lr": tune.loguniform(1e-4, 1e-2),
    "model.discriminator_lr": tune.loguniform(1e-4, 1e-2),
}
