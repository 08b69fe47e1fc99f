"""Examples larger than memory: an Arrow file of fixed-shape columns, memory-mapped, read a whole batch at a time.

Shapes: N rows of a file, B rows of a batch.
"""

import hashlib
import json
import mmap
import os
import tempfile
import warnings
import weakref
from collections.abc import Iterable
from itertools import repeat
from pathlib import Path

import filelock
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from workloads.data._batches import Batch, Examples

Columns = dict[str, np.ndarray]
"""Column name to an array whose first dimension is the row."""


class Table:
    """An Arrow IPC file of fixed-shape columns, memory-mapped: what is not read is not in memory.

    Args:
        path: A file that :func:`write` made.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._map = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
        start = np.frombuffer(self._map, dtype=np.uint8).ctypes.data
        reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(self._map)))
        parts = [reader.get_batch(k) for k in range(reader.num_record_batches)]
        self._first = np.cumsum([0, *(part.num_rows for part in parts)])
        self._views = {field.name: [_view(part.column(field.name), field) for part in parts] for field in reader.schema}
        # Where in the file each part of a column begins.
        self._starts = {name: np.array([v.ctypes.data - start for v in views]) for name, views in self._views.items()}

    def __len__(self) -> int:
        return int(self._first[-1])

    def column(self, name: str) -> np.ndarray:
        """A copy of a whole column."""
        whole = np.concatenate(self._views[name])
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)  # else its pages would count as this process's memory from now on
        return whole

    def row_bytes(self, name: str) -> int:
        """Bytes of one row of a column."""
        return self._views[name][0][0].nbytes

    def take(self, name: str, rows_B: np.ndarray) -> np.ndarray:
        """Copy rows of a column, in the order given.

        They are read into place from where the map says they are. Copying them out of the map instead lets one fault
        bring in megabytes around a row: resident memory grows to the size of the file, and giving those pages back
        after each batch takes twice as long as reading.

        Raises:
            OSError: The file has been cut short since it was opened.
        """
        part_B = np.searchsorted(self._first, rows_B, side="right") - 1
        like = self._views[name][0]
        taken = np.empty((len(rows_B), *like.shape[1:]), dtype=like.dtype)
        row_bytes = self.row_bytes(name)
        offset_B = self._starts[name][part_B] + (rows_B - self._first[part_B]) * row_bytes
        places = zip(taken.view(np.uint8).reshape(len(rows_B), row_bytes), strict=True)
        if sum(map(os.preadv, repeat(self._descriptor), places, offset_B.tolist())) != taken.nbytes:
            raise OSError("a file of decoded examples has been cut short while in use")
        return taken


def _view(column: pa.FixedSizeBinaryArray, field: pa.Field) -> np.ndarray:
    """A column's bytes as an array, without a copy."""
    layout = json.loads(field.metadata[b"layout"])
    values = np.frombuffer(column.buffers()[1], dtype=np.uint8, count=len(column) * column.type.byte_width)
    return values.view(layout["dtype"]).reshape(len(column), *layout["shape"])


class Mapped(Examples):
    """A split that stays on disk but for small columns; interchangeable with ``InMemory``.

    Args:
        table: The file.
        name: Its column that is handed out.
        rows: Rows of the file that make up the split, shape (N,).
        columns: Further columns, held in memory, of N examples.
    """

    def __init__(self, table: Table, name: str, rows: np.ndarray, columns: Batch) -> None:
        self.table, self.name, self.rows, self.columns = table, name, rows, columns
        self.num_bytes = len(rows) * table.row_bytes(name) + sum(column.nbytes for column in columns.values())

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, index: Tensor) -> Batch:
        taken = torch.from_numpy(self.table.take(self.name, self.rows[index.numpy()]))
        return {self.name: taken, **{name: column[index] for name, column in self.columns.items()}}


def write(path: Path, parts: Iterable[Columns]) -> None:
    """Write columns as they come; the file appears under its name only once it is whole.

    Args:
        path: File to write.
        parts: One after another, some rows of all columns; shapes (but for the number of rows) and types agree. There
            is at least one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            writer = None
            for part in parts:
                schema = pa.schema([_field(name, values) for name, values in part.items()])
                writer = writer or pa.ipc.new_file(file, schema)
                arrays = [_array(values, field.type) for values, field in zip(part.values(), schema, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
            assert writer is not None, "no parts"
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)


def _field(name: str, values: np.ndarray) -> pa.Field:
    width = values.dtype.itemsize * int(np.prod(values.shape[1:]))
    layout = {"dtype": values.dtype.str, "shape": values.shape[1:]}
    return pa.field(name, pa.binary(width), nullable=False, metadata={"layout": json.dumps(layout)})


def _array(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def cached(path: Path, parts: Iterable[Columns], notes: list[str], mend: str) -> Table:
    """Open a file that can be made again, or make it: when it is missing, cut short or altered.

    Beside it lies a JSON file with its SHA-256, which is checked at each opening, and its notes.

    Args:
        path: Where the file is kept. Its name stands for all that its content depends on.
        parts: What :func:`write` takes; not begun when the file is there and whole.
        notes: What making the file has to say; the maker appends to it, and a later opening finds it filled alike.
        mend: What the user can do where the folder cannot be written.

    Raises:
        ValueError: The folder cannot be written.
    """
    record = path.with_suffix(".json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several workers of one machine start together: one makes the file, the others find it.
        with filelock.FileLock(path.with_suffix(".lock")):
            known = _intact(path, record)
            if known is None:
                before = len(notes)
                write(path, parts)
                known = {"sha256": _sha256(path), "notes": notes[before:]}
                _write_json(record, known)
            else:
                notes.extend(known["notes"])
            return Table(path)
    except OSError as error:
        raise ValueError(
            f"data.cache_dir: {path.parent} cannot be written ({error.strerror or error}); {mend}"
        ) from None


def _intact(path: Path, record: Path) -> dict | None:
    """The record of a file that agrees with it, or None."""
    if not path.exists():
        return None
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["sha256"] == _sha256(path):
            return known
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no readable record is as good as a wrong one
    warnings.warn(f"{path} is damaged or incomplete; it is made again", stacklevel=3)
    return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, value: dict) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(value), encoding="utf-8")
    os.replace(partial, path)
