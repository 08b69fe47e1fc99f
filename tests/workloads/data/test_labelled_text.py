"""Labelled texts: embedded and a user's own, their splits and tokens, bad rows, vectors, and what a person asks."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from workloads.data._tokens import UNKNOWN
from workloads.data.labelled_text import LONGEST, LabelledText

GOOD, BAD = ("a fine film", "truly, great fun", "I loved it"), ("a dull film", "what a waste", "truly awful")
ROWS = [{"text": f"{(GOOD if i % 3 else BAD)[i % 7 % 3]} number {i}", "label": "yes" if i % 3 else "no"}
        for i in range(60)]  # fmt: skip


def csv(rows):
    return "text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in rows)


@pytest.fixture
def write(tmp_path):
    def write(text, name="reviews.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(tmp_path / name)

    return write


@pytest.fixture
def ready(tmp_path):
    """Makes a data module that is set up, whose cache lies in the test's own folder."""

    def ready(source, stage="fit", state=None, **keys):
        data = LabelledText(source, cache_dir=str(tmp_path / "cache"), **keys)
        data.load_state_dict(state or {})
        data.setup(stage)
        return data

    return ready


def words(data, split, i):
    return data.tokenizer.decode(data.splits[split].sequences["text"][i].tolist())


def test_the_embedded_short_ones(ready):
    data = ready("short")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 6824, "validation": 853, "test": 853}
    assert (data.output, data.num_outputs, data.classes) == ("binary", 1, ["negative", "positive"])
    for split in data.splits.values():
        assert split.columns["target"].float().mean() == pytest.approx(0.5, abs=0.001)
        assert split.sequences["text"].lengths.min() >= 1
    assert data.num_tokens <= 30_000
    great = [i for i, text in enumerate(data.texts["train"]) if "masterpiece" in text.split()]
    assert len(great) > 10 and data.splits["train"].columns["target"][great].float().mean() > 0.7


def test_the_embedded_long_ones_without_their_markup(ready):
    data = ready("imdb", num_examples=300)
    assert [len(split) for split in data.splits.values()] == [240, 30, 30]
    assert data.splits["train"].columns["target"].float().mean() == pytest.approx(0.5, abs=0.01)
    assert not any("<br" in text for texts in data.texts.values() for text in texts)
    assert data.splits["train"].sequences["text"].lengths.max() > 500
    assert set(ready("reviews", num_examples=300).classes) == {"negative", "positive"}


@pytest.mark.slow
def test_no_long_review_is_on_two_sides(ready):
    data = ready("imdb")
    assert [len(split) for split in data.splits.values()] == [20_000, 2500, 2500]
    folded = [{" ".join(text.lower().split()) for text in texts} for texts in data.texts.values()]
    assert len(set().union(*folded)) == sum(map(len, folded)) == 25_000 - 96


def test_copies_are_on_one_side_whatever_their_case_and_spaces(write, ready):
    rows = [{**row, "text": text} for row in ROWS for text in (row["text"], f"  {row['text'].upper()} ", row["text"])]
    data = ready(write(csv(rows)))
    sides = [{text.strip().lower() for text in texts} for texts in data.texts.values()]
    assert sum(map(len, sides)) == 60 and [len(texts) for texts in data.texts.values()] == [144, 18, 18]


def test_the_vocabulary_is_of_training_alone_and_the_most_frequent(write, ready):
    folder = write(csv(ROWS), "set/train.csv").rpartition("/")[0]
    write(csv([{"text": "a Fine zebra, fine!", "label": "yes"}]), "set/test.csv")
    write(csv(ROWS[:4]), "set/validation.csv")
    data = ready(folder)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 60, "test": 1, "validation": 4}
    assert words(data, "test", 0) == "a fine , fine"
    assert data.splits["test"].sequences["text"][0].tolist().count(UNKNOWN) == 2
    assert ready(folder, lowercase=False).splits["test"].sequences["text"][0].tolist().count(UNKNOWN) == 3
    assert ready(folder, vocabulary_size=10).num_tokens == 10


@pytest.mark.parametrize("tokenizer", ["bpe", "character"])
def test_pieces_of_words(write, ready, tokenizer):
    data = ready(write(csv(ROWS)), tokenizer=tokenizer, vocabulary_size=300)
    assert words(data, "train", 5) == data.texts["train"][5].lower()


