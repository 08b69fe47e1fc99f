import time

import pytest
import torch

from lightning_modules.mlp import MLP


def count(module):
    return sum(p.numel() for p in module.parameters())


def on_meta(*args, **keys):
    with torch.device("meta"):
        return MLP(*args, **keys)


def test_four_four_one_without_hidden_bias_has_21_parameters():
    assert count(on_meta((4,), "binary", 1, hidden_dims=(4,), hidden_bias=False)) == 21


def test_counts_of_a_fully_connected_picture():
    start = time.perf_counter()
    # A hidden layer with bias, and one output with bias.
    assert count(on_meta((480_000,), "regression", 1, hidden_dims=(480_000,))) == 480_000**2 + 2 * 480_000 + 1
    assert count(on_meta((480_000,), "regression", 1, hidden_dims=(1000,), hidden_bias=False)) == 480_001_001
    assert time.perf_counter() - start < 2.0


def test_no_hidden_layer_is_a_linear_model():
    assert count(on_meta((3, 5, 5), "multiclass", 4, hidden_dims=())) == 75 * 4 + 4


@pytest.mark.parametrize("output", ["binary", "multiclass", "regression", "count"])
def test_one_batch_can_be_overfitted(output):
    torch.manual_seed(0)
    module = MLP((6,), output, 3 if output == "multiclass" else 1, hidden_dims=(64,), lr=0.01)
    inputs = torch.randn(16, 6)
    targets = {"multiclass": torch.randint(0, 3, (16,)), "regression": torch.randn(16), "count": torch.arange(16.0)}
    batch = {"inputs": inputs, "target": targets.get(output, torch.randint(0, 2, (16,)))}
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()
    answer = module.eval().predict_step(batch, 0)
    if "probability" in answer:
        assert (answer["probability"].argmax(1) == batch["target"]).all()
    else:
        torch.testing.assert_close(answer["value"], batch["target"], atol=0.2, rtol=0.1)


def test_a_permuted_batch_gives_permuted_outputs():
    torch.manual_seed(0)
    module = MLP((1, 5, 5), "multiclass", 4, hidden_dims=(8, 8), activation="gelu", dropout=0.5).eval()
    inputs, order = torch.randn(10, 1, 5, 5), torch.randperm(10)
    torch.testing.assert_close(module(inputs[order]), module(inputs)[order])


def test_dropout_acts_in_training_alone():
    torch.manual_seed(0)
    module, inputs = MLP((4,), "regression", 1, hidden_dims=(32,), dropout=0.5), torch.randn(3, 4)
    assert not torch.equal(module(inputs), module(inputs))
    module.eval()
    assert torch.equal(module(inputs), module(inputs))


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"hidden_dims": (8, 0)}, r"model.hidden_dims: expected widths of at least 1, got \[8, 0\]"),
        ({"dropout": 1.5}, "model.dropout: expected a fraction from 0 to below 1, got 1.5"),
        ({"lr": -1.0}, "model.lr: expected more than 0, got -1.0"),
    ],
)
def test_values_out_of_range_are_refused(keys, line):
    with pytest.raises(ValueError, match=f"^{line}$"):
        MLP((4,), "binary", 1, **keys)
