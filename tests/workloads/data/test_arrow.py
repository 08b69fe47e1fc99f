"""Memory-mapped Arrow files: equal to memory, whole or made again."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from workloads.data._arrow import Mapped, Table, cached, write
from workloads.data._batches import Batches, InMemory


def columns(num_rows: int, first: int = 0) -> dict[str, np.ndarray]:
    row = np.arange(first, first + num_rows)
    return {"inputs": (row[:, None, None] * 7 + np.arange(6).reshape(2, 3)).astype(np.uint8), "row": row}


def parts():
    yield columns(10)
    yield columns(1, first=10)
    yield columns(12, first=11)


def test_columns_come_back_with_shape_and_type(tmp_path):
    write(tmp_path / "a.arrow", parts())
    table = Table(tmp_path / "a.arrow")
    expected = columns(23)
    assert len(table) == 23
    for name, values in expected.items():
        assert table.column(name).dtype == values.dtype
        np.testing.assert_array_equal(table.column(name), values)
    assert table.row_bytes("inputs") == 6


def test_rows_are_taken_in_the_order_asked_across_parts(tmp_path):
    write(tmp_path / "a.arrow", parts())
    rows = np.array([22, 0, 10, 11, 9, 9, 5])
    np.testing.assert_array_equal(Table(tmp_path / "a.arrow").take("inputs", rows), columns(23)["inputs"][rows])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident file pages are read from Linux's /proc")
def test_what_was_read_does_not_stay_resident(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (48, 1 << 20), dtype=np.uint8)
    write(tmp_path / "a.arrow", [{"inputs": values}])
    table, before = Table(tmp_path / "a.arrow"), mapped_mib()
    for start in range(0, 48, 8):
        np.testing.assert_array_equal(table.take("inputs", np.arange(start, start + 8)), values[start : start + 8])
    assert mapped_mib() - before < 8  # of 48


def test_a_file_cut_short_while_in_use_is_told(tmp_path):
    write(tmp_path / "a.arrow", [{"inputs": np.ones((100, 4096), dtype=np.uint8)}])
    table = Table(tmp_path / "a.arrow")
    os.truncate(tmp_path / "a.arrow", 4096 * 50)
    with pytest.raises(OSError, match="cut short while in use"):
        table.take("inputs", np.array([0, 99]))


def mapped_mib() -> float:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile")]
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("shuffle", [False, True])
def test_mapped_batches_equal_those_in_memory(tmp_path, shuffle):
    write(tmp_path / "a.arrow", parts())
    rows = np.array([20, 1, 12, 5, 7, 9, 10, 11, 0])
    target = torch.arange(9)
    mapped = Mapped(Table(tmp_path / "a.arrow"), "inputs", rows, {"target": target})
    memory = InMemory({"inputs": torch.from_numpy(columns(23)["inputs"][rows]), "target": target})
    assert len(mapped) == len(memory)
    assert mapped.num_bytes == memory.num_bytes
    for a, b in zip(*(Batches(x, 4, seed=3, shuffle=shuffle) for x in (mapped, memory)), strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


def test_a_batch_may_be_written_to(tmp_path):
    write(tmp_path / "a.arrow", parts())
    mapped = Mapped(Table(tmp_path / "a.arrow"), "inputs", np.arange(23), {})
    mapped.gather(torch.tensor([3]))["inputs"].zero_()
    np.testing.assert_array_equal(mapped.gather(torch.tensor([3]))["inputs"].numpy(), columns(23)["inputs"][3:4])


def test_a_file_that_fails_half_way_leaves_nothing(tmp_path):
    def failing():
        yield columns(3)
        raise ValueError("the source ends here")

    with pytest.raises(ValueError, match="the source ends here"):
        write(tmp_path / "a.arrow", failing())
    assert list(tmp_path.iterdir()) == []


def counted(calls: list[str], notes: list[str]):
    calls.append("made")
    yield columns(23)
    notes.append("row 4 is bad")


def test_a_whole_file_is_not_made_again_and_its_notes_are_kept(tmp_path):
    calls = []
    for _ in range(2):
        notes = []
        table = cached(tmp_path / "new" / "a.arrow", counted(calls, notes), notes, "")
        assert notes == ["row 4 is bad"]
        assert len(table) == 23
    assert calls == ["made"]


@pytest.mark.parametrize("damage", ["flipped byte", "cut short", "emptied", "no record", "broken record"])
def test_a_damaged_file_is_told_and_made_again(tmp_path, damage):
    path, record, calls = tmp_path / "a.arrow", tmp_path / "a.json", []
    cached(path, counted(calls, []), [], "")
    content = bytearray(path.read_bytes())
    if damage == "flipped byte":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut short":
        path.write_bytes(content[:-100])
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text('{"sha256"')
    with pytest.warns(UserWarning, match=r"a\.arrow is damaged or incomplete; it is made again"):
        table = cached(path, counted(calls, []), [], "")
    assert calls == ["made", "made"]
    np.testing.assert_array_equal(table.column("inputs"), columns(23)["inputs"])


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"data\.cache_dir: .*file.* cannot be written .* raise data\.memory_limit"):
        cached(tmp_path / "file" / "images" / "a.arrow", parts(), [], "raise data.memory_limit")
