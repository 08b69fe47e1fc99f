"""Text as tokens, and back: words, byte pairs or characters, learned from training texts alone.

Shapes: N texts, S tokens of all of them.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import torch

from workloads._extras import need
from workloads.data._arrow import cached
from workloads.data._ragged import PAD, Sequences

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

Kind = Literal["word", "bpe", "character"]

UNKNOWN, START, END = 1, 2, 3
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
"""Tokens that no text has, by their numbers; the first is ``PAD``."""

WORDS = r" ?[\p{L}\p{M}]{1,255}|\p{N}| ?[^\s\p{L}\p{M}\p{N}]{1,255}|\s{1,256}"
"""Within what pairs of bytes are put together: a word, with the marks that many scripts write on letters, and the space
before it; a digit; marks of punctuation; space. Of bounded length, since learning takes time quadratic in the longest:
an hour, were a line of a megabyte one word."""


class Tokenizer:
    """What turns text into tokens.

    ``word``: words and marks of punctuation, the most frequent ones; what is left is ``UNKNOWN``. ``bpe``: byte pairs
    (Sennrich et al. 2016, arXiv:1508.07909) of UTF-8 (Radford et al. 2019), so that no text is unknown and every text
    comes back as it was; a digit is always a token of its own, so that numbers are spelt, not memorised. ``character``:
    Unicode code points, the most frequent ones.

    Args:
        backend: A tokenizer of the package ``tokenizers`` that :meth:`fit` has made.
    """

    def __init__(self, backend: "Backend") -> None:
        # Said explicitly, or the package warns whenever a process that has used it forks.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        self.backend = backend
        self._characters = _character_ids(backend)

    @classmethod
    def fit(cls, kind: Kind, texts: Iterable[str], size: int, lowercase: bool = False) -> Self:
        """Learn a vocabulary.

        Args:
            kind: What a token is.
            texts: Training texts.
            size: Most tokens of the vocabulary, the four special ones among them; of bpe at least 260.
            lowercase: Whether case is dropped.

        Raises:
            ValueError: ``size`` is too small, or the package ``tokenizers`` is not installed.
        """
        tokenizers = need("tokenizers", extra="text")
        models, trainers, pre = tokenizers.models, tokenizers.trainers, tokenizers.pre_tokenizers
        least = len(SPECIAL) + (256 if kind == "bpe" else 1)
        if size < least:
            raise ValueError(f"data.vocabulary_size: expected at least {least} for {kind}, got {size}")
        if kind == "bpe":
            backend = tokenizers.Tokenizer(models.BPE())
            words = pre.Split(tokenizers.Regex(WORDS), "isolated")
            backend.pre_tokenizer = pre.Sequence([words, pre.ByteLevel(False, use_regex=False)])
            backend.decoder = tokenizers.decoders.ByteLevel()
            trainer = trainers.BpeTrainer(
                vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=pre.ByteLevel.alphabet(),
                show_progress=False,
            )  # fmt: skip
        elif kind == "word":
            backend = tokenizers.Tokenizer(models.WordLevel(unk_token=SPECIAL[UNKNOWN]))
            backend.pre_tokenizer = pre.Whitespace()
            trainer = trainers.WordLevelTrainer(vocab_size=size, special_tokens=list(SPECIAL), show_progress=False)
        else:
            return cls(_of_characters(_frequent_characters(texts, size - len(SPECIAL), lowercase), lowercase))
        if lowercase:
            backend.normalizer = tokenizers.normalizers.Lowercase()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        backend.train_from_iterator(texts, trainer)
        return cls(backend)

    @property
    def size(self) -> int:
        """Tokens of the vocabulary, the special ones among them."""
        return self.backend.get_vocab_size()

    def encode(self, texts: Sequence[str]) -> Sequences:
        """Texts as sequences of tokens."""
        if self._characters is not None:
            lower = self.backend.normalizer is not None
            arrays = [self._characters[_code_points(text.lower() if lower else text)] for text in texts]
        else:
            arrays = [
                np.asarray(e.ids, np.int32) for e in self.backend.encode_batch_fast(texts, add_special_tokens=False)
            ]
        flat = np.concatenate([np.empty(0, np.int32), *arrays])
        return Sequences.of(torch.from_numpy(flat), torch.tensor([len(a) for a in arrays], dtype=torch.int64))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens; special ones are left out."""
        return self.backend.decode(list(ids))

    def words(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The tokens of one text, and for each its first character in ``text`` and the one after its last."""
        encoding = self.backend.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def state(self) -> str:
        """JSON, from which :meth:`restore` makes an equal tokenizer."""
        return self.backend.to_str()

    @classmethod
    def restore(cls, state: str) -> Self:
        """The tokenizer whose :meth:`state` this is."""
        return cls(need("tokenizers", extra="text").Tokenizer.from_str(state))


def encoded(
    texts: Mapping[str, Sequence[str]],
    fit_on: Sequence[str],
    *,
    kind: Kind,
    size: int,
    lowercase: bool,
    cache_dir: Path,
) -> tuple[Tokenizer, dict[str, Sequences]]:
    """Fit a tokenizer and encode texts with it, or find both where an earlier run with the same texts has left them.

    Args:
        texts: Name, e.g. of a split, to texts.
        fit_on: Names of those to learn from.
        kind: What a token is.
        size: Most tokens of the vocabulary.
        lowercase: Whether case is dropped.
        cache_dir: Folder of what can be made again.

    Returns:
        The tokenizer, and the sequences of each name.

    Raises:
        ValueError: ``size`` is too small, or the folder cannot be written.
    """
    version = need("tokenizers", extra="text").__version__
    options = [
        version,
        SPECIAL,
        WORDS,
        kind,
        size,
        lowercase,
        list(fit_on),
        {name: len(some) for name, some in texts.items()},
    ]
    digest = hashlib.sha256(json.dumps(options).encode())
    for some in texts.values():
        for text in some:
            digest.update(text.encode("utf-8", "surrogatepass") + b"\xff")  # a byte that UTF-8 never has

    def make() -> Iterable[dict[str, np.ndarray]]:
        tokenizer = Tokenizer.fit(kind, (text for name in fit_on for text in texts[name]), size, lowercase)
        parts = [tokenizer.encode(some) for some in texts.values()]
        notes.extend([tokenizer.state(), json.dumps([part.lengths.tolist() for part in parts])])
        yield {"token": Sequences.join(parts).flat.numpy()}

    notes: list[str] = []
    path = cache_dir / "tokens" / f"{digest.hexdigest()[:32]}.arrow"
    flat = torch.from_numpy(cached(path, make(), notes, "name another folder").column("token"))
    lengths = [torch.tensor(some, dtype=torch.int64) for some in json.loads(notes[1])]
    parts = flat.split([int(some.sum()) for some in lengths])
    named = zip(texts, parts, lengths, strict=True)
    return Tokenizer.restore(notes[0]), {name: Sequences.of(part, some) for name, part, some in named}


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _frequent_characters(texts: Iterable[str], most: int, lowercase: bool) -> list[str]:
    """The most frequent characters, and of equals the lower code point."""
    count = np.zeros(0x110000, dtype=np.int64)
    for text in texts:
        points, times = np.unique(_code_points(text.lower() if lowercase else text), return_counts=True)
        count[points] += times
    found = np.flatnonzero(count)
    return [chr(point) for point in found[np.argsort(-count[found], kind="stable")][:most]]


def _of_characters(characters: Sequence[str], lowercase: bool) -> "Backend":
    tokenizers = need("tokenizers", extra="text")
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *characters])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=SPECIAL[UNKNOWN]))
    backend.add_special_tokens(list(SPECIAL))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    backend.decoder = tokenizers.decoders.Fuse()
    if lowercase:
        backend.normalizer = tokenizers.normalizers.Lowercase()
    return backend


def _character_ids(backend: "Backend") -> np.ndarray | None:
    """Code point to token, int32, of a tokenizer of characters; else None.

    Looking them up in an array is a hundred times as fast as the package, which is made for words.
    """
    if type(backend.pre_tokenizer).__name__ != "Split":
        return None
    ids = np.full(0x110000, UNKNOWN, dtype=np.int32)
    for token, i in backend.get_vocab().items():
        if token not in SPECIAL:
            ids[ord(token)] = i
    return ids


assert SPECIAL.index("<pad>") == PAD
