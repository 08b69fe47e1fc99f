"""Several optimizers that move in turn: counted once a batch, clipped, scheduled, saved, and apart from each other."""

import copy

import pytest
import pytorch_lightning as L
import torch
from torch import nn

from lightning_modules.shared import optimization
from lightning_modules.shared.players import Player, Players, phase_at
from workloads import load

SETTINGS = {"optimizer": "sgd", "weight_decay": 0.0, "schedule": "constant", "warmup": 0.0}


class Two(Players):
    """Two numbers: ``fast`` moves with every batch, ``slow`` with every second; each loss depends on both."""

    def __init__(self, clip=0.0, schedule="constant"):
        super().__init__()
        self.fast, self.slow = (nn.Linear(1, 1, bias=False) for _ in range(2))
        for network in (self.fast, self.slow):
            nn.init.constant_(network.weight, 1.0)
        self.gradient_clip_val, self.kind = clip, schedule

    def players(self):
        settings = {**SETTINGS, "schedule": self.kind}
        return {
            "fast": Player(networks=[self.fast], settings=optimization.Settings(lr=0.1, **settings)),
            "slow": Player(networks=[self.slow], settings=optimization.Settings(lr=0.2, **settings)),
        }

    def num_moves(self, name, num_batches):
        return num_batches if name == "fast" else num_batches // 2

    def training_step(self, batch, batch_idx):
        with self.turn("fast") as move:
            loss = (3 * self.fast.weight + self.slow.weight).sum()
            move(loss)
        assert self.slow.weight.grad is None
        if self.global_step % 2 == 0:
            with self.turn("slow") as move:
                move((self.fast.weight.detach() + 2 * self.slow.weight).sum())
        return {"loss": loss}


def trained(module, epochs=1, batches=4):
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(torch.zeros(batches, 1)))
    return trainer


def test_each_player_moves_by_its_own_gradient_and_rate_and_a_batch_is_one_step():
    module = Two()
    trainer = trained(module)
    assert trainer.global_step == 4
    # Nesterov momentum 0.9 of a constant gradient g: steps of lr * g * (1.9, 2.71, 3.439, ...).
    assert module.fast.weight.item() == pytest.approx(1 - 0.1 * 3 * (1.9 + 2.71 + 3.439 + 4.0951), rel=1e-5)
    assert module.slow.weight.item() == pytest.approx(1 - 0.2 * 2 * (1.9 + 2.71), rel=1e-5)


def test_each_player_s_gradient_is_clipped():
    module = Two(clip=0.5)
    trained(module, batches=2)
    assert module.fast.weight.item() == pytest.approx(1 - 0.1 * 0.5 * (1.9 + 2.71), rel=1e-4)
    assert module.slow.weight.item() == pytest.approx(1 - 0.2 * 0.5 * 1.9, rel=1e-4)


@pytest.mark.parametrize("bound", [0.5, 1e6])
def test_clipping_is_pytorch_s(bound):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2))
    network[:2](torch.randn(5, 3)).square().sum().backward()  # the last layer has no gradient
    module = Two(clip=bound)
    wanted = copy.deepcopy(network)
    for parameter, other in zip(network.parameters(), wanted.parameters(), strict=True):
        other.grad = None if parameter.grad is None else parameter.grad.clone()
    norm = torch.nn.utils.clip_grad_norm_(wanted.parameters(), bound)
    assert 0.5 < norm < 1e6
    module.on_before_optimizer_step(torch.optim.SGD(network.parameters(), lr=1.0))
    for parameter, other in zip(network.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad)


class Often(Two):
    """One number that moves several times with every batch."""

    def players(self):
        return {"fast": super().players()["fast"]}

    def num_moves(self, name, num_batches):
        return 3 * num_batches

    def training_step(self, batch, batch_idx):
        with self.turn("fast") as move:
            for _ in range(3):
                loss = 3 * self.fast.weight.sum()
                move(loss)
        return {"loss": loss}


@pytest.mark.parametrize("callbacks_see_all", [False, True])
def test_several_moves_in_a_turn_are_as_many_steps_of_the_optimizer(callbacks_see_all, monkeypatch):
    if callbacks_see_all:  # the way that they go where gradients are averaged or scaled
        monkeypatch.setattr(L.Trainer, "world_size", 2)
    module = Often(clip=0.5, schedule="cosine")
    trainer = trained(module, batches=2)
    assert trainer.global_step == 2
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    for _ in range(6):
        optimizer.zero_grad()
        (3 * weight.sum()).backward()
        torch.nn.utils.clip_grad_norm_([weight], 0.5)
        optimizer.step()
        schedule.step()
    assert module.fast.weight.item() == pytest.approx(weight.item(), rel=1e-5)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)


def test_each_player_s_schedule_ends_with_its_own_last_move():
    trainer = trained(Two(schedule="cosine"), batches=8)
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == pytest.approx([0.0, 0.0], abs=1e-9)


def test_phases_follow_one_another():
    phases = [("a", 2), ("b", 0), ("c", 1)]
    assert [phase_at(epoch, phases, "d") for epoch in range(5)] == ["a", "a", "c", "d", "d"]


def test_summing_gradients_over_batches_is_refused_for_networks_that_move_in_turn():
    with pytest.raises(ValueError, match=r"trainer\.accumulate_grad_batches: GAN's networks move in turn"):
        load("gan").config({"trainer.accumulate_grad_batches": 2})
