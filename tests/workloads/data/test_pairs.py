import json
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from workloads import _baselines_pairs
from workloads.data import _babel
from workloads.data.pairs import Pairs

WORDS = {"one": "un", "two": "deux", "three": "trois", "four": "quatre", "five": "cinq", "six": "six", "red": "rouge",
         "blue": "bleu", "dog": "chien", "cat": "chat", "house": "maison", "sees": "voit"}  # fmt: skip


def sentences(count, seed=0, least=2, most=6):
    """Sentences, each once, and their translations."""
    random, found = np.random.default_rng(seed), {}
    while len(found) < count:
        words = random.choice(list(WORDS), random.integers(least, most + 1)).tolist()
        found[" ".join(words)] = " ".join(WORDS[word] for word in words)
    return list(found.items())


def write_csv(path, rows, header="source,target"):
    path.write_text("\n".join([header, *(",".join(f'"{cell}"' for cell in row) for row in rows)]) + "\n")
    return str(path)


@pytest.fixture
def pairs(tmp_path):
    """Makes a data module with a cache of its own, and sets it up."""

    def make(source, stage="fit", **keys):
        keys = {"vocabulary_size": 320, "cache_dir": str(tmp_path / "cache")} | keys
        data = Pairs(source=source, **keys)
        data.setup(stage)
        return data

    return make


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    data = Pairs(cache_dir=str(tmp_path_factory.mktemp("cache")))
    data.setup("fit")
    return data


def test_embedded_sentences_are_those_of_the_languages():
    source, targets, unseen = _babel.sentences(("fr", "de", "hi"))
    place = {text: i for i, text in enumerate(source)}
    assert 8000 < (~unseen).sum() < 9000 and 800 < unseen.sum() < 1500
    assert len(place) == len(source) and not any("None" in text for some in targets.values() for text in some)
    i = place["in 3 days"]
    assert [targets[language][i] for language in targets] == ["dans 3 jours", "in 3 Tagen", "3 दिन में"]
    i = place["French (Canada)"]
    assert [targets[language][i] for language in targets] == ["français (Canada)", "Französisch (Kanada)",
                                                              "फ़्रेंच (कनाडा)"]  # fmt: skip
    assert _babel.sentences(("fr", "de", "hi"))[0] == source


def test_no_english_sentence_is_in_two_splits_in_any_language(embedded):
    parts = [set(embedded.texts[name].source) for name in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(_babel.sentences(("fr", "de", "hi"))[0])
    assert all(np.ptp(np.bincount(part.language)) == 0 for part in embedded.texts.values())


def test_the_harder_part_has_years_and_amounts_that_training_never_sees(embedded):
    def numbers(texts):
        return {word.strip("().") for text in texts for word in text.split() if any(c.isdigit() for c in word)}

    test = embedded.texts["test"]
    hard = test.source[test.unseen]
    assert len(hard) > 2500
    known = numbers(embedded.texts["train"].source) | numbers(embedded.texts["validation"].source)
    assert all(numbers([text]) - known for text in hard)


def test_batches_are_tokens_with_an_end_and_come_back_as_text(embedded):
    split = embedded.splits["validation"]
    batch = split.gather(torch.tensor([3, 900, 1700]))
    for b, i in enumerate((3, 900, 1700)):
        part = embedded.texts["validation"]
        assert embedded.tokenizer.decode(batch["source"][b].tolist()) == part.source[i]
        assert embedded.tokenizer.decode(batch["target"][b].tolist()) == part.target[i]
        assert batch["target"][b, batch["target_length"][b] - 1] == 3
        assert embedded.languages[batch["language"][b]] == ("fr", "de", "hi")[part.language[i]]
    assert batch["example"].tolist() == [3, 900, 1700]


def test_perfect_translations_have_perfect_scores_and_one_wrong_sentence_costs_its_share(pairs):
    data = pairs("babel", num_examples=1500)
    part, tokens, order = data.texts["test"], data.splits["test"].sequences["target"], torch.randperm(
        len(data.texts["test"]))  # fmt: skip
    tokens = tokens.take(order)
    outputs = {"tokens": tokens.flat.long(), "length": tokens.lengths, "example": order}
    scores = data.scores("test", outputs)
    assert {scores[f"{hard}exact_match{of}"] for hard in ("", "unseen_") for of in ("", "_fr", "_hi")} == {1}
    assert scores["bleu_de"] == pytest.approx(100) and scores["unseen_chrf"] == pytest.approx(100)
    i = int(np.flatnonzero((part.language == 0) & ~part.unseen)[0])
    outputs["tokens"][int(tokens.offsets[int((order == i).nonzero())])] = outputs["tokens"].max()
    scores = data.scores("test", outputs)
    assert scores["exact_match"] == pytest.approx(1 - 1 / (~part.unseen).sum())
    assert scores["exact_match_fr"] == pytest.approx(1 - 1 / (~part.unseen & (part.language == 0)).sum())
    assert scores["exact_match_de"] == scores["unseen_exact_match"] == 1
    assert data.signatures["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")


def test_the_baselines(pairs):
    embedded = pairs("babel", num_examples=3000)
    scores = _baselines_pairs.nearest(embedded)
    # No two English sentences of the set mean the same, so the nearest one's translation is always another's.
    assert scores["nearest training source"] == scores["nearest training source (unseen numbers)"] == 0
    test = embedded.texts["test"]
    same = (test.source == test.target)[~test.unseen].mean()
    assert scores["copy the source"] == pytest.approx(same) and same < 0.03


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_files_of_pairs_with_columns_in_any_order(pairs, tmp_path, kind):
    path, rows = tmp_path / f"pairs.{kind}", sentences(60)
    columns = {"note": ["x"] * 60, "french": [t for _, t in rows], "id": [str(i) for i in range(60)],
               "english": [s for s, _ in rows]}  # fmt: skip
    if kind == "parquet":
        pyarrow.parquet.write_table(pa.table(columns), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n"
                                for row in zip(*columns.values(), strict=True)))  # fmt: skip
    else:
        comma = "," if kind == "csv" else "\t"
        path.write_text("\n".join(map(comma.join, [list(columns), *zip(*columns.values(), strict=True)])) + "\n")
    data = pairs(str(path), source_column="english", target_column="french", languages=("fr",))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 42, "validation": 6, "test": 12}
    assert data.languages == ("fr",)
    known = dict(rows)
    assert all(known[s] == t for part in data.texts.values() for s, t in zip(part.source, part.target, strict=True))


