"""Texts in the column of a table, and what a person gives to ``raydeck predict``: words, or files with texts in them.

Shapes: N texts.
"""

import os
from pathlib import Path

import numpy as np

from workloads.data._rows import SUFFIXES, Rows, read_file
from workloads.data._sources import Rejects


def texts_in(rows: Rows, column: str) -> np.ndarray:
    """The texts of rows, shape (N,), dtype object; None where one is missing.

    Raises:
        ValueError: There is no such column, or it holds something else.
    """
    from pyarrow import types

    texts = rows.column(column, "text_column")
    kind = texts.type.value_type if types.is_dictionary(texts.type) else texts.type
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        raise ValueError(f"data.text_column: column {column!r} of {rows.files[0]} holds {kind}, which is not text")
    return texts.to_numpy(zero_copy_only=False)


def is_blank(text: str | None) -> bool:
    """Whether there is no text, or nothing but spaces."""
    return not text or text.isspace()


def texts_of(given: str, column: str, named: bool) -> list[tuple[str, str]]:
    """What to call each text that an input of ``raydeck predict`` stands for, and the text.

    Raises:
        ValueError: The input is empty, or a file that is missing or cannot be read; names the line.
    """
    suffix = os.path.splitext(given)[1].lower()
    if not os.path.isfile(given):  # not Path, which raises where a sentence is too long to be a name
        if suffix in (*SUFFIXES, ".txt") and len(given.split()) == 1:
            raise ValueError(f"no file {given}")
        if os.path.isdir(given):
            raise ValueError(f"{given} is a folder; give a file of it, or words")
        if is_blank(given):
            raise ValueError("an input is empty; give words, or a file with a text in each line")
        return [(given, given)]
    prefix = f"{given} " if named else ""
    if suffix in SUFFIXES:
        rows = read_file(given, Rejects("stop"))
        texts = texts_in(rows, column).tolist()
        found = {f"{prefix}row {number}": text for number, text in zip(rows.number_N.tolist(), texts, strict=True)}
        for name, text in found.items():
            if is_blank(text):
                raise ValueError(f"{given}, row {name.rpartition(' ')[2]}: the text is empty")
        return list(found.items())
    content = Path(given).read_bytes()
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{given}, line {line}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    found = {f"{prefix}line {number}": text for number, text in enumerate(lines, start=1) if not is_blank(text)}
    if not found:
        raise ValueError(f"{given} has no text in it")
    return list(found.items())