def test_every_kind_of_file_gives_the_same_tokens(write, ready, tmp_path):
    expected = ready(write(csv(ROWS)))
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "r.parquet")
    others = [
        str(tmp_path / "r.parquet"),
        write("\n".join(map(json.dumps, ROWS)), "r.jsonl"),
        write(json.dumps(ROWS), "r.json"),
        write("text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in ROWS), "r.tsv"),
    ]
    for source in others:
        data = ready(source)
        for name, split in expected.splits.items():
            assert torch.equal(data.splits[name].sequences["text"].flat, split.sequences["text"].flat), source
            assert torch.equal(data.splits[name].columns["target"], split.columns["target"]), source


def test_columns_by_name_other_classes_and_numbers(write, ready):
    rows = "".join(f"{i},word{i % 7},{'abc'[i % 3]},{i / 4}\n" for i in range(50))
    source = write("id,said,kind,stars\n" + rows)
    data = ready(source, text_column="said", label_column="kind")
    assert (data.output, data.num_outputs, data.classes) == ("multiclass", 3, ["a", "b", "c"])
    data = ready(source, text_column="said", label_column="stars")
    assert (data.output, data.num_outputs, data.metric) == ("regression", 1, "r2") and data.target_scale > 1
    with pytest.raises(ValueError, match=r"data\.text_column: .* no column 'text'; there are id, said, kind, stars"):
        ready(source)
    with pytest.raises(ValueError, match=r"data\.label_column: .* no column 'kinds'; did you mean 'kind'"):
        ready(source, text_column="said", label_column="kinds")
    source = write("\n".join(json.dumps({"text": i, "label": i % 2}) for i in range(20)), "numbers.jsonl")
    with pytest.raises(ValueError, match=r"column 'text' of .* holds int64, which is not text"):
        ready(source)


def test_a_text_is_read_whole_and_cut_only_when_told(write, ready):
    long = " ".join(f"w{i}" for i in range(3000))
    source = write(csv([*ROWS, {"text": long, "label": "yes"}]), "long.csv")
    assert max(int(split.lengths.max()) for split in ready(source).splits.values()) == 3000
    with pytest.warns(UserWarning, match=r"data\.max_tokens: 1 of 61 texts are cut to their first 50 tokens"):
        data = ready(source, max_tokens=50)
    assert max(int(split.lengths.max()) for split in data.splits.values()) == 50
    name, i = next((n, i) for n, texts in data.texts.items() for i, t in enumerate(texts) if t == long)
    assert (
        data.splits[name].sequences["text"][i].tolist() == ready(source).splits[name].sequences["text"][i][:50].tolist()
    )


def test_a_line_of_a_megabyte_is_refused_by_row_or_cut(write, ready):
    rows = [*ROWS, {"text": "so good " * 130_000, "label": "yes"}]
    for source in (write(csv(rows)), write("\n".join(map(json.dumps, rows)), "r.jsonl")):
        with pytest.raises(ValueError, match=r"row 61: the text has 260,000 tokens, and 32,768 are the most") as error:
            ready(source)
        assert "\n" not in str(error.value) and LONGEST == 32_768
        with pytest.warns(UserWarning, match="1 of 61 texts are cut"):
            data = ready(source, max_tokens=100)
        assert sum(map(len, data.splits.values())) == 61


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('" ",yes', "row 61: the text is empty"),
        (",yes", "row 61: the text is empty"),
        ("fine,", "row 61: the target is missing"),
        ("fine", "row 61: 1 cells, and the header names 2 columns"),
    ],
)
def test_a_bad_row_stops_or_is_skipped(write, ready, line, says):
    source = write(csv(ROWS) + line + "\n")
    with pytest.raises(ValueError, match=says):
        ready(source)
    with pytest.warns(UserWarning, match="1 of 61 rows"):
        data = ready(source, on_error="skip")
    assert data.skipped == 1 and sum(map(len, data.splits.values())) == 60
    source = write(csv(ROWS) + f"{line}\n" * 6)
    with pytest.raises(ValueError, match="6 of 66 rows cannot be used"):
        ready(source, on_error="skip")


def test_strange_texts_are_texts(write, ready):
    strange = ["\0\0 nothing\0", "दिवाली की शुभकामनाएं", "🎭", "\u200b", "İ" * 40, "?!", 'a ""quoted""\nline']
    source = write(csv([*ROWS, *({"text": text, "label": "yes"} for text in strange * 3)]))
    for tokenizer in ("word", "bpe", "character"):
        data = ready(source, tokenizer=tokenizer, vocabulary_size=400)
        assert sum(map(len, data.splits.values())) == 60 + 3 * len(strange)
        assert min(int(split.lengths.min()) for split in data.splits.values()) >= 1
    assert 'a "quoted"\nline' in {text for texts in data.texts.values() for text in texts}


