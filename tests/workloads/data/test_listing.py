"""What a source holds, before anything is decoded."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from workloads.data._listing import files_under, of_dataset
from workloads.data._pictures import Form, decode

DIGITS = load_digits()
PIXELS = (DIGITS.images * 15).astype(np.uint8)


def as_png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


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


def test_a_hub_set_of_other_splits_or_without_pictures_is_told_so():
    import datasets

    rows = datasets.Dataset.from_dict({"label": [0, 1]})
    with pytest.raises(ValueError, match="hf://a/b has no split train, validation or test, but: all"):
        of_dataset(datasets.DatasetDict({"all": rows}), "hf://a/b", "label", "auto")
    with pytest.raises(ValueError, match="hf://a/b has no column of images, but: label"):
        of_dataset(datasets.DatasetDict({"train": rows}), "hf://a/b", "label", "auto")


def test_hidden_files_are_passed_over_and_the_rest_is_sorted(tmp_path):
    for name in ("b/2.png", "b/1.png", "a/.thumb.png", ".cache/3.png", "__MACOSX/b/1.png", "a/x/4.PNG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = files_under(str(tmp_path), lambda name: name.lower().endswith(".png"))
    assert found == [str(tmp_path / name) for name in ("a/x/4.PNG", "b/1.png", "b/2.png")]
