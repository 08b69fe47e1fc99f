"""Lines of an oracle and of text: what stands in which split, what is left out, and how made lines are scored."""

import math

import pytest
import torch

from workloads.data.lines import Lines, joined_words, tokenized

WORDS = [f"word{a} word{b} and word{c}." for a in range(8) for b in range(8) for c in range(8)]


def text(folder, lines):
    (folder / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Lines(str(folder / "text.txt"), length=12, num_lines=0, cache_dir=str(folder / "cache"))


def test_the_oracle_writes_the_same_lines_again_and_knows_how_likely_they_are():
    data, again, other = (Lines(num_lines=200, length=7, vocabulary_size=30, split_seed=s) for s in (0, 0, 1))
    for one in (data, again, other):
        one.setup()
    tokens = data.splits["train"].columns["tokens"]
    assert tokens.shape == (200, 7) and tokens.min() >= 4 and tokens.max() < 30
    assert torch.equal(tokens, again.splits["train"].columns["tokens"])
    assert not torch.equal(tokens, other.splits["train"].columns["tokens"])
    # By hand: the oracle's own step, one token after the other.
    state = (torch.zeros(200, 32), torch.zeros(200, 32))
    last, total = torch.full((200,), 2), torch.zeros(200)
    for place in range(7):
        logits, state = data.oracle.step(data.oracle.embedding(last), state)
        last = tokens[:, place]
        total -= logits.log_softmax(dim=1)[torch.arange(200), last]
    scores = data.scores("test", {"tokens": tokens})
    assert scores["oracle_nll"] == pytest.approx(total.mean().item() / 7, rel=1e-5)
    at_random = data.scores("test", {"tokens": torch.randint(4, 30, (200, 7))})
    assert at_random["oracle_nll"] > scores["oracle_nll"] + 1


def test_what_an_oracle_s_line_costs_is_the_entropy_that_it_was_drawn_with():
    data = Lines(num_lines=4000, length=5, vocabulary_size=12, oracle_dim=4)
    data.setup()
    first = data.splits["train"].columns["tokens"][:, 0]
    logits, _ = data.oracle.step(data.oracle.embedding(torch.tensor([2])), (torch.zeros(1, 4), torch.zeros(1, 4)))
    expected = logits.softmax(dim=1)[0]
    assert torch.allclose(first.bincount(minlength=12) / 4000, expected, atol=0.03)


def test_lines_of_text_end_and_equal_ones_are_on_one_side(tmp_path):
    data = text(tmp_path, ["ACT ONE", "", *WORDS[-9:], *WORDS, "so " * 40])
    data.setup()
    seen = [set(data.texts[split]) for split in ("train", "validation", "test")]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert "ACT ONE" not in seen[0] and all(len(line) < 60 for part in seen for line in part)
    tokens = data.splits["train"].columns["tokens"]
    assert tokens.shape[1] == 12 and ((tokens == 3).sum(dim=1) == 1).all()
    assert set(data.lines(tokens)) == seen[0]


def test_real_lines_score_well_and_repeated_ones_badly(tmp_path):
    data = text(tmp_path, WORDS)
    data.setup()
    tokens = data.splits["test"].columns["tokens"]
    real = data.scores("test", {"tokens": tokens})
    assert real["bleu_4"] == pytest.approx(1.0) and real["distinct"] == 1.0 and real["copied"] == 0.0
    same = data.scores("test", {"tokens": tokens[:1].repeat(20, 1)})
    assert same["bleu_4"] == pytest.approx(1.0) and same["self_bleu_4"] == pytest.approx(1.0)
    assert same["criterion"] > real["criterion"] and math.isfinite(same["criterion"])
    assert data.concerns == ["only 5% of the lines are different: the generator has collapsed"]
    copied = data.scores("test", {"tokens": data.splits["train"].columns["tokens"][:20]})
    assert copied["copied"] == 1.0 and "memorises" in data.concerns[0]


def test_too_little_text_is_refused_in_one_line(tmp_path):
    (tmp_path / "one.txt").write_text("A single line of text.\n")
    with pytest.raises(ValueError, match=r"too few|takes at least 20") as told:
        Lines(str(tmp_path / "one.txt"), cache_dir=str(tmp_path)).setup()
    assert "\n" not in str(told.value)
    few = text(tmp_path, WORDS[:30])
    with pytest.raises(ValueError, match=r"different lines of fewer than 12 tokens .* it takes at least 20"):
        few.setup()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"length": 1}, "data.length: expected at least 2"),
        ({"num_lines": 100}, "data.num_lines: an oracle writes at least 200"),
        ({"vocabulary_size": 4}, "data.vocabulary_size: expected at least 5"),
    ],
)
def test_values_out_of_range_are_refused(options, fault):
    with pytest.raises(ValueError, match=fault):
        Lines(**options)


def test_words_come_back_as_people_write_them():
    assert joined_words("O , that this too too solid flesh would melt !", "word") == (
        "O, that this too too solid flesh would melt!"
    )
    assert joined_words("I ' ll go", "word") == "I'll go"
    assert tokenized("Who's there?") == ["Who's", "there", "?"]
