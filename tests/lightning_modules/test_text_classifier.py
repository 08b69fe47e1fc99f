"""The recurrent classifier: padding and order change nothing, references agree, and explanations add up."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lightning_modules.shared.attribution import class_logits, log_odds
from lightning_modules.text_classifier import TextClassifier

POOLINGS = ("last", "mean", "max", "mean+max", "attention")
LENGTHS = torch.tensor([5, 2, 1, 7])


def classifier(**keys):
    torch.manual_seed(0)
    sizes = {"embedding_dim": 6, "hidden_dim": 5, **keys}
    return TextClassifier(20, sizes.pop("output", "multiclass"), sizes.pop("num_outputs", 3), **sizes).eval()


def texts(lengths=LENGTHS):
    tokens = torch.randint(1, 20, (len(lengths), int(lengths.max())), generator=torch.Generator().manual_seed(1))
    return tokens.masked_fill(torch.arange(tokens.shape[1]) >= lengths[:, None], 0)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(
    "keys",
    [
        {"cell": "lstm", "num_layers": 2, "pool_words": True},
        {"cell": "gru", "bidirectional": False},
        {"cell": "rnn", "activation": "sigmoid"},
        {"cell": "rnn", "activation": "relu", "bidirectional": False, "num_layers": 2},
    ],
)
def test_padding_and_the_order_of_a_batch_change_nothing(pooling, keys):
    model, tokens = classifier(pooling=pooling, **keys), texts()
    whole = model(tokens, LENGTHS)
    assert whole.shape == (4, 3)
    padded = torch.cat([tokens, torch.zeros(4, 9, dtype=torch.int64)], dim=1)
    assert torch.allclose(model(padded, LENGTHS), whole, atol=1e-6)
    for b, length in enumerate(LENGTHS):
        alone = model(tokens[b : b + 1, :length], LENGTHS[b : b + 1])
        assert torch.allclose(alone[0], whole[b], atol=1e-6)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(model(tokens[order], LENGTHS[order]), whole[order], atol=1e-6)


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "mean+max"])
def test_it_is_what_packed_sequences_give(pooling):
    model, tokens = classifier(pooling=pooling), texts()
    reference = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
    forward, backward = model.recurrent.layers[0]
    weights = {f"{name}{end}": value for layer, end in ((forward, ""), (backward, "_reverse"))
               for name, value in layer.state_dict().items()}  # fmt: skip
    reference.load_state_dict(weights)
    packed = pack_padded_sequence(model.embedding(tokens), LENGTHS, batch_first=True, enforce_sorted=False)
    outputs, (hidden, _) = reference(packed)
    outputs, _ = pad_packed_sequence(outputs, batch_first=True)
    mean = outputs.sum(dim=1) / LENGTHS[:, None]
    largest = torch.stack([outputs[b, :n].amax(dim=0) for b, n in enumerate(LENGTHS)])
    features = {"last": torch.cat([*hidden], dim=1), "mean": mean, "max": largest,
                "mean+max": torch.cat([mean, largest], dim=1)}  # fmt: skip
    assert torch.allclose(model(tokens, LENGTHS), model.head(features[pooling]), atol=1e-6)


def test_attention_is_an_average_by_hand():
    model, tokens = classifier(pooling="attention"), texts()
    outputs, _ = model.recurrent(model.embedding(tokens), LENGTHS)
    for b, length in enumerate(LENGTHS):
        weight = model.attention.weigh(outputs[b, :length]).softmax(dim=0)
        assert float(weight.detach().sum()) == pytest.approx(1)
        pooled = (weight * outputs[b, :length]).sum(dim=0)
        assert torch.allclose(model(tokens, LENGTHS)[b], model.head(pooled), atol=1e-6)


def test_dropout_leaves_out_whole_words_and_whole_numbers_of_all_words():
    model = classifier(embedding_dim=200, word_dropout=0.4, embedding_dropout=0.25).train()
    tokens = torch.ones(50, 40, dtype=torch.int64)
    words = model.embed(tokens)
    left_out = (words == 0).all(dim=2)
    assert left_out.float().mean() == pytest.approx(0.4, abs=0.05)
    vector = model.embedding.weight[1]
    for b in range(50):
        kept = words[b][~left_out[b]]
        assert (kept == kept[0]).all()  # the same numbers at all words of a text
        missing = kept[0] == 0
        assert torch.allclose(kept[0][~missing], vector[~missing] / 0.75)
    assert (words[~left_out] == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(model.eval().embed(tokens), model.embedding(tokens))


def test_words_pooled_beside_the_outputs_by_hand():
    model, tokens = classifier(pooling="mean+max", pool_words=True, bidirectional=False), texts()
    words = model.embedding(tokens)
    outputs, _ = model.recurrent(words, LENGTHS)
    both = torch.cat([outputs, words], dim=2)
    for b, length in enumerate(LENGTHS):
        pooled = torch.cat([both[b, :length].mean(dim=0), both[b, :length].amax(dim=0)])
        assert torch.allclose(model(tokens, LENGTHS)[b], model.head(pooled), atol=1e-6)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_it_learns_what_the_order_of_words_says(cell):
    """Which of 5 and 6 comes last; what stands between says nothing, and neither does which words there are."""
    model = classifier(cell=cell, output="binary", num_outputs=1, embedding_dropout=0.0, dropout=0.0, word_dropout=0.0,
                       hidden_dim=16, pooling="mean+max", bidirectional=False).train()  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(7, 20, (200, 8), generator=generator)
    target = torch.randint(0, 2, (200,), generator=generator)
    first = torch.randint(0, 4, (200,), generator=generator)
    rows = torch.arange(200)
    tokens[rows, first], tokens[rows, first + 4] = 5 + target, 6 - target
    length = torch.full((200,), 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(60):
        loss = model.training_step({"text": tokens[:120], "text_length": length[:120], "target": target[:120]}, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = (model.eval()(tokens[120:], length[120:])[:, 0] > 0) == target[120:].bool()
    assert right.float().mean() >= 0.95


@pytest.mark.parametrize(
    ("output", "num_outputs", "keys"),
    [
        ("binary", 1, {"pooling": "mean+max", "pool_words": True}),
        ("multiclass", 3, {"pooling": "attention", "cell": "gru"}),
        ("regression", 1, {"num_layers": 2}),
    ],
)
def test_influences_add_up_to_the_score_s_rise_over_a_text_of_no_words(output, num_outputs, keys):
    model, tokens = classifier(output=output, num_outputs=num_outputs, embedding_dim=16, **keys), texts()
    with torch.no_grad():
        model.embedding.weight.mul_(20)  # large enough to bend
    batch = {"text": tokens, "text_length": LENGTHS, "number": torch.arange(4)}
    with torch.inference_mode():
        outputs = model.predict_step(batch, 0, explain=True)
    influence = outputs["influence"]
    assert influence.shape == tokens.shape and (influence[tokens == 0] == 0).all()
    with torch.no_grad():
        logits = class_logits(output, model(tokens, LENGTHS))
        chosen = logits.argmax(dim=1)
        nothing = class_logits(output, model(torch.zeros_like(tokens), LENGTHS))
        rise = log_odds(logits, chosen) - log_odds(nothing, chosen)
    assert torch.allclose(influence.sum(dim=1), rise, atol=0.02 * float(rise.abs().max()) + 1e-3)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_word_that_decides_has_the_largest_influence_and_the_gates_are_the_cell_s():
    model = classifier(output="binary", num_outputs=1, embedding_dropout=0.0, dropout=0.0, hidden_dim=16).train()
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(7, 20, (300, 12), generator=generator)
    target = torch.randint(0, 2, (300,), generator=generator)
    place = torch.randint(0, 12, (300,), generator=generator)
    tokens[torch.arange(300), place] = 5 + target
    length = torch.full((300,), 12)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model.training_step({"text": tokens[:200], "text_length": length[:200], "target": target[:200]}, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    batch = {"text": tokens[200:], "text_length": length[200:], "number": torch.arange(100)}
    with torch.inference_mode():
        outputs = model.eval().predict_step(batch, 0, explain=True)
    right = outputs["probability"].argmax(dim=1) == target[200:]
    found = outputs["influence"].argmax(dim=1) == place[200:]
    assert right.float().mean() >= 0.95 and found[right].float().mean() >= 0.95
    layer = model.recurrent.layers[0][0]
    with torch.no_grad():
        words = model.embedding(tokens[200:])
        first = words[:, 0] @ layer.weight_ih_l0.T + layer.bias_ih_l0 + layer.bias_hh_l0
        gates = first.sigmoid()[:, [range(0, 16), range(16, 32), range(48, 64)]].mean(dim=2)
    assert torch.allclose(outputs["gates"][:, 0], gates, atol=1e-6)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"word_dropout": 1.0}, r"model\.word_dropout: expected a fraction"),
        ({"embedding_dropout": -0.1}, r"model\.embedding_dropout: expected a fraction"),
        ({"dropout": 1.5}, r"model\.dropout: expected a fraction"),
        ({"embedding_dim": 0}, r"model\.embedding_dim: expected at least 1"),
        ({"hidden_dim": 0}, r"model\.hidden_dim: expected at least 1"),
        ({"num_layers": 0}, r"model\.num_layers: expected at least 1"),
        ({"lr": 0.0}, r"model\.lr: expected more than 0"),
    ],
)
def test_values_out_of_range_are_refused(keys, says):
    with pytest.raises(ValueError, match=says):
        classifier(**keys)