@pytest.mark.parametrize("times", [1, 100])  # within the first block that is read, and beyond
def test_a_file_that_is_not_utf_8_is_named(write, ready, times):
    source = write(csv(ROWS * times).encode() + b"caf\xe9,yes\n")
    with pytest.raises(ValueError, match=r"reviews\.csv cannot be read as csv \(.*(utf-8|UTF8)") as error:
        ready(source)
    assert "\n" not in str(error.value)


def test_other_data_is_read_with_the_words_and_classes_of_training(write, ready, tmp_path):
    data = ready(write(csv(ROWS)))
    torch.save(data.state_dict(), tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    other = ready(write(csv([{"text": "a fine zebra", "label": "no"}] * 3), "other.csv"), "whole", state)
    assert {name: len(split) for name, split in other.splits.items()} == {"test": 3}
    assert words(other, "test", 0) == "a fine" and other.splits["test"].columns["target"].tolist() == [0, 0, 0]
    again = ready(str(tmp_path / "reviews.csv"), "test", state)
    for name, split in data.splits.items():
        assert torch.equal(again.splits[name].sequences["text"].flat, split.sequences["text"].flat)
    with pytest.raises(ValueError, match=r"other\.csv, row 2: target 'perhaps' is none of the 2 classes.*: no, yes"):
        ready(write("text,label\nfine,yes\nfilm,perhaps\n", "other.csv"), "whole", state)


VECTORS = "film 1 2 3\nThe 0 0 0\nzebra 4 5 6\nfine -1 0.5 1e-2\nfine 9 9 9\n"


@pytest.mark.parametrize("head", ["", "5 3\n"])
def test_vectors_of_known_words(write, ready, head):
    data = ready(write(csv(ROWS)), vectors=write(head + VECTORS, "vectors.txt"))
    ids = data.tokenizer.backend.get_vocab()
    found = dict(zip(data.vectors.token_K.tolist(), data.vectors.vector_KD.tolist(), strict=True))
    assert data.vectors_dim == 3
    assert found == {ids["film"]: [1, 2, 3], ids["fine"]: pytest.approx([-1, 0.5, 0.01])}
    assert LabelledText("short").vectors_dim == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("film 1 2 3\nfine 1 2\n", "line 2: expected a word and 3 numbers"),
        ("film 1 2 3\nfine 1 x 3\n", "line 2: not every number is a finite one"),
        ("film 1 nan 3\n", "line 1: not every number is a finite one"),
        ("zebra 1 2 3\n", "has none of the vocabulary's"),
        ("", "has none of the vocabulary's"),
        ("film\n", "line 1: expected a word and its numbers"),
        (b"film 1 2\n\xff\xfe 1 2\n", "is not UTF-8 text"),
        (None, "no file"),
    ],
)
def test_bad_vectors(write, ready, tmp_path, content, says):
    path = str(tmp_path / "none.txt") if content is None else write(content, "vectors.txt")
    with pytest.raises(ValueError, match=says) as error:
        ready(write(csv(ROWS)), vectors=path)
    assert "\n" not in str(error.value) and "data.vectors: " in str(error.value)


def test_vectors_are_of_words():
    with pytest.raises(ValueError, match=r"data\.vectors: .* needs data\.tokenizer word, and it is bpe"):
        LabelledText(vectors="v.txt", tokenizer="bpe")
    with pytest.raises(ValueError, match=r"data\.max_tokens: expected at least 0"):
        LabelledText(max_tokens=-1)


def test_what_a_person_asks(write, ready):
    data = ready(write(csv(ROWS)))
    lines = write("\ufeffA fine film\n\n  \r\nwhat a waste\r\n", "lines.txt")
    table = write("id,text\n7,truly great\n8,fine\n", "table.csv")
    inputs = data.encode(["I loved it, truly", lines, table])
    assert inputs.names == [
        "I loved it, truly",
        f"{lines} line 1",
        f"{lines} line 4",
        f"{table} row 1",
        f"{table} row 2",
    ]
    batch = inputs.examples.gather(torch.arange(5))
    assert batch["text_length"].tolist() == [5, 3, 3, 2, 1] and batch["number"].tolist() == [0, 1, 2, 3, 4]
    assert data.encode([lines]).names == ["line 1", "line 4"]
    with pytest.warns(UserWarning, match=r"zebra \(and 1 more\): no word of it is known from training"):
        data.encode(["zebra", "fine", "दिवाली"])
    assert len(data.encode(["a sentence that is too long for the name of a file " * 100]).names) == 1


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (None, "", "an input is empty"),
        (None, " \n", "an input is empty"),
        (None, "missing.csv", "no file missing.csv"),
        (None, "/", "/ is a folder; give a file of it, or words"),
        ("lines.txt", b"fine\ncaf\xe9\n", r"lines\.txt, line 2: not UTF-8 text"),
        ("lines.txt", "\n \n", r"lines\.txt has no text in it"),
        ("table.csv", "text,b\nfine,1\n,2\n", r"table\.csv, row 2: the text is empty"),
        ("table.csv", "words,b\nfine,1\n", r"data\.text_column: .*table\.csv has no column 'text'"),
        ("lines.txt", "so good " * 20_000, r"line 1: the text has 40,000 tokens, and 32,768 are the most"),
    ],
)
def test_what_cannot_be_answered_is_said_in_a_line(write, ready, name, content, says):
    data = ready(write(csv(ROWS)))
    with pytest.raises(ValueError, match=says) as error:
        data.encode([write(content, name) if name else content])
    assert "\n" not in str(error.value).strip()


