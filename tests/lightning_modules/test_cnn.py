import pytest
import pytorch_lightning as L
import torch

from lightning_modules.cnn import CNN
from workloads.data._batches import Batches, InMemory

DECK = (64, 64, 128, 256, 256, 512, 512, 512)


def on_meta(*args, **keys):
    with torch.device("meta"):
        return CNN(*args, **keys)


def conv_weights(module):
    return sum(p.numel() for p in module.blocks.parameters())


@pytest.mark.parametrize(("num_filters", "num_weights"), [(1, 4), (100, 400)])
def test_filters_of_two_by_two_have_four_weights_each(num_filters, num_weights):
    module = on_meta(
        (1, 4, 4), "binary", 1, channels=(num_filters,), kernel_size=2, convs_per_block=1, normalisation="none"
    )
    assert conv_weights(module) == num_weights


def test_an_even_kernel_takes_a_pixel_off():
    keys = {"channels": (1,), "kernel_size": 2, "convs_per_block": 1, "normalisation": "none", "pool_size": 1}
    module = CNN((1, 4, 4), "binary", 1, **keys, activation="relu")
    torch.nn.init.ones_(module.blocks[0][0].weight)
    features = module.blocks(torch.arange(16.0).view(1, 1, 4, 4))
    assert features.view(3, 3).tolist() == [[10, 14, 18], [26, 30, 34], [42, 46, 50]]


@pytest.mark.parametrize(("pooling", "pooled"), [("max", [[5, 7], [13, 15]]), ("average", [[2.5, 4.5], [10.5, 12.5]])])
def test_pooling_by_hand(pooling, pooled):
    keys = {"channels": (1,), "kernel_size": 1, "convs_per_block": 1, "normalisation": "none", "pooling": pooling}
    module = CNN((1, 4, 4), "binary", 1, **keys)
    torch.nn.init.ones_(module.blocks[0][0].weight)
    assert module.blocks(torch.arange(16.0).view(1, 1, 4, 4)).view(2, 2).tolist() == pooled


def test_a_window_over_the_edge_takes_the_pixels_it_has():
    keys = {"channels": (1,), "kernel_size": 1, "convs_per_block": 1, "normalisation": "none", "pooling": "average"}
    module = CNN((1, 3, 3), "binary", 1, **keys)
    torch.nn.init.ones_(module.blocks[0][0].weight)
    assert module.blocks(torch.arange(9.0).view(1, 1, 3, 3)).view(2, 2).tolist() == [[2.0, 3.5], [6.5, 8.0]]


@pytest.mark.parametrize("side", [28, 224])
def test_the_decks_eight_blocks(side):
    keys = {"channels": DECK, "convs_per_block": 1, "normalisation": "none", "bias": True}
    module = on_meta((3, side, side), "multiclass", 10, **keys)
    pairs = zip((3, *DECK), DECK, strict=False)
    assert conv_weights(module) == sum(9 * before * after + after for before, after in pairs)
    assert module(torch.empty(2, 3, side, side, device="meta")).shape == (2, 10)
    module.training_step({"inputs": torch.empty(2, 3, side, side, device="meta"),
                          "target": torch.zeros(2, dtype=torch.int64, device="meta")}, 0).backward()  # fmt: skip
    assert all(p.grad is not None for p in module.parameters())


def test_pooling_stops_when_the_picture_is_smaller_than_the_window():
    blocks = on_meta((1, 28, 28), "multiclass", 10, channels=(2,) * 6, convs_per_block=1).blocks
    sides = [blocks[:k](torch.empty(2, 1, 28, 28, device="meta")).shape[-1] for k in range(1, 7)]
    assert sides == [14, 7, 4, 2, 1, 1]


def test_pooling_every_second_block():
    blocks = on_meta((1, 28, 20), "multiclass", 10, channels=(2,) * 4, pool_every=2).blocks
    assert blocks(torch.empty(1, 1, 28, 20, device="meta")).shape == (1, 2, 7, 5)


@pytest.mark.parametrize(("global_average", "num_features"), [(True, 4), (False, 4 * 7 * 7)])
def test_the_head_takes_averages_or_every_pixel(global_average, num_features):
    keys = {"channels": (2, 4), "head_dims": (5,), "global_average": global_average}
    module = on_meta((1, 28, 28), "multiclass", 10, **keys)
    assert sum(p.numel() for p in module.head.parameters()) == num_features * 5 + 5 + 5 * 10 + 10


@pytest.mark.parametrize("normalisation", ["none", "batch", "group"])
def test_one_batch_can_be_overfitted(normalisation):
    torch.manual_seed(0)
    keys = {"channels": (8, 12), "convs_per_block": 1, "head_dims": (16,), "global_average": False}
    module = CNN((1, 8, 8), "multiclass", 3, normalisation=normalisation, **keys)
    batch = {"inputs": torch.randn(12, 1, 8, 8), "target": torch.randint(0, 3, (12,))}
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        loss = module.training_step(batch, 0)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_a_permuted_batch_gives_permuted_outputs():
    torch.manual_seed(0)
    module = CNN((3, 9, 7), "multiclass", 4, channels=(4, 6), dropout=0.5).eval()
    inputs, order = torch.randn(10, 3, 9, 7), torch.randperm(10)
    torch.testing.assert_close(module(inputs[order]), module(inputs)[order])


def test_pooling_before_normalisation_changes_nothing_for_max_and_rising_scales():
    torch.manual_seed(0)
    module, inputs = CNN((1, 8, 8), "multiclass", 4, channels=(6,), convs_per_block=1).eval(), torch.randn(5, 1, 8, 8)
    conv, pool, norm, activation = module.blocks[0]
    torch.testing.assert_close(module.blocks(inputs), pool(activation(norm(conv(inputs)))))


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"kernel_size": 5, "padding": "valid", "channels": (2, 2)},
         "model.kernel_size: 5 is larger than the picture of 2x2 that reaches block 2; .*"),
        ({"channels": ()}, "model.channels: expected at least one block"),
        ({"channels": (4, 0)}, r"model.channels: expected widths of at least 1, got \[4, 0\]"),
        ({"pool_every": 0}, "model.pool_every: expected at least 1, got 0"),
        ({"label_smoothing": 1.0}, "model.label_smoothing: expected a fraction from 0 to below 1, got 1.0"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused(keys, line):
    with pytest.raises(ValueError, match=f"^{line}$"):
        CNN((1, 8, 8), "binary", 1, **{"convs_per_block": 1} | keys)


def test_a_table_is_refused():
    with pytest.raises(
        ValueError, match=r"^cnn needs pictures \(channels, rows, columns\); the data's shape is \(8,\)$"
    ):
        CNN((8,), "binary", 1)


def test_evaluation_counts_each_example_once():
    torch.manual_seed(0)
    module = CNN((1, 8, 8), "multiclass", 3, channels=(4,))
    examples = {"inputs": torch.randn(11, 1, 8, 8), "target": torch.randint(0, 3, (11,))}
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
                        enable_model_summary=False)  # fmt: skip
    logged = trainer.test(module, Batches(InMemory(examples), 4), verbose=False)[0]
    with torch.no_grad():
        logits = module.eval()(examples["inputs"])
    assert logged["test/accuracy"] == pytest.approx((logits.argmax(1) == examples["target"]).float().mean().item())
    assert logged["test/loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, examples["target"]).item())
