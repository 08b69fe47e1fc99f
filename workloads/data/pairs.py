"""Pairs of sentences in two languages, one source language and one or several target languages.

Shapes: N pairs, B pairs of a batch, S source tokens, T target tokens.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch

from workloads.data import _babel
from workloads.data._attention import draw, pieces, weights_of
from workloads.data._base import DataModule, Inputs
from workloads.data._batches import Examples
from workloads.data._ragged import PAD, Ragged, Sequences
from workloads.data._rows import Rows, read_hub, read_path
from workloads.data._scores import METRICS, sentence_scores, signatures
from workloads.data._sources import OnError, Rejects, default_cache, resolve
from workloads.data._splits import SPLITS, cut, subset
from workloads.data._targets import listed
from workloads.data._tokens import END, Tokenizer, encoded

EMBEDDED = ("babel",)

ONE_LANGUAGE = "target"
"""What the target language is called where nobody names it."""


@dataclass(frozen=True)
class _Part:
    """Pairs: sentences, shape (N,), object; the number of the target language; and whether a number is held out."""

    source: np.ndarray
    target: np.ndarray
    language: np.ndarray
    unseen: np.ndarray

    def __len__(self) -> int:
        return len(self.source)

    def take(self, index: np.ndarray) -> Self:
        return type(self)(self.source[index], self.target[index], self.language[index], self.unseen[index])

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        names = ("source", "target", "language", "unseen")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class Pairs(DataModule):
    """Sentences and their translations. Embedded: babel, dates, amounts, relative times, countries and languages.

    Splits that the source lacks are cut by ``split_seed``, 70, 10 and 20 %; an English sentence, whatever its case and
    spaces, is on one side in all target languages. The embedded test split holds a second, harder part: sentences with
    years and amounts that training never sees. It has metrics of its own, ``unseen_...``, and the others leave it out;
    the loss is that of both.

    Nothing is cut short: a sentence above ``max_characters`` is a bad row. So is one without text, for which NA, null,
    None and ? stand too in a CSV file.

    Args:
        source: babel; a .csv, .tsv, .parquet, .jsonl or .json file; a folder with train, validation and test files; or
            hf://owner/name.
        languages: Target languages to use, in this order; empty takes all. Of babel any locale of the Unicode data;
            empty takes fr, de and hi. Where no column names the language, one name for all rows.
        source_column: Column of the sentences to translate. A column of records is written with a dot, as the hub's
            translation.en.
        target_column: Column of the translations.
        language_column: Column that names the target language of each row. By default language, where there is one.
        tokenizer: What a token is: bpe (byte pairs, a digit by itself) or character.
        vocabulary_size: Most tokens, of source and target together; learned from the training split.
        max_characters: Longest sentence, in characters.
        batch_size: Pairs of a batch, over all workers.
        num_examples: Pairs to use, in proportion to the languages; 0 uses all.
        split_seed: Decides the splits, apart from the run's seed.
        on_error: Whether a bad row stops the run or is skipped and counted; more than 5 % always stop it.
        revision: Commit, tag or branch of a hub source.
        cache_dir: Folder for tokenized text, which can be made again. By default the platform's cache.
    """

    def __init__(
        self,
        source: str = "babel",
        languages: tuple[str, ...] = (),
        source_column: str = "source",
        target_column: str = "target",
        language_column: str | None = None,
        tokenizer: Literal["bpe", "character"] = "bpe",
        vocabulary_size: int = 2000,
        max_characters: int = 4000,
        batch_size: int = 128,
        num_examples: int = 0,
        split_seed: int = 0,
        on_error: OnError = "stop",
        revision: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        self.source, self.wanted, self.batch_size = source, tuple(languages), batch_size
        self.columns, self.language_column = {"source": source_column, "target": target_column}, language_column
        self.kind, self.vocabulary_size, self.max_characters = tokenizer, vocabulary_size, max_characters
        self.num_examples, self.split_seed = num_examples, split_seed
        self.on_error, self.revision = on_error, revision
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else default_cache()
        self.fitted_languages: tuple[str, ...] = ()
        self.tokenizer: Tokenizer | None = None
        self.texts: dict[str, _Part] = {}

    @property
    def languages(self) -> tuple[str, ...]:
        """Target languages, by their numbers."""
        assert self.fitted_languages, "not set up"
        return self.fitted_languages

    @property
    def num_languages(self) -> int:
        """How many target languages there are."""
        return len(self.languages)

    @property
    def num_tokens(self) -> int:
        """Size of the vocabulary."""
        return self._fitted_tokenizer.size

    @property
    def _fitted_tokenizer(self) -> Tokenizer:
        assert self.tokenizer is not None, "not set up"
        return self.tokenizer

    def state_dict(self) -> dict[str, Any]:
        if self.tokenizer is None:
            return {}
        return {"languages": list(self.languages), "tokenizer": self.tokenizer.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self.fitted_languages = tuple(state_dict["languages"])
            self.tokenizer = Tokenizer.restore(state_dict["tokenizer"])

    def load(self, whole: bool = False) -> dict[str, Examples]:
        rejects = Rejects(self.on_error)
        parts, total = self._read(rejects, whole)
        rejects.finish(total)
        self.skipped = rejects.count
        if self.num_examples:
            share = self.num_examples / sum(map(len, parts.values()))
            parts = {name: self._some(part, share) for name, part in parts.items()}
        self.texts = parts if whole else self._cut(parts)
        texts = {f"{name}.{side}": getattr(part, side).tolist()
                 for name, part in self.texts.items() for side in ("source", "target")}  # fmt: skip
        if self.tokenizer is None:
            self.tokenizer, tokens = encoded(
                texts, ["train.source", "train.target"], kind=self.kind, size=self.vocabulary_size, lowercase=False,
                cache_dir=self.cache_dir,
            )  # fmt: skip
        else:
            tokens = {name: self.tokenizer.encode(some) for name, some in texts.items()}
        return {name: self._examples(name, tokens) for name in self.texts}

    def _examples(self, name: str, tokens: dict[str, Sequences]) -> Ragged:
        sequences = {"source": tokens[f"{name}.source"], "target": tokens[f"{name}.target"].framed(end=END)}
        language_N = torch.from_numpy(self.texts[name].language)
        return Ragged(sequences, {"language": language_N, "example": torch.arange(len(language_N))})

    def encode(self, inputs: Sequence[str], *, language: str | None = None) -> Inputs:
        """Encode sentences, or the lines of text files.

        Args:
            inputs: Sentences, or files of one sentence a line.
            language: Language to translate into. By default each that the run has learned.
        """
        if language is not None and language not in self.languages:
            raise ValueError(f"--language: this run translates into {', '.join(self.languages)}, not into {language!r}")
        sentences = [sentence for given in inputs for sentence in self._sentences(given)]
        chosen = torch.tensor([self.languages.index(language)] if language else range(self.num_languages))
        times_N = torch.arange(len(sentences)).repeat_interleave(len(chosen))
        source = self._fitted_tokenizer.encode(sentences).take(times_N)
        columns = {"language": chosen.repeat(len(sentences))}
        return Inputs([sentences[i] for i in times_N.tolist()], Ragged({"source": source}, columns))

    def _sentences(self, given: str) -> list[str]:
        """The sentences of an input; an empty line of a file is none."""
        lines = _lines(given)
        sentences = {f"{given}, line {n}": line for n, line in enumerate(lines, start=1) if line}
        sentences = sentences or {f"input {given[:40]!r}": "" if lines else given.strip()}
        for where, sentence in sentences.items():
            if fault := _fault(sentence, self.max_characters):
                raise ValueError(f"{where}: {fault}")
        return list(sentences.values())

    def answers(self, outputs: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
        decode = self._fitted_tokenizer.decode
        answers = []
        for b, language in enumerate(outputs["language"].long().tolist()):
            written, source = outputs["tokens"][b].long().tolist(), outputs["source"][b].long().tolist()
            written = [token for token in written if token not in (PAD, END)]
            source = [token for token in source if token != PAD]
            (written_texts, written_of), (source_texts, source_of) = pieces(written, decode), pieces(source, decode)
            weight_TS = outputs["attention"][b, : len(written), : len(source)].numpy()
            attention = {
                "source": source_texts,
                "target": written_texts,
                "weights": weights_of(weight_TS, written_of, source_of).round(4).tolist(),
            }
            # What reached the longest length says so.
            cut = "" if outputs["complete"][b] else " […]"
            answer = {"language": self.languages[language], "translation": decode(written) + cut}
            answers.append(answer | {"score": round(float(outputs["score"][b]), 4), "attention": attention})
        return answers

    def picture(self, inputs: Inputs, answers: list[dict[str, Any]], path: Path) -> bool:
        """The attention of the first nine translations that are not empty."""
        drawn = [answer["attention"] for answer in answers if answer["attention"]["target"]]
        if drawn:
            draw(drawn, path)
        return bool(drawn)

    def scores(self, split: str, outputs: dict[str, torch.Tensor]) -> dict[str, float]:
        """Exact match, BLEU and chrF of the test split, of all and of each language; of validation what is quick.

        ``unseen_`` stands before those of the sentences with years and amounts that are held out.
        """
        tokens = Sequences.of(outputs["tokens"], outputs["length"])
        decode = self._fitted_tokenizer.decode
        written = np.array([decode(tokens[i].tolist()) for i in range(len(tokens))], dtype=object)
        part = self.texts[split].take(outputs["example"].numpy())
        found: dict[str, float] = {}
        for prefix, chosen in (("", ~part.unseen), ("unseen_", part.unseen)):
            groups = {"": chosen}
            if self.num_languages > 1:
                groups |= {f"_{name}": chosen & (part.language == k) for k, name in enumerate(self.languages)}
            for suffix, rows in groups.items():
                metrics = METRICS if split == "test" else METRICS[: 1 if suffix else 2]
                if rows.any():
                    values = sentence_scores(written[rows].tolist(), part.target[rows].tolist(), metrics)
                    found |= {f"{prefix}{name}{suffix}": value for name, value in values.items()}
        return found

    @property
    def signatures(self) -> dict[str, str]:
        """How BLEU and chrF are computed, as sacrebleu writes it."""
        return signatures()

    def _read(self, rejects: Rejects, whole: bool) -> tuple[dict[str, _Part], int]:
        """Sound pairs by split, one part where there are no splits, and how many rows were read. Settles languages."""
        where, name = resolve(self.source, EMBEDDED)
        if where == "embedded":
            languages = self.wanted or self.fitted_languages or _babel.LANGUAGES
            self.fitted_languages = self.fitted_languages or languages
            part = self._embedded(languages)
            return {"test" if whole else "train": part}, len(part)
        rows = read_path(name, rejects) if where == "path" else read_hub(name, self.revision)
        if len(rows) > 1 and "train" not in rows:
            raise ValueError(f"{self.source} has the splits {', '.join(rows)}, and no train among them")
        rows = {split: rows[split] for split in SPLITS if split in rows} or rows
        if whole:
            rows = {"test": rows["test"] if "test" in rows else Rows.join(list(rows.values()))}
        total = sum(map(len, rows.values())) + rejects.count
        return {split: self._sound(some, rejects) for split, some in rows.items()}, total

    def _embedded(self, languages: Sequence[str]) -> _Part:
        source, targets, unseen = _babel.sentences(tuple(languages))
        sides = np.array([source, *targets.values()], dtype=object)
        codes = [self._code(language) for language in languages]
        return _Part(
            np.tile(sides[0], len(codes)), sides[1:].ravel(), np.repeat(codes, len(source)), np.tile(unseen, len(codes))
        )

    def _code(self, language: str) -> int:
        if language not in self.languages:
            raise ValueError(f"data.languages: the run translates into {', '.join(self.languages)}, not {language!r}")
        return self.languages.index(language)

    def _sound(self, rows: Rows, rejects: Rejects) -> _Part:
        """The rows without those that hold no pair, each of which is rejected in the order of the file."""
        sides = {side: _texts(rows, column, f"{side}_column") for side, column in self.columns.items()}
        names, keep = self._named(rows), []
        for i, name in enumerate(names):
            faults = {side: _fault(texts[i], self.max_characters) for side, texts in sides.items()}
            if name not in self.languages and not self.wanted:
                faults["language"] = f"{name!r} is none of {listed(self.languages)}" if name else "empty"
            bad = next((f"{what}: {fault}" for what, fault in faults.items() if fault), None)
            if bad:
                rejects.reject(*rows.where(i), bad)
            elif name in (self.wanted or self.languages):
                keep.append(i)
        index = np.array(keep, dtype=np.int64)
        language = np.array([self._code(names[i]) for i in keep], dtype=np.int64)
        source, target = (np.array(texts, dtype=object)[index] for texts in sides.values())
        return _Part(source, target, language, np.zeros(len(index), dtype=bool))

    def _named(self, rows: Rows) -> list[str]:
        """The language of each row. The first rows that are read decide which there are."""
        column = self.language_column or ("language" if "language" in rows.table.column_names else None)
        if column is not None:
            names = _texts(rows, column, "language_column")
            found = tuple(sorted(set(names) - {""}))
            lacking = [language for language in self.wanted if language not in found]
            if lacking and not self.fitted_languages:
                raise ValueError(f"data.languages: no row is in {lacking[0]!r}; there are {listed(found)}")
            self.fitted_languages = self.fitted_languages or self.wanted or found
            return names
        self.fitted_languages = self.fitted_languages or self.wanted or (ONE_LANGUAGE,)
        languages = self.wanted or self.fitted_languages
        if len(languages) > 1:
            raise ValueError(
                f"{rows.files[0]} has no column that names the target language; name one by data.language_column, or "
                f"by data.languages the one language of all rows (of {', '.join(languages)})"
            )
        return [languages[0]] * len(rows)

    def _some(self, part: _Part, share: float) -> _Part:
        """Pairs in proportion to the languages, and to what is held out."""
        limit = max(1, round(share * len(part)))
        return part.take(subset(len(part), 2 * part.language + part.unseen, limit, self.split_seed))

    def _cut(self, parts: dict[str, _Part]) -> dict[str, _Part]:
        """Cut the splits that the source lacks from its training pairs, or from the only pairs there are."""
        name = "train" if "train" in parts else next(iter(parts))
        given = {other: part for other, part in parts.items() if other != name}
        seen, unseen = (parts[name].take(np.flatnonzero(parts[name].unseen == held_out)) for held_out in (False, True))
        if len(given) < len(SPLITS) - 1:
            keys = np.array([" ".join(text.casefold().split()) for text in seen.source])
            shares = zip(SPLITS, (0.7, 0.1, 0.2), strict=True)
            fractions = tuple(0.0 if split in given else share for split, share in shares)
            index = cut(len(seen), groups=keys, fractions=fractions, seed=self.split_seed)
            given |= {split: seen.take(index[split]) for split in SPLITS if split not in given}
        else:
            given["train"] = seen
        return {**given, "test": _Part.join([given["test"], unseen])}


def _texts(rows: Rows, column: str, key: str) -> list[str]:
    """A column of text without spaces around; "" where there is none."""
    import pyarrow as pa

    table = rows.table.flatten() if any(pa.types.is_struct(kind) for kind in rows.table.schema.types) else rows.table
    if column not in table.column_names:
        near = difflib.get_close_matches(column, table.column_names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {listed(table.column_names)}"
        raise ValueError(f"data.{key}: {rows.files[0]} has no column {column!r}; {hint}")
    values = table[column]
    if pa.types.is_nested(values.type):
        raise ValueError(f"data.{key}: column {column!r} of {rows.files[0]} holds {values.type}, which is not text")
    return [(text or "").strip() for text in values.cast(pa.string()).to_pylist()]


def _fault(text: str, max_characters: int) -> str | None:
    """What is wrong with a sentence, or None."""
    if not text:
        return "no text"
    if "\0" in text:
        return "a null byte, which no text has"
    if len(text) > max_characters:
        return f"{len(text):,} characters, more than data.max_characters {max_characters:,}; split it, or allow more"
    return None


def _lines(given: str) -> list[str]:
    """The lines of a file; none if there is no such file."""
    if "\0" in given or len(given) > 4096 or not Path(given).is_file():
        if given.endswith((".txt", ".csv", ".tsv")) and " " not in given:
            raise ValueError(f"no file {given}")
        return []
    try:
        return [line.strip() for line in Path(given).read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{given}: byte {error.start + 1} is not UTF-8 text; save it as UTF-8") from None
