"""Streams of plain text: every token once and in order; texts as people have them; what is wrong with a file."""

import itertools

import pytest
import torch

from workloads.data._batches import Batches
from workloads.data._ragged import PAD
from workloads.data._text_files import cut_texts, plain, plays
from workloads.data._tokens import END
from workloads.data.plain_text import PlainText

LINES = [f"Line {k} of a text that is long enough.\n" for k in range(400)]
LENGTH = len("".join(LINES))


def data_of(path, **options):
    return PlainText(
        str(path), cache_dir=str(path.parent / "cache"), **{"tokenizer": "bpe", "vocabulary_size": 300, **options}
    )


def ready(path, **options):
    data = data_of(path, **options)
    data.setup()
    return data


@pytest.fixture
def file(tmp_path):
    (tmp_path / "text.txt").write_text("".join(LINES))
    return tmp_path / "text.txt"


@pytest.mark.parametrize("batch_size", [1, 3, 32, 10_000])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("chunk_tokens", [2, 17])
def test_every_token_of_an_epoch_is_predicted_once_and_follows_its_input(file, batch_size, shuffle, chunk_tokens):
    split = ready(file, chunk_tokens=chunk_tokens).splits["train"]
    plan = split.plan(batch_size, seed=3, epoch=2, shuffle=shuffle)
    assert len(plan) == -(-len(split) // len(plan[0])) == len(split.plan(batch_size, seed=3, epoch=5, shuffle=shuffle))
    found = [split.gather(index) for index in plan]
    assert max(batch["target"].shape[1] for batch in found) <= chunk_tokens
    assert all((batch["target"] != PAD).any(dim=1).all() for batch in found)  # no stream ends before the others
    assert all((batch["target"] != PAD).all() for batch in found[:-1])  # nothing is filled up in mid-stream
    target_ST, inputs_ST = (torch.cat([batch[name] for batch in found], dim=1) for name in ("target", "inputs"))
    inside_ST = target_ST != PAD
    read = target_ST[inside_ST]  # stream after stream: the circle, from where the first begins
    begin = int(plan[0][0, 0])
    assert torch.equal(read, split.flat.roll(-begin).long())
    assert (begin > 0) is shuffle
    assert torch.equal(inputs_ST[inside_ST], read.roll(1))
    assert float(sum(batch["characters"].sum() for batch in found)) == pytest.approx(0.84 * LENGTH, rel=0.01)


def test_the_text_begins_after_an_end_and_ends_with_one(file):
    data = ready(file)
    first = next(iter(data.val_dataloader()))
    assert first["inputs"][0, 0] == END
    (text,) = data.texts["validation"].values()
    assert text.startswith(data.fitted.decode(first["target"][0].tolist()))
    assert data.splits["test"].flat[-1] == END


def test_workers_share_the_streams(file):
    split = ready(file).splits["train"]
    ranks = ((0, 1), (0, 2), (1, 2))
    whole, *parts = (list(Batches(split, 5, seed=1, shuffle=True, rank=r, world_size=size)) for r, size in ranks)
    for together, even, odd in zip(whole, *parts, strict=True):
        assert torch.equal(together["target"][0::2], even["target"])
        assert torch.equal(together["target"][1::2], odd["target"])


def test_an_epoch_begins_elsewhere_by_seed_and_epoch(file):
    split = ready(file).splits["train"]
    begins = {(s, e): int(split.plan(4, seed=s, epoch=e, shuffle=True)[0][0, 0]) for s in (0, 1) for e in (0, 1)}
    assert len(set(begins.values())) == 4
    assert begins[1, 1] == int(split.plan(4, seed=1, epoch=1, shuffle=True)[0][0, 0])


def test_the_plays_are_plain_text_and_no_play_is_in_two_splits():
    texts = plays()
    assert len(texts) == 38 and 4_900_000 < sum(map(len, texts.values())) < 5_000_000
    assert texts["macbeth"].startswith("Macbeth\n\nACT I\n\nSCENE I. ")
    assert "\nMACBETH\nSo foul and fair a day I have not seen.\n" in texts["macbeth"]
    assert not set("*_#\\\t\r") & set("".join(texts.values()))
    assert not any(line.endswith(" ") for line in "".join(texts.values()).splitlines())
    splits = cut_texts({"train": texts}, seed=0)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [32, 3, 3]
    assert sorted(itertools.chain(*splits.values())) == sorted(texts)
    assert splits == cut_texts({"train": texts}, seed=0) != cut_texts({"train": texts}, seed=1)


def test_markdown_is_taken_off():
    assert plain("## ACT I\n\n\n_Enter, \\[aside]_\n\n**A & B**  \n'No,'\\--he *said*  \n") == (
        "ACT I\n\nEnter, [aside]\n\nA & B\n'No,'--he said\n"
    )


def test_one_file_is_cut_into_blocks_at_line_ends(file):
    data = ready(file)
    parts = ["".join(data.texts[split].values()) for split in ("train", "validation", "test")]
    assert "".join(parts) == "".join(LINES) and all(part.endswith("\n") for part in parts)
    assert [len(part) / len("".join(LINES)) for part in parts] == pytest.approx([0.84, 0.08, 0.08], abs=0.01)


def test_several_files_are_cut_by_file_and_equal_ones_stay_together(tmp_path):
    for k in range(9):
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{k}.TXT").write_bytes(f"Text {k // 3}\r\nof many.\r".encode("utf-8-sig"))
    splits = data_of(tmp_path / "texts").read()
    assert sorted(map(len, splits.values())) == [3, 3, 3]
    kept = [set(some.values()) for some in splits.values()]
    assert sorted(map(len, kept)) == [1, 1, 1] and set.union(*kept) == {f"Text {k}\nof many.\n" for k in range(3)}


def test_folders_of_splits_are_kept(tmp_path):
    for name in ("train", "test"):
        (tmp_path / "texts" / name / "deep").mkdir(parents=True)
        (tmp_path / "texts" / name / "deep" / "a.txt").write_text(f"{name}\n" * 100)
    splits = data_of(tmp_path / "texts").read()
    assert {name: set("".join(some.values()).split()) for name, some in splits.items()} == {
        "train": {"train"}, "validation": {"train"}, "test": {"test"}
    }  # fmt: skip
    assert set(data_of(tmp_path / "texts").read(whole=True)) == {"test"}


def test_some_characters_of_every_text(file):
    data = ready(file, num_characters=5_000, tokenizer="character")
    sizes = {split: sum(map(len, some.values())) for split, some in data.texts.items()}
    assert sizes["train"] == pytest.approx(5_000, abs=2) and sizes["test"] == pytest.approx(5_000 * 8 / 84, rel=0.05)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "holds no text"),
        (b" \n\n\t", "holds no text"),
        (b"a\0b", r"holds a null byte \(character 1\), so it is not plain text"),
        ("Être ou ne pas être".encode("latin1"), r"not UTF-8 \(byte 0xca at 0\); convert it, e.g. iconv"),
        ("abc".encode("utf-16"), r"not UTF-8 \(byte 0xff at 0\)"),
        (b"a", "1 characters are too few to cut into train, validation, test"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, line):
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad\.txt: {line}"):
        ready(tmp_path / "bad.txt")


def test_bad_files_of_a_folder_are_skipped_on_request(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for k in range(40):
        (folder / f"{k}.txt").write_text(f"Text {k}, a good one.\n" * 5)
    (folder / "bad.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"bad\.txt: not UTF-8 .* use --data\.on_error skip"):
        ready(folder)
    with pytest.warns(UserWarning, match=r"skipped: 1 of 41"):
        data = ready(folder, on_error="skip")
    assert data.skipped == 1 and sum(map(len, data.texts.values())) == 40


@pytest.mark.parametrize(
    ("name", "line"),
    [("empty", "has no .txt file in it"), ("book.pdf", "is not a .txt file"), ("none", "there is no file")],
)
def test_a_source_without_text_is_named(tmp_path, name, line):
    (tmp_path / "empty").mkdir()
    (tmp_path / "book.pdf").write_bytes(b"%PDF")
    with pytest.raises(ValueError, match=line):
        ready(tmp_path / name)


@pytest.mark.parametrize("tokenizer", ["bpe", "character"])
def test_a_line_of_a_megabyte_and_a_short_text_work(tmp_path, tokenizer):
    (tmp_path / "line.txt").write_text("to be or not to be " * 55_000)
    (tmp_path / "word.txt").write_text("ab" * 500_000)
    (tmp_path / "short.txt").write_text("To be.\nOr not\nto be.\n" * 3)
    for name in ("line", "word", "short"):
        data = ready(tmp_path / f"{name}.txt", tokenizer=tokenizer)
        for split in ("train", "validation", "test"):
            (text,) = data.texts[split].values()
            assert data.fitted.decode(data.splits[split].flat.tolist()) == text
            assert len(next(iter(data.batches(split)))["target"]) <= 32


def test_text_of_another_script_is_refused_by_characters_and_read_by_bytes(file):
    other = file.parent / "other.txt"
    other.write_text("दिवाली की शुभकामनाएं\n" * 20)
    trained = ready(file, tokenizer="character")
    with pytest.raises(ValueError, match=r"% of the test texts' characters are not in the vocabulary.*bpe"):
        restored_from(trained, other, tokenizer="character").setup("whole")
    data = restored_from(ready(file), other)
    data.setup("whole")
    assert data.fitted.decode(data.splits["test"].flat.tolist()) == other.read_text()


def restored_from(trained, source, **options):
    data = data_of(source, **options)
    data.load_state_dict(trained.state_dict())
    return data


def test_prompts_are_encoded_one_a_batch(file, tmp_path):
    data = ready(file, tokenizer="character")
    (tmp_path / "p.txt").write_text("Line")
    inputs = data.encode([str(tmp_path / "p.txt")], prompt="text 7")
    assert inputs.names == ["prompt", str(tmp_path / "p.txt")]
    batches = [inputs.examples.gather(index) for index in inputs.examples.plan(8, seed=0, epoch=0, shuffle=False)]
    assert [data.fitted.decode(batch["inputs"][0].tolist()) for batch in batches] == ["text 7", "Line"]
    assert all(batch["inputs"][0, 0] == END for batch in batches)
    with pytest.raises(ValueError, match=r"^prompt: 'Ω' is not in the vocabulary.*--data\.tokenizer bpe"):
        data.encode([], prompt="Lin Ω")
    assert ready(file).encode([], prompt="Ω").names == ["prompt"]


def test_a_character_of_several_tokens_is_spoken_once_it_is_whole(file):
    data = ready(file)
    inputs = data.encode([], prompt="naïve 🎭!")
    tokens = inputs.examples.gather(torch.tensor([0]))["inputs"][0, 1:].tolist()
    assert len(tokens) > len("naïve 🎭!")
    steps = [{"token": torch.tensor([token]), "step": torch.tensor([k])} for k, token in enumerate(tokens)]
    said = [data.spoken(step) for step in steps]
    assert "".join(said) == "naïve 🎭!" * 2 and "" in said  # the prompt, then what is written
    data.encode([], prompt="A")
    assert data.spoken(steps[0]) == "An"


def test_copies_are_measured_in_the_training_texts_alone_while_these_are_there(file):
    data = ready(file)
    answer = restored_from(data, file).answers({"token": tokens_of(data, "xxLine 7 of a text that xx")})
    span = "Line 7 of a text that "
    assert answer == [{"text": f"xx{span}xx", "num_copied_characters": len(span), "longest_copy": span}]
    file.write_text("something else\n" * 50)
    (answer,) = restored_from(data, file).answers({"token": tokens_of(data, "Line")})
    assert answer["num_copied_characters"] is None and "not what it was in training" in answer["longest_copy"]
    file.unlink()
    (answer,) = restored_from(data, file).answers({"token": tokens_of(data, "Line")})
    assert answer["num_copied_characters"] is None and "training texts are gone" in answer["longest_copy"]


def tokens_of(data, text):
    return data.fitted.encode([text])[0][None]


@pytest.mark.parametrize(("key", "value"), [("chunk_tokens", 1), ("num_characters", -1), ("vocabulary_size", 100)])
def test_values_out_of_range_are_named(file, key, value):
    with pytest.raises(ValueError, match=rf"^data\.{key}: expected at least"):
        ready(file, **{key: value})
