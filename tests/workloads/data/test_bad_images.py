"""Bad images, labels and folders: one line that names the fault."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_digits import DIGITS, PIXELS, everything, refusal, write_classes, write_metadata

from workloads.data.images import Images


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


def known(images) -> Images:
    data = images("digits")
    target = {"output": "binary", "classes": ["a", "b"], "mean": 0.0, "scale": 1.0}
    data.load_state_dict({"target": target, "side": 8, "channels": 1})
    return data


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
        known(images).encode([str(tmp_path / "a.png")])
