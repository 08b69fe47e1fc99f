"""The GAN: losses and penalties by hand, any size, labels, an average of the generator, and moves of pictures."""

import math

import pytest
import pytorch_lightning as L
import torch
from torch import nn

from lightning_modules.gan import (
    GAN,
    STEPS,
    Discriminator,
    Generator,
    deviation,
    discriminator_loss,
    generator_loss,
    gradient_norm,
    moved,
    spherical,
)  # fmt: skip

SMALL = {"generator_channels": (8, 4), "discriminator_channels": (4, 8), "noise_dim": 6}


def test_losses_by_hand():
    real, made = torch.tensor([2.0, 0.5]), torch.tensor([-1.0, 3.0])
    softplus = lambda x: math.log1p(math.exp(x))  # noqa: E731
    expected = (softplus(-2) + softplus(-0.5)) / 2 + (softplus(-1) + softplus(3)) / 2
    assert discriminator_loss("non_saturating", real, made).item() == pytest.approx(expected, rel=1e-6)
    assert discriminator_loss("hinge", real, made).item() == pytest.approx((0 + 0.5) / 2 + (0 + 4) / 2)
    assert discriminator_loss("wgan_gp", real, made).item() == pytest.approx(1.0 - 1.25)
    assert generator_loss("non_saturating", made).item() == pytest.approx((softplus(1) + softplus(-3)) / 2, rel=1e-6)
    for loss in ("hinge", "wgan_gp"):
        assert generator_loss(loss, made).item() == pytest.approx(-1.0)


def test_the_norm_of_a_gradient_is_each_picture_s_own():
    pictures = torch.randn(3, 1, 2, 2, requires_grad=True)
    weights = torch.tensor([1.0, 2.0, 2.0, 4.0])
    norm = gradient_norm((pictures.flatten(1) @ weights) * torch.tensor([1.0, 2.0, 0.0]), pictures)
    assert norm.tolist() == pytest.approx([5.0, 10.0, 0.0])


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 17)])
@pytest.mark.parametrize("conditional", [False, True])
def test_pictures_of_any_size(shape, conditional):
    model = GAN(shape, 3, conditional=conditional, **SMALL).eval()
    batch = {"target": torch.tensor([0, 2, 1, 1]) if conditional else torch.full((4,), -1)}
    outputs = model.predict_step(batch, 0, seed=3)
    assert outputs["picture"].shape == (4, *shape) and outputs["path"].shape == (4, STEPS, *shape)
    assert outputs["picture"].min() >= 0 and outputs["picture"].max() <= 1
    assert torch.equal(outputs["picture"], model.predict_step(batch, 0, seed=3)["picture"])
    assert not torch.equal(outputs["picture"], model.predict_step(batch, 0, seed=4)["picture"])
    label = batch["target"] if conditional else None
    assert model.discriminator(outputs["picture"], label).shape == (4,)
    assert model.samples().shape == (64, *shape)


def test_a_generator_of_three_blocks_meets_odd_and_even_sides():
    for side in range(1, 20):
        assert Generator((1, side, 28), 6, 0, (8, 4, 4), True)(torch.randn(2, 6)).shape == (2, 1, side, 28)


def test_the_generator_moves_once_to_so_many_moves_of_the_discriminator():
    model = GAN((1, 8, 8), discriminator_steps=2, **SMALL)
    weight = model.generator.network[0].weight
    before = weight.detach().clone()
    batches = [{"inputs": torch.rand(4, 1, 8, 8), "target": torch.full((4,), -1)}] * 5
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    trainer.fit(model, loader, loader)
    assert trainer.global_step == 5 and model.averaged.n_averaged == model.num_moves("generator", 5) == 2
    assert not torch.equal(weight, before)


