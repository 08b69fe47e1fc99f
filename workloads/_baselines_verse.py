"""What counting characters reaches on plain text: the figures that stand beside a language model's.

All work on characters and are in nats per character of the test texts. A character that training never saw is one
further symbol, the same for all. They need seconds.

Shapes: N characters of a text, G different n-grams, C different contexts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from workloads.data.plain_text import PlainText

ORDER = 5
"""Characters of the longest n-gram, the predicted one among them."""

MOST = 6_000
"""Characters that are told apart, the most frequent ones: five of them still fit one 64-bit code."""


def verse(data: PlainText) -> dict[str, float]:
    """Every training character alike, characters by their frequency, and 5-grams with Kneser-Ney smoothing."""
    train, test = (list(data.texts[split].values()) for split in ("train", "test"))
    alphabet = Alphabet.of(train)
    count = np.bincount(np.concatenate([alphabet.encode(text) for text in train]), minlength=alphabet.unknown + 1) + 1
    symbols = np.concatenate([alphabet.encode(text) for text in test])
    model = KneserNey.fit(train, ORDER)
    grams = np.concatenate([model.log_probability(text) for text in test])
    return {
        "uniform": float(np.log(alphabet.unknown + 1)),
        "unigram": float(-np.log(count / count.sum())[symbols].mean()),
        "5-gram, Kneser-Ney": float(-grams.mean()),
    }


@dataclass(frozen=True)
class Alphabet:
    """The characters of training texts, numbered from 0; then ``unknown``, and ``before``, which stands before a text.

    Args:
        point: Their code points, ascending.
    """

    point: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        points, count = np.unique(np.concatenate([_code_points(text) for text in texts]), return_counts=True)
        return cls(np.sort(points[np.argsort(-count, kind="stable")[:MOST]]))

    @property
    def unknown(self) -> int:
        return len(self.point)

    @property
    def before(self) -> int:
        return len(self.point) + 1

    def encode(self, text: str) -> np.ndarray:
        """The numbers of a text's characters, int64, shape (N,)."""
        points = _code_points(text)
        place = np.searchsorted(self.point, points).clip(max=len(self.point) - 1)
        return np.where(self.point[place] == points, place, self.unknown)


@dataclass(frozen=True)
class _Counts:
    """The n-grams of one length. An n-gram's context is all of it but the last character.

    ``gram`` (G,), ascending codes, with their ``count``; ``context`` (C,), ascending, with the sum of its n-grams'
    counts, ``total``, and how many they are, ``num_next``; ``discount``, what is taken off each count.
    """

    gram: np.ndarray
    count: np.ndarray
    context: np.ndarray
    total: np.ndarray
    num_next: np.ndarray
    discount: float

    @classmethod
    def of(cls, gram: np.ndarray, count: np.ndarray, num_symbols: int) -> Self:
        context, begin, num_next = np.unique(gram // num_symbols, return_index=True, return_counts=True)
        once, twice = (count == 1).sum(), (count == 2).sum()
        # The estimate of Ney, Essen and Kneser 1994; where no n-gram was seen once, it would leave nothing to new ones.
        discount = float(once / (once + 2 * twice)) if once else 0.5
        return cls(gram, count, context, np.add.reduceat(count, begin), num_next, discount)


class KneserNey:
    """Interpolated n-grams with the smoothing of R. Kneser and H. Ney, "Improved backing-off", 1995.

    The longest n-grams are counted; of a shorter one it is counted how many different characters precede it. The
    shortest rest on equal probabilities.

    Args:
        alphabet: The characters.
        counts: The n-grams, the shortest first.
    """

    def __init__(self, alphabet: Alphabet, counts: Sequence[_Counts]) -> None:
        self.alphabet, self.counts = alphabet, counts
        self.num_symbols = alphabet.before + 1

    @classmethod
    def fit(cls, texts: Sequence[str], order: int) -> Self:
        """Count the n-grams of training texts.

        Args:
            texts: The texts; none looks back into the one before.
            order: Length of the longest.
        """
        model = cls(Alphabet.of(texts), [])
        grams = np.concatenate([model._grams(text, order) for text in texts])
        gram, count = np.unique(grams, return_counts=True)
        counts = [_Counts.of(gram, count, model.num_symbols)]
        for length in range(order - 1, 0, -1):
            gram, count = np.unique(gram % model.num_symbols**length, return_counts=True)
            counts.insert(0, _Counts.of(gram, count, model.num_symbols))
        return cls(model.alphabet, counts)

    def log_probability(self, text: str) -> np.ndarray:
        """Logarithm of each character's probability, given those before it in the text, in nats, shape (N,)."""
        grams = self._grams(text, len(self.counts))
        probability = np.full(len(grams), 1 / (self.alphabet.unknown + 1))
        for length, counts in enumerate(self.counts, start=1):
            code = grams % self.num_symbols**length
            count = _found(counts.gram, counts.count, code)
            total = _found(counts.context, counts.total, code // self.num_symbols)
            left = counts.discount * _found(counts.context, counts.num_next, code // self.num_symbols)
            mixed = (np.maximum(count - counts.discount, 0) + left * probability) / np.maximum(total, 1)
            probability = np.where(total > 0, mixed, probability)
        return np.log(probability)

    def _grams(self, text: str, order: int) -> np.ndarray:
        """Code of the n-gram that ends in each character, int64, shape (N,)."""
        padded = np.concatenate([np.full(order - 1, self.alphabet.before), self.alphabet.encode(text)])
        codes = np.zeros(len(text), dtype=np.int64)
        for k in range(order):
            codes = codes * self.num_symbols + padded[k : k + len(text)]
        return codes


def _found(key: np.ndarray, value: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each wanted key; 0 where there is none."""
    place = np.searchsorted(key, wanted).clip(max=len(key) - 1)
    return np.where(key[place] == wanted, value[place], 0)


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
