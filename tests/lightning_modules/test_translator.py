import pytest
import torch
import torch.nn.functional as F

from lightning_modules.shared.decoding import END, PAD
from lightning_modules.translator import LOSS_TOKENS, Translator
from workloads._machine import bf16_of

SMALL = {"embedding_dim": 12, "hidden_dim": 16, "dropout": 0.0, "lr": 1e-2}
TOKENS, LANGUAGES = 20, 2


def batch_of(num_examples=6, seed=0):
    """Sentences of 2 to 7 tokens, their length first, as a batch."""
    random = torch.Generator().manual_seed(seed)
    length = torch.randint(2, 8, (num_examples,), generator=random)
    tokens = torch.randint(4, TOKENS, (num_examples, 7), generator=random)
    source = tokens.masked_fill(torch.arange(7) >= length[:, None], PAD)
    language = torch.arange(num_examples) % LANGUAGES
    target = F.pad((TOKENS + 3 - source).masked_fill(source == PAD, PAD), (0, 1))
    target[torch.arange(num_examples), length] = END
    return {"source": source, "source_length": length, "target": target, "target_length": length + 1,
            "language": language, "example": torch.arange(num_examples)}  # fmt: skip


def padded(batch, more=4):
    return batch | {name: F.pad(batch[name], (0, more)) for name in ("source", "target")}


def write(module, batch, **keys):
    return module.write(batch, module.encode(batch), **keys)


def translator(**keys):
    torch.manual_seed(0)
    return Translator(TOKENS, LANGUAGES, **SMALL | keys)


def train(module, batch, steps):
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = module.training_step(batch, 0)
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("attention", ["luong", "bahdanau"])
def test_one_batch_can_be_overfitted(cell, attention):
    module, batch = translator(cell=cell, attention=attention, num_layers=2), batch_of()
    assert train(module, batch, 200) < 0.02
    for width in (1, 3):
        written = write(module.eval(), batch, beam_width=width)
        assert torch.equal(written.tokens_BT, batch["target"]) and written.complete_B.all()


def test_the_target_language_decides_what_is_written():
    module, batch = translator(), batch_of()
    batch = {name: value.repeat_interleave(2, dim=0) for name, value in batch.items()}
    batch["language"] = torch.arange(12) % 2
    batch["target"][1::2] = torch.where(batch["target"][1::2] > END, 7, batch["target"][1::2])
    train(module, batch, 200)
    written = write(module.eval(), batch).tokens_BT
    assert torch.equal(written, batch["target"])
    assert not torch.equal(written[0::2], written[1::2])


@pytest.mark.parametrize("keys", [{}, {"cell": "gru", "num_layers": 2}, {"attention": "bahdanau"}])
def test_padding_changes_nothing(keys):
    module, batch = translator(**keys).eval(), batch_of()
    torch.testing.assert_close(module.training_step(padded(batch), 0), module.training_step(batch, 0))
    for width in (1, 3):
        short, long = (module.predict_step(some, 0, beam_width=width) for some in (batch, padded(batch)))
        assert torch.equal(short["tokens"], long["tokens"])
        torch.testing.assert_close(short["score"], long["score"])
        torch.testing.assert_close(long["attention"][..., :7], short["attention"])
        assert (long["attention"][..., 7:] == 0).all()


def test_a_permuted_batch_gives_permuted_outputs():
    module, batch, order = translator().eval(), batch_of(), torch.randperm(6)
    ours = module.predict_step({name: value[order] for name, value in batch.items()}, 0, beam_width=2)
    theirs = module.predict_step(batch, 0, beam_width=2)
    assert all(torch.allclose(ours[name], theirs[name][order], atol=1e-6) for name in ours)


def test_the_loss_by_hand():
    module, batch = translator(label_smoothing=0.1, teacher_forcing=1.0), batch_of(2)
    memory, state = module.encode(batch)
    start = torch.tensor([[TOKENS], [TOKENS + 1]])
    given = torch.cat([start, batch["target"][:, :-1]], dim=1)
    total, count = 0.0, 0
    for t in range(given.shape[1]):  # a step at a time, as in translating
        combined, _, state = module.decode(given[:, t : t + 1], state, memory)
        log_probs = module.logits(combined[:, 0]).log_softmax(dim=-1)
        for b in range(2):
            token = batch["target"][b, t]
            if token != PAD:
                total -= 0.9 * log_probs[b, token].item() + 0.1 * log_probs[b].mean().item()
                count += 1
    assert module.training_step(batch, 0).item() == pytest.approx(total / count, rel=1e-5)


