"""Rows of files: each knows the file and row it came from."""

import pytest

from workloads.data._rows import read_file, read_path
from workloads.data._sources import Rejects


def test_rows_keep_their_numbers_when_others_are_skipped(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,2\n3\n"x\ny",5\n6,7,8\n9,10\n')
    rejects = Rejects("skip")
    rows = read_file(str(path), rejects)
    assert rows.table.to_pydict() == {"a": ["1", "x\ny", "9"], "b": ["2", "5", "10"]}
    assert [rows.where(i) for i in range(3)] == [(str(path), 1), (str(path), 3), (str(path), 5)]
    assert rejects.count == 2 and "row 2: 1 cells" in rejects.reasons[0] and "row 4: 3 cells" in rejects.reasons[1]


def test_shards_are_joined_and_keep_their_own_row_numbers(tmp_path):
    for k in range(2):
        (tmp_path / f"train-0000{k}-of-00002.csv").write_text(f"a\n{k}0\n{k}1\n")
    (tmp_path / "README.md").write_text("a set")
    rows = read_path(str(tmp_path), Rejects("stop"))["train"]
    assert rows.table["a"].to_pylist() == ["00", "01", "10", "11"]
    assert rows.take([3]).where(0) == (str(tmp_path / "train-00001-of-00002.csv"), 2)


def test_missing_texts_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("\ufeffa,b\nNA,\nnan,?\n".encode())
    assert read_file(str(path), Rejects("stop")).table.to_pydict() == {"a": [None, "nan"], "b": [None, None]}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", '[{"a": 1}, 5]', "a.json"),
        ("a.json", "[1", "is not a list of JSON objects"),
        ("a.jsonl", '{"a": 1}\n{"a": "x"}\n', "changed from number to string in row 1"),
        ("a.csv", b"a,b\n\xe9,1\n", "cannot be read as csv"),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, text, says):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=says) as error:
        read_file(str(tmp_path / name), Rejects("stop"))
    assert name in str(error.value) and "\n" not in str(error.value)
