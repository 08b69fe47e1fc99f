"""The autoencoder: losses by hand and by PyTorch, shapes of any size, and codes that beat principal components."""

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference

from lightning_modules.autoencoder import STEPS, Autoencoder, kl_divergence


def test_divergence_is_that_of_torch_distributions():
    mean, log_variance = torch.randn(5, 3), torch.randn(5, 3)
    expected = reference(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(dim=1)
    assert torch.allclose(kl_divergence(mean, log_variance), expected, atol=1e-5)
    assert kl_divergence(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


@pytest.mark.parametrize("network", ["fully_connected", "convolutional"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 17), (1, 5, 5)])
@pytest.mark.parametrize("variational", [False, True])
def test_pictures_of_any_size_come_back_in_their_shape(network, shape, variational):
    model = Autoencoder(shape, network=network, hidden_dims=(16,), channels=(4, 8), code_dim=3, variational=variational)
    batch = {"inputs": torch.rand(4, *shape)}
    outputs = model.eval().predict_step(batch, 0, seed=1)
    assert outputs["code"].shape == (4, 3) and outputs["error"].shape == (4,)
    assert outputs["picture"].shape == outputs["sample"].shape == (4, *shape)
    assert outputs["path"].shape == (4, STEPS, *shape)
    assert torch.allclose(outputs["path"][:, 0], outputs["picture"], atol=1e-6)
    assert torch.allclose(outputs["path"][0, -1], outputs["picture"][1], atol=1e-6)
    assert outputs["picture"].min() >= 0 and outputs["picture"].max() <= 1
    assert torch.equal(outputs["sample"], model.predict_step(batch, 0, seed=1)["sample"])
    assert not torch.equal(outputs["sample"], model.predict_step(batch, 0, seed=2)["sample"])


def test_losses_by_hand():
    model = Autoencoder((1, 2, 2), hidden_dims=(), code_dim=1, loss="mse", sparsity=0.5)
    with torch.no_grad():
        for layer in (model.encoder[-1], model.decoder[0]):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
    inputs = torch.tensor([[[[0.1, 0.2], [0.3, 0.4]]]])
    loss, mse, divergence = model._losses(inputs, kl_weight=1.0)
    back = torch.sigmoid(torch.tensor(1.0))  # the code is the sum of the pixels, 1
    expected = ((inputs - back) ** 2).mean()
    assert mse.item() == pytest.approx(expected.item(), rel=1e-5) and divergence == 0
    assert loss.item() == pytest.approx(expected.item() + 0.5 * 1.0, rel=1e-5)


def test_the_evidence_bound_is_reconstruction_and_divergence_a_pixel():
    model = Autoencoder((1, 4, 4), hidden_dims=(8,), code_dim=2, variational=True).eval()
    inputs = torch.rand(6, 1, 4, 4)
    free, _, divergence = model._losses(inputs, kl_weight=0.0)
    bound, _, _ = model._losses(inputs, kl_weight=1.0)
    assert (bound - free).item() == pytest.approx(divergence.item() / 16, rel=1e-4)


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("code_dim", 0, "model.code_dim: expected at least 1"),
        ("input_noise", -0.1, "model.input_noise: expected at least 0"),
        ("kl_warmup", 1.5, "model.kl_warmup: expected a fraction"),
        ("hidden_dims", (0,), "model.hidden_dims: expected widths"),
        ("lr", 0.0, "model.lr: expected more than 0"),
    ],
)
def test_values_out_of_range_are_refused(key, value, fault):
    with pytest.raises(ValueError, match=fault):
        Autoencoder((1, 8, 8), **{key: value})


def test_a_code_of_eight_numbers_keeps_more_than_eight_principal_components():
    from sklearn.datasets import load_digits
    from sklearn.decomposition import PCA

    torch.manual_seed(0)
    pixels = torch.tensor(load_digits().data[:600] / 16, dtype=torch.float32)
    model = Autoencoder((1, 8, 8), hidden_dims=(64,), code_dim=8, loss="mse")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(1500):
        loss, _, _ = model._losses(pixels.view(-1, 1, 8, 8), 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pca = PCA(8).fit(pixels)
    error = ((pca.inverse_transform(pca.transform(pixels)) - pixels.numpy()) ** 2).mean()
    assert loss.item() < 0.8 * error  # non-linear layers do better than any plane