def test_targets_of_many_tokens_have_the_loss_and_gradients_of_one_sum():
    module, batch = translator(), batch_of(2000)
    assert (batch["target"] != PAD).sum() > LOSS_TOKENS
    loss = module.training_step(batch, 0)
    loss.backward()
    gradients = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    memory, state = module.encode(batch)
    given = torch.cat([TOKENS + batch["language"][:, None], batch["target"][:, :-1]], dim=1)
    logits = module.logits(module.decode(given, state, memory)[0])
    whole = F.cross_entropy(logits.transpose(1, 2), batch["target"], ignore_index=PAD)
    whole.backward()
    torch.testing.assert_close(loss, whole)
    for parameter, gradient in zip(module.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-7)


def test_without_forcing_the_decoder_reads_its_own_guesses():
    module, batch = translator(teacher_forcing=0.0, forcing_schedule="constant").eval(), batch_of()
    memory, state = module.encode(batch)
    given = torch.cat([TOKENS + batch["language"][:, None], batch["target"][:, :-1]], dim=1)
    guesses = module.logits(module.decode(given, state, memory)[0]).argmax(dim=-1)
    own = torch.cat([given[:, :1], guesses[:, :-1].masked_fill(given[:, 1:] == PAD, PAD)], dim=1)
    logits = module.logits(module.decode(own, state, memory)[0])
    expected = F.cross_entropy(logits.transpose(1, 2), batch["target"], ignore_index=PAD)
    torch.testing.assert_close(module.training_step(batch, 0), expected)


def test_the_share_of_own_guesses_follows_from_the_random_state():
    module, batch = translator(teacher_forcing=0.5, forcing_schedule="constant"), batch_of()
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(module.training_step(batch, 0).item())
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.skipif(bf16_of(torch.cpu.get_capabilities()) == "none", reason="this processor has no LSTM in bfloat16")
def test_guesses_under_mixed_precision_cost_no_parameter_its_gradient():
    # PyTorch keeps weights that autocast has converted, and those of the first pass have no history.
    module, batch = translator(teacher_forcing=0.5, forcing_schedule="constant", attention="bahdanau"), batch_of()
    norms = []
    for mixed in (False, True):
        module.zero_grad()
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            module.training_step(batch, 0).backward()
        norms.append(torch.stack([p.grad.norm() for p in module.parameters()]))
    torch.testing.assert_close(norms[1], norms[0], rtol=0.1, atol=1e-4)


def test_translations_are_bounded_by_the_source():
    module, batch = translator(max_length_ratio=1.5).eval(), batch_of()
    with torch.no_grad():
        module.bias[END] = -1e9
    written = write(module, batch)
    assert not written.complete_B.any()
    longest = (batch["source_length"] * 1.5).ceil().long() + 10
    assert torch.equal((written.tokens_BT != PAD).sum(dim=1), longest)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"hidden_dim": 15}, "model.hidden_dim: expected an even number, got 15"),
        ({"embedding_dim": 0}, "model.embedding_dim: expected at least 1, got 0"),
        ({"num_layers": 0}, "model.num_layers: expected at least 1, got 0"),
        ({"beam_width": 0}, "model.beam_width: expected at least 1, got 0"),
        ({"length_penalty": -1.0}, "model.length_penalty: expected at least 0, got -1.0"),
        ({"teacher_forcing": 1.5}, "model.teacher_forcing: expected a probability, got 1.5"),
        ({"max_length_ratio": 0.0}, "model.max_length_ratio: expected more than 0, got 0.0"),
        ({"dropout": 1.0}, "model.dropout: expected a fraction from 0 to below 1, got 1.0"),
    ],
)
def test_what_cannot_be_built_is_refused(keys, line):
    with pytest.raises(ValueError, match=f"^{line}$"):
        Translator(TOKENS, **keys)


def test_a_beam_of_no_width_is_refused():
    with pytest.raises(ValueError, match=r"^beam_width: expected at least 1, got 0$"):
        translator().predict_step(batch_of(), 0, beam_width=0)
