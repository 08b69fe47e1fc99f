"""Rows of CSV, Parquet and JSON files, columns at a time, each with the file and row it came from."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from workloads.data._sources import Rejects, hugging_face, load_hub
from workloads.data._splits import SPLITS
from workloads.data._targets import listed

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".json")

MISSING = ("", "NA", "N/A", "n/a", "null", "NULL", "None", "?")
"""Texts that stand for no value. ``nan`` is none of them: it is what a calculation gave that failed."""


@dataclass(frozen=True)
class Rows:
    """Rows of one or several files.

    Args:
        table: Their columns.
        files: Names of the files.
        file_N: Which of ``files`` each row is in, shape (N,).
        number_N: Its number in that file, from 1, header not counted, shape (N,).
    """

    table: "pa.Table"
    files: list[str]
    file_N: np.ndarray
    number_N: np.ndarray

    def __len__(self) -> int:
        return self.table.num_rows

    def take(self, index: np.ndarray) -> Self:
        """The rows at ``index``, in that order."""
        return type(self)(self.table.take(index), self.files, self.file_N[index], self.number_N[index])

    def column(self, name: str, key: str = "") -> "pa.ChunkedArray":
        """The column of that name.

        Args:
            name: The column.
            key: Key of the config that names it, if one does.

        Raises:
            ValueError: There is no such column; names the nearest.
        """
        columns = self.table.column_names
        if name in columns:
            return self.table[name]
        near = difflib.get_close_matches(name, columns, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {listed(columns)}"
        raise ValueError(f"{f'data.{key}: ' if key else ''}{self.files[0]} has no column {name!r}; {hint}")

    def where(self, i: int) -> tuple[str, int]:
        """File and row number of row i."""
        return self.files[self.file_N[i]], int(self.number_N[i])

    @classmethod
    def of(cls, table: "pa.Table", file: str, number_N: np.ndarray | None = None) -> Self:
        """All rows of one file."""
        number_N = np.arange(1, table.num_rows + 1) if number_N is None else number_N
        return cls(table, [file], np.zeros(table.num_rows, dtype=np.int32), number_N)

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        """The rows of all parts.

        Raises:
            ValueError: A part lacks a column that another has, or holds another type of value in it.
        """
        import pyarrow as pa

        names = set(parts[0].table.column_names)
        for part in parts[1:]:
            for name in names ^ set(part.table.column_names):
                lacks, has = (part, parts[0]) if name in names else (parts[0], part)
                raise ValueError(f"{lacks.files[0]} has no column {name!r}, and {has.files[0]} has one")
        try:
            table = pa.concat_tables([part.table for part in parts], promote_options="permissive")
        except pa.ArrowInvalid as error:
            files = ", ".join(part.files[0] for part in parts)
            raise ValueError(f"the columns of {files} differ in type ({_line(error)})") from None
        starts = np.cumsum([0, *(len(part.files) for part in parts[:-1])])
        file_N = np.concatenate([part.file_N + start for part, start in zip(parts, starts, strict=True)])
        files = [file for part in parts for file in part.files]
        return cls(table, files, file_N, np.concatenate([part.number_N for part in parts]))


def read_splits(where: Literal["path", "hub"], name: str, revision: str | None, rejects: Rejects) -> dict[str, Rows]:
    """Read what a ``--data.source`` names, once :func:`~workloads.data._sources.resolve` has told its kind.

    Returns:
        Those of train, validation and test that there are; a source without splits is its one part.

    Raises:
        ValueError: Nothing there can be read as a table, or it has splits and none to train on.
    """
    rows = read_path(name, rejects) if where == "path" else read_hub(name, revision)
    if len(rows) > 1 and "train" not in rows:
        raise ValueError(f"{name} has the splits {', '.join(rows)}, and no train among them")
    # Sets of the hub may have splits beyond the three, e.g. rows without a target.
    return {split: rows[split] for split in SPLITS if split in rows} or rows


def read_path(path: str, rejects: Rejects) -> dict[str, Rows]:
    """Read a file, or a folder of files under the naming conventions of Hugging Face ``datasets``.

    Args:
        path: File, or folder with e.g. ``train.csv`` and ``test.csv``; ``data/train-00000-of-00002.parquet`` works too.
        rejects: Told of rows with too few or too many cells.

    Returns:
        Name of the split (``train`` where there is only one) to its rows.

    Raises:
        ValueError: Nothing there can be read as a table; names the file.
    """
    if not Path(path).is_dir():
        return {"train": read_file(path, rejects)}
    files = hugging_face().data_files
    try:
        patterns = files.get_data_patterns(path)
    except files.EmptyDatasetError:
        patterns = {}
    found = files.DataFilesDict.from_patterns(patterns, base_path=path) if patterns else {}
    found = {str(split): [f for f in map(str, names) if f.endswith(SUFFIXES)] for split, names in found.items()}
    found = {split: names for split, names in found.items() if names}
    if not found:
        raise ValueError(f"{path} has no table in it; expected one of {', '.join(SUFFIXES)}, or train.csv and test.csv")
    return {split: Rows.join([read_file(name, rejects) for name in names]) for split, names in found.items()}


def read_hub(name: str, revision: str | None) -> dict[str, Rows]:
    """Read a set of the Hugging Face hub; see :func:`workloads.data._sources.load_hub`."""
    splits = load_hub(name, revision)
    return {
        str(split): Rows.of(data.with_format("arrow")[:], f"hf://{name} ({split})") for split, data in splits.items()
    }


def read_file(path: str, rejects: Rejects) -> Rows:
    """Read one CSV, TSV, Parquet, JSONL or JSON file.

    All cells of a CSV file are text here, so that whoever knows what a column is for can say which row is at fault.

    Args:
        path: The file.
        rejects: Told of rows with too few or too many cells.

    Raises:
        ValueError: No such file, or it is not a table of that kind; names the file.
    """
    import pyarrow as pa
    from pyarrow import parquet

    suffix = Path(path).suffix.lower()
    if not Path(path).is_file():
        raise ValueError(f"no file {path}")
    if suffix not in SUFFIXES:
        raise ValueError(f"{path} is not a table; expected one of {', '.join(SUFFIXES)}")
    try:
        if suffix == ".parquet":
            rows = Rows.of(parquet.read_table(path), path)
        elif suffix in (".jsonl", ".json"):
            rows = Rows.of(_read_json(path), path)
        else:
            rows = _read_csv(path, rejects)
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise ValueError(f"{path} cannot be read as {suffix[1:]} ({_line(error)})") from None
    columns = rows.table.column_names
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has two columns named {twice[0]!r}; rename one")
    if len(rows) == 0:
        raise ValueError(f"{path} has no rows")
    return rows


def _read_csv(path: str, rejects: Rejects) -> Rows:
    from csv import reader

    import pyarrow as pa
    from pyarrow import csv

    with open(path, encoding="utf-8-sig") as lines:
        header = lines.readline()
    if not header.strip():
        raise ValueError(f"{path} has no header line; the first line names the columns")
    # datasets.load_dataset would fill short rows with nothing and turn a column of numbers with one slip in it into
    # text; Arrow's own reader names the row, and needs a tenth of the time.
    delimiter = max(",;\t", key=header.count)
    names = next(reader([header], delimiter=delimiter))
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=list(MISSING), strings_can_be_null=True
    )
    try:
        table = csv.read_csv(path, parse_options=csv.ParseOptions(delimiter=delimiter), convert_options=convert)
        return Rows.of(table, path)
    except pa.ArrowInvalid:
        return _read_ragged_csv(path, delimiter, convert, rejects)


def _read_ragged_csv(path: str, delimiter: str, convert: Any, rejects: Rejects) -> Rows:
    """Read in one thread, which knows row numbers, and with line breaks and any length in cells, which costs time."""
    from pyarrow import csv

    bad: dict[int, str] = {}

    def handle(row: Any) -> str:
        number = row.number - 1  # the header is row 1
        bad[number] = f"{row.actual_columns} cells, and the header names {row.expected_columns} columns"
        return "skip"

    table = csv.read_csv(
        path,
        read_options=csv.ReadOptions(use_threads=False, block_size=_whole(path)),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=handle),
        convert_options=convert,
    )
    for number, fault in bad.items():
        rejects.reject(path, number, fault)
    return Rows.of(table, path, np.setdiff1d(np.arange(1, table.num_rows + len(bad) + 1), list(bad)))


def _read_json(path: str) -> "pa.Table":
    import json

    import pyarrow as pa
    from pyarrow import json as arrow_json

    with open(path, encoding="utf-8") as file:
        is_list = file.read(4096).lstrip().startswith("[")
    if not is_list:
        try:
            return arrow_json.read_json(path)
        except pa.ArrowInvalid:  # at fault, or a line longer than a block
            return arrow_json.read_json(path, arrow_json.ReadOptions(block_size=_whole(path)))
    try:
        return pa.Table.from_pylist(json.loads(Path(path).read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a list of JSON objects ({_line(error)})") from None


def _whole(path: str) -> int:
    """A size for Arrow's blocks that takes all of a file at once, or as much as Arrow can."""
    return min(max(1 << 20, Path(path).stat().st_size), (1 << 31) - 1)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
