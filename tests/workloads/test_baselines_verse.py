"""Counting characters: by hand, as probabilities that sum to 1, and on real plays."""

import math

import numpy as np
import pytest

from workloads._baselines_verse import Alphabet, KneserNey, verse
from workloads.data.plain_text import PlainText


def test_two_characters_by_hand():
    """The pairs are ^a, aa twice and ab: discount 2 / (2 + 2 * 1) = 1/2. Two characters precede a, one b: 1/3."""
    model = KneserNey.fit(["aaab"], 2)
    shortest = {
        "a": (2 - 1 / 3) / 3 + (1 / 3 * 2 / 3) / 3,
        "b": (1 - 1 / 3) / 3 + (1 / 3 * 2 / 3) / 3,
        "?": (1 / 3 * 2 / 3) / 3,
    }
    assert sum(shortest.values()) == pytest.approx(1)
    first = {"a": 0.5 + 0.5 * shortest["a"], "b": 0.5 * shortest["b"], "?": 0.5 * shortest["?"]}
    after_a = {"a": 1.5 / 3 + shortest["a"] / 3, "b": 0.5 / 3 + shortest["b"] / 3, "?": shortest["?"] / 3}
    for character in "ab?":
        assert model.log_probability(character)[0] == pytest.approx(math.log(first[character]))
        assert model.log_probability("a" + character)[1] == pytest.approx(math.log(after_a[character]))
        assert model.log_probability("b" + character)[1] == pytest.approx(math.log(shortest[character]))


@pytest.mark.parametrize("texts", [["to be or not to be"], ["a"], ["abab" * 30, "abcabc"], ["Ωmega " * 3 + "x" * 50]])
@pytest.mark.parametrize("order", [1, 3, 5])
def test_probabilities_sum_to_one(texts, order):
    model = KneserNey.fit(texts, order)
    symbols = [*sorted(set("".join(texts))), "\0"]
    for context in ("", "t", "to b", "never seen", texts[0][:7], texts[0][-5:]):
        chances = np.exp([model.log_probability(context + symbol)[-1] for symbol in symbols])
        assert chances.min() > 0 and chances.sum() == pytest.approx(1, abs=1e-12)


def test_rare_characters_of_a_large_alphabet_are_one():
    texts = ["".join(map(chr, range(0x4E00, 0x4E00 + 7_000))) + "一一"]
    alphabet = Alphabet.of(texts)
    assert alphabet.unknown == 6_000 and alphabet.encode("一Ω").tolist() == [0, 6_000]
    assert np.isfinite(KneserNey.fit(texts, 5).log_probability("一丁七Ω")).all()


def test_on_plays_longer_memory_is_better():
    data = PlainText(num_characters=400_000, tokenizer="character")
    data.setup()
    scores = verse(data)
    assert scores["uniform"] == pytest.approx(math.log(len(set("".join(data.texts["train"].values()))) + 1))
    assert scores["uniform"] > scores["unigram"] + 0.9 > scores["5-gram, Kneser-Ney"] + 2