def test_the_hub_s_records_of_translations_are_columns_with_a_dot(pairs, tmp_path):
    path, rows = tmp_path / "pairs.jsonl", sentences(20)
    path.write_text("".join(json.dumps({"translation": {"en": s, "fr": t}}) + "\n" for s, t in rows))
    data = pairs(str(path), source_column="translation.en", target_column="translation.fr")
    assert {s for part in data.texts.values() for s in part.source} == {s for s, _ in rows}
    with pytest.raises(ValueError, match=r"has no column 'translation'; did you mean 'translation\.(en|fr)'\?$"):
        pairs(str(path), source_column="translation", target_column="translation.fr")


def test_blank_lines_are_no_rows_and_an_empty_cell_is_a_bad_one(pairs, tmp_path):
    rows = sentences(40)
    lines = ["target,source", *(f"{t},{s}" for s, t in rows)]
    lines[5:5], lines[20:20] = ["", ""], [""]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(lines) + "\n\n")
    assert sum(map(len, pairs(str(path)).splits.values())) == 40
    lines[12] = ",one two"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"pairs\.csv, row 10: target: no text; .*--data\.on_error skip$"):
        pairs(str(path))
    with pytest.warns(UserWarning, match="skipped: 1 of 40 rows"):
        data = pairs(str(path), on_error="skip")
    assert data.skipped == 1 and sum(map(len, data.splits.values())) == 39


def test_sentences_of_300_words_are_whole(pairs, tmp_path):
    rows = sentences(30, least=300, most=300)
    data = pairs(write_csv(tmp_path / "long.csv", rows))
    example = data.splits["train"].gather(torch.tensor([0]))
    assert data.tokenizer.decode(example["source"][0].tolist()).count(" ") == 299
    assert data.tokenizer.decode(example["target"][0].tolist()) == dict(rows)[data.texts["train"].source[0]]


def test_20_000_pairs_in_seconds(pairs, tmp_path):
    path = write_csv(tmp_path / "many.csv", sentences(20_000, least=4, most=12))
    begin = time.perf_counter()
    data = pairs(path, vocabulary_size=4000)
    first = time.perf_counter() - begin
    assert sum(map(len, data.splits.values())) == 20_000 and first < 15
    begin = time.perf_counter()
    pairs(path, vocabulary_size=4000)
    assert time.perf_counter() - begin < max(5, first)


def test_several_languages_by_a_column(pairs, tmp_path):
    rows = [(s, t, "fr") for s, t in sentences(30)] + [(s, s[::-1], "xx") for s, _ in sentences(30)]
    rows += [(s.upper(), t, "fr") for s, t in sentences(30)]
    path = write_csv(tmp_path / "pairs.csv", rows, "source,target,language")
    data = pairs(path)
    assert data.languages == ("fr", "xx") and data.num_languages == 2
    sides = [{text.casefold() for text in part.source} for part in data.texts.values()]
    assert sum(map(len, sides)) == 30  # the same sentence, in another case or language, is on the same side
    only = pairs(path, languages=("xx",))
    assert only.languages == ("xx",) and sum(map(len, only.splits.values())) == 30
    with pytest.raises(ValueError, match=r"^data\.languages: no row is in 'de'; there are fr, xx$"):
        pairs(path, languages=("de",))
    with pytest.raises(ValueError, match=r"no column 'lang'; did you mean 'language'\?"):
        pairs(path, language_column="lang")