def test_a_label_is_of_consequence_to_both_networks():
    model = GAN((1, 8, 8), 3, conditional=True, **SMALL).eval()
    noise, pictures = torch.randn(2, 6).repeat(2, 1), torch.rand(2, 1, 8, 8).repeat(2, 1, 1, 1)
    labels = torch.tensor([0, 0, 1, 1])
    made = model.generator(noise, labels)
    assert not torch.allclose(made[:2], made[2:])
    score = Discriminator((1, 8, 8), 3, (4,), spectral=False, deviation=False)(pictures, labels)
    assert not torch.allclose(score[:2], score[2:])


def test_a_class_cannot_be_asked_of_a_network_that_knows_none():
    with pytest.raises(ValueError, match="makes no chosen class"):
        GAN((1, 8, 8), 3, **SMALL).eval().predict_step({"target": torch.tensor([1])}, 0)


def test_spectral_normalisation_bounds_every_layer():
    model = GAN((1, 8, 8), spectral_normalisation=True, **SMALL)
    for _ in range(30):
        model.discriminator(torch.rand(4, 1, 8, 8))
    for layer in model.discriminator.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1.0, abs=0.02)


def test_the_average_follows_the_generator_at_its_own_pace():
    model = GAN((1, 8, 8), average_decay=0.9, **SMALL)
    weight = model.generator.network[0].weight
    before = weight.detach().clone()
    model.averaged.update_parameters(model.generator)
    with torch.no_grad():
        weight.add_(1.0)
    model.averaged.update_parameters(model.generator)
    assert torch.allclose(model.averaged.module.network[0].weight, before + 0.1, atol=1e-6)
    assert not any(p.requires_grad for p in model.averaged.parameters())


def test_deviation_is_that_of_the_batch():
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0]]).view(2, 2, 1, 1).expand(2, 2, 3, 3)
    extra = deviation(features)
    assert extra.shape == (2, 1, 3, 3)
    assert extra.flatten().tolist() == pytest.approx([0.5] * 18, abs=1e-3)  # 1 of one channel, 0 of the other


def test_moves_keep_what_they_do_not_push_out_and_pass_gradients_on():
    torch.manual_seed(0)
    pictures = torch.full((200, 1, 16, 16), -1.0)
    pictures[:, :, 8, 8] = 1.0
    shifted = moved(pictures, "shift")
    assert torch.equal((shifted == 1).sum(dim=(1, 2, 3)), torch.ones(200, dtype=torch.long))
    rows = (shifted == 1).nonzero()[:, 2]
    assert set(rows.tolist()) == {6, 7, 8, 9, 10}
    cut = moved(torch.ones(200, 1, 16, 16), "shift_and_cutout")
    assert 0.02 < (cut == -1).float().mean().item() < 0.4
    inputs = torch.randn(4, 2, 8, 8, requires_grad=True)
    moved(inputs, "shift").sum().backward()
    assert inputs.grad.max() == 1
    assert moved(pictures, "none") is pictures


def test_the_way_between_noises_keeps_their_length():
    start, end = torch.randn(5, 64), torch.randn(5, 64)
    start, end = (8 * noise / noise.norm(dim=1, keepdim=True) for noise in (start, end))
    assert torch.allclose(spherical(start, end, 0.0), start, atol=1e-4)
    assert torch.allclose(spherical(start, end, 1.0), end, atol=1e-4)
    assert spherical(start, end, 0.5).norm(dim=1).tolist() == pytest.approx([8.0] * 5, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"conditional": True}, "model.conditional: the data has no classes"),
        ({"discriminator_steps": 0}, "model.discriminator_steps: expected at least 1"),
        ({"average_decay": 1.0}, "model.average_decay: expected at least 0 and below 1"),
        ({"gradient_penalty": -1.0}, "model.gradient_penalty: expected at least 0"),
        ({"generator_channels": ()}, "model.generator_channels: expected widths"),
    ],
)
def test_values_out_of_range_are_refused(options, fault):
    with pytest.raises(ValueError, match=fault):
        GAN((1, 8, 8), **{**SMALL, **options})
