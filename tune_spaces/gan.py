"""Loss, penalties, normalisation, widths, noise, steps and learning rates of the generative adversarial network."""

from ray import tune

from tune_spaces import Several

SPACE = {
    "model.loss": tune.choice(["non_saturating", "wgan_gp", "hinge"]),
    "model.gradient_penalty": tune.choice([0.0, 0.1, 1.0, 10.0]),
    "model.spectral_normalisation": tune.choice([True, False]),
    "model.batch_normalisation": tune.choice([True, False]),
    "model.minibatch_deviation": tune.choice([True, False]),
    "model.augmentation": tune.choice(["none", "shift", "shift_and_cutout"]),
    "model.noise_dim": tune.choice([32, 64, 128]),
    "model.generator_channels": Several(2, 3, tune.choice([32, 64, 128])),
    "model.discriminator_channels": Several(2, 4, tune.choice([32, 64, 128, 256])),
    "model.discriminator_steps": tune.choice([1, 2, 5]),
    "model.average_decay": tune.choice([0.9, 0.99, 0.999]),
    "model.lr": tune.loguniform(5e-5, 2e-3),
    "model.discriminator_lr": tune.loguniform(5e-5, 2e-3),
    "model.beta1": tune.choice([0.0, 0.5]),
    "data.batch_size": tune.choice([32, 64, 128]),
}