def test_splits_that_are_given_are_kept(pairs, tmp_path):
    rows, folder = sentences(60), tmp_path / "set"
    folder.mkdir()
    write_csv(folder / "train.csv", rows[:40])
    write_csv(folder / "test.csv", rows[40:])
    data = pairs(str(folder))
    assert {name: len(part) for name, part in data.texts.items()} == {"train": 35, "validation": 5, "test": 20}
    assert data.texts["test"].source.tolist() == [s for s, _ in rows[40:]]


def test_a_restored_data_module_reads_other_data_by_what_training_left(pairs, tmp_path):
    rows = [(s, t, "fr") for s, t in sentences(40)] + [(s, s, "en") for s, _ in sentences(40)]
    trained = pairs(write_csv(tmp_path / "pairs.csv", rows, "source,target,language"))

    def restored(source, **keys):
        data = Pairs(source=source, cache_dir=str(tmp_path / "cache"), **keys)
        data.load_state_dict(trained.state_dict())
        data.setup("whole")
        return data

    one = write_csv(tmp_path / "one.csv", sentences(7, seed=1))
    with pytest.raises(ValueError, match=r"no column that names the target language; .* data\.languages .*en, fr"):
        restored(one)
    data = restored(one, languages=("fr",))
    assert len(data.splits["test"]) == 7 and data.splits["test"].columns["language"].tolist() == [1] * 7
    assert data.tokenizer.state() == trained.tokenizer.state()
    strange = write_csv(tmp_path / "strange.csv", [("one", "uno", "it")], "source,target,language")
    with pytest.raises(ValueError, match=r"strange\.csv, row 1: language: 'it' is none of en, fr; "):
        restored(strange)
    with pytest.raises(ValueError, match=r"^data\.languages: the run translates into en, fr, not 'de'$"):
        restored("babel", languages=("de",))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"source,target\nvif,caf\xe9\n", r"cannot be read as csv \(.*utf-8.*\)$"),
        (b"source,target\na\x00b,c\n", r"row 1: source: a null byte, which no text has; "),
        (b"source,target\na," + b"b" * 1_000_000 + b"\n", r"row 1: target: 1,000,000 characters, more than "),
        (b"source,target\na,  \n", r"row 1: target: no text; "),
        (b"english,french\na,b\n", r"^data\.source_column: .* has no column 'source'; there are english, french$"),
        (b"source,target\na,b\n", r"^1 examples are too few to cut into train, validation, test; it takes at least 5$"),
    ],
)
def test_bad_files_are_one_line(pairs, tmp_path, content, line):
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(ValueError, match=line) as error:
        pairs(str(tmp_path / "bad.csv"))
    assert "\n" not in str(error.value)


def test_an_unknown_locale_is_one_line(pairs):
    with pytest.raises(
        ValueError, match=r"^data\.languages: Babel has no locale 'klingon'; expected e\.g\. fr or pt_BR$"
    ):
        pairs("babel", languages=("klingon",))


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("", "no text"),
        ("  \n", "no text"),
        ("a\x00b", "a null byte, which no text has"),
        ("word " * 200_000, r"999,999 characters, more than data\.max_characters 4,000; split it, or allow more"),
        ("missing.txt", "^no file missing.txt$"),
    ],
)
def test_bad_sentences_are_one_line(embedded, given, line):
    with pytest.raises(ValueError, match=line) as error:
        embedded.encode([given])
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_an_unknown_language_is_one_line(embedded):
    with pytest.raises(ValueError, match=r"^--language: this run translates into fr, de, hi, not into 'it'$"):
        embedded.encode(["in 3 days"], language="it")


def test_sentences_and_files_of_them_are_encoded_for_each_language_or_one(embedded, tmp_path):
    (tmp_path / "lines.txt").write_text("in 3 days\n\nΩ 你好 🙂\n", encoding="utf-8")
    inputs = embedded.encode(["5 weeks ago", str(tmp_path / "lines.txt")])
    assert inputs.names == [name for name in ("5 weeks ago", "in 3 days", "Ω 你好 🙂") for _ in range(3)]
    batch = inputs.examples.gather(torch.arange(9))
    assert batch["language"].tolist() == [0, 1, 2] * 3
    assert embedded.tokenizer.decode(batch["source"][8].tolist()) == "Ω 你好 🙂"
    assert embedded.encode(["in 3 days"], language="hi").examples.columns["language"].tolist() == [2]
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"latin\.txt: byte 4 is not UTF-8 text; save it as UTF-8$"):
        embedded.encode([str(tmp_path / "latin.txt")])