def test_an_explanation_is_of_the_text_as_it_was_written(write, ready):
    data = ready(write(csv(ROWS)))
    data.encode(["A  Fine\tfilm, zebra!"])
    outputs = {"probability": torch.tensor([[0.9, 0.1]]), "number": torch.tensor([0]), "length": torch.tensor([6]),
               "influence": torch.tensor([[0.0, 2.0, -1.0, 0.1, 0.5, 0.2, 9.0]]),
               "gates": torch.arange(21.0).view(1, 7, 3) / 20}  # fmt: skip
    answer = {"input": "A  Fine", **data.answers(outputs)[0]}
    assert [(w["word"], w["begin"], round(w["influence"], 3)) for w in answer["words"]] == [
        ("A", 0, 0), ("Fine", 3, 2), ("film", 8, -1), (",", 12, 0.1), ("zebra", 14, 0.5), ("!", 19, 0.2),
    ]  # fmt: skip
    assert answer["words"][1]["forget_gate"] == pytest.approx(4 / 20)
    json.dumps(answer)
    [(title, pieces)] = data.marked([answer])
    assert title == "no 0.900  A Fine" and "".join(piece for piece, _ in pieces) == "A  Fine\tfilm, zebra!"
    assert dict(pieces)["Fine"] == 1 and dict(pieces)["film"] == -0.5 and dict(pieces)["\t"] == 0
    assert data.marked([{"input": "x", "label": "no", "probability": 1.0}]) == []


@pytest.mark.parametrize("tokenizer", ["bpe", "character"])
def test_pieces_of_a_word_are_put_together_in_an_explanation(write, ready, tokenizer):
    data = ready(write(csv(ROWS)), tokenizer=tokenizer, vocabulary_size=270)
    text = "great  शुभ fun!"
    data.encode([text])
    spans = data.tokenizer.words(text)[1]
    influence = torch.tensor([[1.0 if begin < 5 and end <= 5 else 0.0 for begin, end in spans]])
    outputs = {"probability": torch.tensor([[0.9, 0.1]]), "number": torch.tensor([0]),
               "length": torch.tensor([len(spans)]), "influence": influence}  # fmt: skip
    found = data.answers(outputs)[0]["words"]
    assert [w["word"] for w in found] == ["great", "शुभ", "fun!"]
    assert found[0]["influence"] == influence.sum() >= 1 and found[1]["influence"] == found[2]["influence"] == 0


def test_the_picture_of_an_explanation(write, ready, tmp_path):
    from PIL import Image

    data = ready(write(csv(ROWS)))
    inputs = data.encode(["A $fine$ film दिवाली", "fine " * 4000])
    lengths = inputs.examples.lengths
    outputs = {"probability": torch.tensor([[0.9, 0.1]] * 2), "number": torch.arange(2), "length": lengths,
               "influence": torch.zeros(2, 4000).index_fill(1, torch.tensor([2]), 3.0)}  # fmt: skip
    answers = [{"input": name[:20], **a} for name, a in zip(inputs.names, data.answers(outputs), strict=True)]
    assert data.picture(inputs, answers, tmp_path / "words.png")
    with Image.open(tmp_path / "words.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
        assert image.height > 3000
    green = (pixels[:, 1] > pixels[:, 0] + 60) & (pixels[:, 1] > pixels[:, 2] + 30)
    assert 200 < green.sum() < 20_000  # the one word that moved the answer, in two texts
    assert not data.picture(inputs, [{"label": "no", "probability": 0.9}], tmp_path / "none.png")
