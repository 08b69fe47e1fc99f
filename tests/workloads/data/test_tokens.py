"""Tokens and ragged batches: by texts that come back, and by reference implementations."""

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from workloads.data import _tokens
from workloads.data._batches import Batches
from workloads.data._ragged import PAD, Ragged, Sequences
from workloads.data._tokens import END, START, UNKNOWN, Tokenizer

TEXTS = ["To be, or not to be: that is the question.", "Whether 'tis nobler in the mind", "to suffer 1604 slings\n"]
STRANGE = ["", "\0\n\t", "दिवाली की शुभकामनाएं", "🎭 x", "\ud800"[:0] + "Ω" * 5000]


def of(*lists: list[int]) -> Sequences:
    return Sequences.of(torch.tensor([t for one in lists for t in one]), torch.tensor([len(one) for one in lists]))


@pytest.mark.parametrize("text", [*TEXTS, *STRANGE])
def test_byte_pairs_bring_every_text_back(text):
    tokenizer = Tokenizer.fit("bpe", TEXTS, 300)
    assert tokenizer.decode(tokenizer.encode([text])[0].tolist()) == text


def test_digits_are_tokens_of_their_own():
    tokenizer = Tokenizer.fit("bpe", ["1604 1604 1604"] * 50, 300)
    ids, spans = tokenizer.words("1604")
    assert len(ids) == 4 and spans == [(0, 1), (1, 2), (2, 3), (3, 4)]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("line", ["ab" * 500_000, " " * 1_000_000])
def test_a_word_of_a_megabyte_is_learned_in_time(line):
    tokenizer = Tokenizer.fit("bpe", [line], 300)
    ids = tokenizer.encode([line])[0].tolist()
    assert len(ids) < 10_000 and tokenizer.decode(ids) == line


def test_words_are_the_most_frequent_and_the_rest_is_unknown():
    tokenizer = Tokenizer.fit("word", ["a a a b b c"], 6, lowercase=True)
    assert tokenizer.size == 6
    assert tokenizer.encode(["B a, c"])[0].tolist() == [5, 4, UNKNOWN, UNKNOWN]
    assert tokenizer.decode([START, 5, 4, END, PAD]) == "b a"


@pytest.mark.parametrize("lowercase", [False, True])
def test_characters_by_array_are_those_of_the_package(lowercase):
    tokenizer = Tokenizer.fit("character", TEXTS, 30, lowercase)
    for text in [*TEXTS, *STRANGE]:
        ids = tokenizer.encode([text])[0].tolist()
        assert ids == tokenizer.words(text)[0]
    known = "to be the"
    assert tokenizer.decode(tokenizer.encode([known])[0].tolist()) == known


@pytest.mark.parametrize("kind", ["word", "bpe", "character"])
def test_a_tokenizer_survives_its_state(kind):
    tokenizer = Tokenizer.fit(kind, TEXTS, 280)
    again = Tokenizer.restore(tokenizer.state())
    assert again.size == tokenizer.size
    assert torch.equal(again.encode(TEXTS + STRANGE).flat, tokenizer.encode(TEXTS + STRANGE).flat)


def test_a_vocabulary_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match=r"data\.vocabulary_size: expected at least 260 for bpe, got 100"):
        Tokenizer.fit("bpe", TEXTS, 100)


def test_encoded_texts_are_found_again_and_made_anew_when_a_text_changes(tmp_path, recwarn):
    def run(texts):
        options = {"kind": "word", "size": 50, "lowercase": True, "cache_dir": tmp_path}
        return _tokens.encoded({"train": texts, "test": TEXTS[:1]}, ["train"], **options)

    first, parts = run(TEXTS)
    files = list((tmp_path / "tokens").glob("*.arrow"))
    made = files[0].stat().st_mtime_ns
    again, found = run(TEXTS)
    assert files[0].stat().st_mtime_ns == made and again.state() == first.state()
    assert all(
        torch.equal(parts[k].flat, found[k].flat) and torch.equal(parts[k].offsets, found[k].offsets) for k in parts
    )
    assert parts["test"].flat.tolist() == first.encode(TEXTS[:1]).flat.tolist()
    run([*TEXTS[:2], "another"])
    run([TEXTS[0] + TEXTS[1], *TEXTS[2:], ""])  # the same letters, cut elsewhere
    assert len(list((tmp_path / "tokens").glob("*.arrow"))) == 3


def test_a_batch_is_padded_to_its_longest():
    sequences = of([5, 6, 7], [], [8], [9, 10])
    for index in ([0, 1, 2, 3], [3, 2], [1]):
        tokens, length = sequences.padded(torch.tensor(index))
        want = pad_sequence([sequences[i].long() for i in index], batch_first=True, padding_value=PAD)
        assert torch.equal(tokens[:, : want.shape[1]], want) and tokens.shape[1] == max(1, want.shape[1])
        assert length.tolist() == [len(sequences[i]) for i in index]


def test_taking_joining_and_framing_keep_each_sequence():
    random = np.random.default_rng(0)
    lists = [random.integers(4, 99, n).tolist() for n in (3, 0, 7, 1, 0, 5)]
    sequences = of(*lists)
    taken = sequences.take(torch.tensor([4, 2, 2, 0]))
    assert [taken[i].tolist() for i in range(4)] == [lists[4], lists[2], lists[2], lists[0]]
    both = Sequences.join([sequences, taken])
    assert [both[i].tolist() for i in range(len(both))] == [*lists, lists[4], lists[2], lists[2], lists[0]]
    framed = sequences.framed(START, END)
    assert [framed[i].tolist() for i in range(6)] == [[START, *some, END] for some in lists]
    assert [sequences.framed(end=END)[i].tolist() for i in range(6)] == [[*some, END] for some in lists]


def test_like_lengths_share_a_batch_and_every_example_is_seen_once():
    length = torch.randint(1, 200, (1000,), generator=torch.Generator().manual_seed(0))
    ragged = Ragged({"tokens": Sequences.of(torch.ones(int(length.sum())), length)}, {"id": torch.arange(1000)})
    batches = list(Batches(ragged, 20, shuffle=True))
    assert sorted(torch.cat([b["id"] for b in batches]).tolist()) == list(range(1000))
    shown = sum(b["tokens"].numel() for b in batches)
    assert shown < 1.1 * int(length.sum())
    two = [list(Batches(ragged, 20, shuffle=True, rank=rank, world_size=2)) for rank in range(2)]
    assert [sorted(a["id"].tolist() + b["id"].tolist()) for a, b in zip(*two, strict=True)] == [
        sorted(b["id"].tolist()) for b in batches
    ]


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="different lengths"):
        Ragged({"tokens": of([1], [2])}, {"target": torch.zeros(3)})
