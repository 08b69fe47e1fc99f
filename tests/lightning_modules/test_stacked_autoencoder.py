"""The stacked denoising autoencoder: noise as it says, one layer at a time, and what pretraining is worth."""

import pytest
import torch
import torch.nn.functional as F

from lightning_modules.stacked_autoencoder import Decoder, StackedAutoencoder, corrupt


def small(**options):
    return StackedAutoencoder(
        (1, 4, 4), "multiclass", 3, **{"hidden_dims": (8, 6), "unlabelled_epochs": 5, "noise": "none", **options}
    )


def test_corruption_is_of_the_named_kind_and_strength():
    torch.manual_seed(0)
    clean = torch.rand(400, 100) + 0.5
    masked = corrupt(clean, "masking", 0.3)
    assert (masked == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert torch.equal(masked[masked != 0], clean[masked != 0])
    salted = corrupt(clean, "salt_and_pepper", 0.4)
    for extreme in (clean.min(), clean.max()):
        assert (salted == extreme).float().mean().item() == pytest.approx(0.2, abs=0.01)
    noise = corrupt(clean, "gaussian", 0.5) - clean
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.std().item() == pytest.approx(0.5 * clean.std().item(), rel=0.02)
    for kind in ("masking", "salt_and_pepper", "gaussian"):
        assert torch.equal(corrupt(clean, kind, 0.0), clean)


def test_a_tied_decoder_uses_the_encoder_s_weights_transposed():
    layer = torch.nn.Linear(5, 3)
    decoder = Decoder(layer, tied=True)
    hidden = torch.randn(2, 3)
    assert torch.allclose(decoder(hidden), F.linear(hidden, layer.weight.T, decoder.bias))
    assert [name for name, _ in decoder.named_parameters()] == ["bias"]
    assert {name for name, _ in Decoder(layer, tied=False).named_parameters()} == {"bias", "weight"}


def test_denoising_loss_by_hand():
    model = small(activation="sigmoid")
    inputs = torch.rand(7, 1, 4, 4)
    first, second = model.encoders
    hidden = torch.sigmoid(first(inputs.flatten(1)))
    back = F.linear(torch.sigmoid(second(hidden)), second.weight.T, model.decoders[1].bias).sigmoid()
    expected = -(hidden * back.log() + (1 - hidden) * (1 - back).log()).mean()
    assert model.denoising(inputs, 1).item() == pytest.approx(expected.item(), rel=1e-5)
    relu = small(activation="relu")
    hidden = relu.encoders[0](inputs.flatten(1)).relu()
    back = F.linear(relu.encoders[1](hidden).relu(), relu.encoders[1].weight.T, relu.decoders[1].bias)
    assert relu.denoising(inputs, 1).item() == pytest.approx(((back - hidden) ** 2).mean().item(), rel=1e-5)


def test_a_layer_s_loss_moves_that_layer_alone():
    model = small()
    model.denoising(torch.rand(7, 1, 4, 4), 1).backward()
    assert model.encoders[0].weight.grad is None and model.head.weight.grad is None
    assert model.encoders[1].weight.grad.abs().sum() > 0


def test_layers_share_the_epochs_and_the_first_take_the_rest():
    assert small().phases == [("layer 1", 3), ("layer 2", 2)]
    assert small(unlabelled_epochs=0).phases == [("layer 1", 0), ("layer 2", 0)]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"noise": "masking", "noise_level": 1.0}, "model.noise_level: expected a part from 0 to below 1 for masking"),
        ({"noise": "gaussian", "noise_level": -1.0}, "model.noise_level: expected at least 0 for gaussian"),
        ({"unlabelled_epochs": 1}, "data.unlabelled_epochs: 1 are fewer than one for each of 2 layers"),
        ({"hidden_dims": ()}, "model.hidden_dims: expected widths"),
        ({"pretrain_lr": 0.0}, "model.pretrain_lr: expected more than 0"),
    ],
)
def test_values_out_of_range_are_refused(options, fault):
    with pytest.raises(ValueError, match=fault):
        small(**options)


def test_data_without_classes_is_refused():
    with pytest.raises(ValueError, match="needs the classes of some images"):
        StackedAutoencoder((1, 4, 4), "none", 1)


def test_filters_are_grey_where_a_weight_is_nothing():
    model = small()
    with torch.no_grad():
        model.encoders[0].weight[0] = torch.tensor([0.0, -2.0, 1.0] + [0.0] * 13)
    first = model.samples()[0].flatten()
    assert first[:3].tolist() == [0.5, 0.0, 0.75] and model.samples().shape == (8, 1, 4, 4)
