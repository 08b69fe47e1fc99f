"""Real digits as files, and what a data module makes of them: shared by the tests of image data."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

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


def everything(data: Images) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of all splits, end to end."""
    found = [split.gather(torch.arange(len(split))) for split in data.splits.values()]
    return tuple(torch.cat([part[name] for part in found]).numpy() for name in ("inputs", "target"))


def refusal(data: Images, whole: bool = False) -> str:
    with pytest.raises(ValueError) as told:
        data.setup("whole" if whole else None)
    assert "\n" not in str(told.value)
    return str(told.value)
