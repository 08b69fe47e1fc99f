import math

import pytest
import pytorch_lightning as L
import torch
from torch import nn

from lightning_modules.mlp import MLP
from lightning_modules.shared import optimization
from lightning_modules.shared.optimization import Settings, lr_factor
from workloads.data._batches import Batches, InMemory


def settings(**changes):
    return Settings(
        **{"optimizer": "adamw", "lr": 0.1, "weight_decay": 0.5, "schedule": "cosine", "warmup": 0.0} | changes
    )


def test_warmup_rises_linearly_to_one():
    factors = [lr_factor(step, 20, schedule="constant", warmup=0.2) for step in range(6)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_falls_from_one_to_zero_after_the_warmup():
    factors = [lr_factor(step, 12, schedule="cosine", warmup=1 / 6) for step in range(13)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[7] == pytest.approx(0.5)
    assert factors[4] == pytest.approx(0.5 * (1 + math.cos(math.pi / 5)))
    assert factors[12] == pytest.approx(0.0, abs=1e-12)
    assert lr_factor(99, 12, schedule="cosine", warmup=0.0) == pytest.approx(0.0, abs=1e-12)


def test_step_is_a_tenth_from_half_and_a_hundredth_from_three_quarters():
    factors = [lr_factor(step, 8, schedule="step", warmup=0.0) for step in range(8)]
    assert factors == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_one_step_of_training_has_a_rate():
    assert lr_factor(0, 1, schedule="cosine", warmup=0.05) == 1.0


def test_biases_and_normalisation_do_not_decay():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 1))
    decaying, sparing = optimization.decay_groups(network, 0.5)
    assert (decaying["weight_decay"], sparing["weight_decay"]) == (0.5, 0.0)
    assert {p.ndim for p in decaying["params"]} == {4, 2}
    assert len(decaying["params"]) + len(sparing["params"]) == len(list(network.parameters()))
    assert len(sparing["params"]) == 4


def test_frozen_parameters_are_left_out():
    layer = nn.Linear(2, 1)
    layer.bias.requires_grad_(False)
    assert [g["params"] for g in optimization.decay_groups(layer, 0.1)] == [[layer.weight]]


def test_adamw_decays_a_weight_without_gradient_by_lr_times_decay():
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, 2.0)
    nn.init.constant_(layer.bias, 2.0)
    optimizer = optimization.build(layer, settings(), fused=True)
    layer.weight.grad, layer.bias.grad = torch.zeros(1, 1), torch.zeros(1)
    optimizer.step()
    assert layer.weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5))
    assert layer.bias.item() == 2.0


def test_sgd_has_nesterov_momentum():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    optimizer = optimization.build(layer, settings(optimizer="sgd", weight_decay=0.0), fused=True)
    for _ in range(2):
        layer.weight.grad = torch.ones(1, 1)
        optimizer.step()
    # Velocity is 1, then 0.9 + 1 = 1.9; a Nesterov step moves by lr * (gradient + 0.9 * velocity).
    assert layer.weight.item() == pytest.approx(1.0 - 0.1 * (1 + 0.9) - 0.1 * (1 + 0.9 * 1.9))


@pytest.mark.parametrize(
    ("changes", "key"), [({"lr": 0.0}, "lr"), ({"weight_decay": -1.0}, "weight_decay"), ({"warmup": 1.0}, "warmup")]
)
def test_settings_out_of_range_are_refused(changes, key):
    with pytest.raises(ValueError, match=f"^model.{key}: expected .*, got [-0-9.]+$"):
        settings(**changes)


class Rates(L.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def fit(max_epochs, checkpoint=None):
    rates = Rates()
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=max_epochs, callbacks=[rates], logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, log_every_n_steps=1, num_sanity_val_steps=0,
    )  # fmt: skip
    module = MLP((2,), "regression", 1, hidden_dims=(3,), lr=1.0, warmup=0.0)
    loader = Batches(InMemory({"inputs": torch.rand(8, 2), "target": torch.rand(8)}), 2)
    trainer.fit(module, loader, loader, ckpt_path=checkpoint, weights_only=True)
    return trainer, rates.seen


def test_resuming_with_more_epochs_follows_the_longer_schedule(tmp_path):
    trainer, seen = fit(1)
    assert seen == pytest.approx([lr_factor(k, 4, schedule="cosine", warmup=0.0) for k in range(4)])
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    _, resumed = fit(3, checkpoint=tmp_path / "one.ckpt")
    longer = [lr_factor(k, 12, schedule="cosine", warmup=0.0) for k in range(12)]
    assert len(resumed) == 8
    assert resumed[1:] == pytest.approx(longer[5:])
