"""Tables: numbers and categories, missing and bad values, files of every kind, and the way back."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from workloads.data.tables import Tables

ROWS = [{"age": i, "size": i / 4, "town": "AB"[i % 2], "fate": ["no", "yes"][i % 3 == 0]} for i in range(60)]


def csv(rows):
    return "\n".join([",".join(ROWS[0]), *(",".join(map(str, row.values())) for row in rows)]) + "\n"


@pytest.fixture
def write(tmp_path):
    def write(text, name="pets.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


def ready(source, target="fate", **keys):
    data = Tables(source, target=target, **keys)
    data.setup()
    return data


def all_inputs(data):
    return torch.cat([split.columns["inputs"] for split in data.splits.values()])


@pytest.mark.parametrize(
    ("source", "shape", "output", "num_outputs", "sizes"),
    [
        ("iris", (4,), "multiclass", 3, [105, 15, 30]),
        ("wine", (13,), "multiclass", 3, [124, 18, 36]),
        ("breast_cancer", (30,), "binary", 1, [398, 57, 114]),
        ("diabetes", (10,), "regression", 1, [310, 44, 88]),
    ],
)
def test_embedded_tables_are_standardised_by_training_alone(source, shape, output, num_outputs, sizes):
    data = ready(source, target=None)
    assert (data.input_shape, data.output, data.num_outputs) == (shape, output, num_outputs)
    assert [len(split) for split in data.splits.values()] == sizes
    train = data.splits["train"].columns
    assert train["inputs"].mean(0).abs().max() < 1e-5
    assert (train["inputs"].std(0, unbiased=False) - 1).abs().max() < 1e-5
    assert data.splits["test"].columns["inputs"].mean(0).abs().max() > 1e-3
    if output == "regression":
        assert train["target"].std(unbiased=False) == pytest.approx(1, abs=1e-5)
        assert 70 < data.target_scale < 85  # mg/dl of the whole set: 77.0


def test_iris_copies_are_on_one_side():
    data = ready("iris", target=None)
    rows = [set(map(tuple, split.columns["inputs"].tolist())) for split in data.splits.values()]
    assert len(set().union(*rows)) == sum(map(len, rows)) == 149  # of 150, two are equal


def test_numbers_categories_and_missing_values_by_hand(write):
    train = "x,k,y\n1,red,a\n3,blue,b\n,red,a\n5,,b\n"
    write("x,k,y\n3,green,b\n,blue,a\n", "set/test.csv")
    write("x,k,y\n7,,a\n", "set/validation.csv")
    data = ready(write(train, "set/train.csv").rpartition("/")[0], target="y")
    # x, x is missing | blue, red, missing; mean 3, deviation sqrt(8/3)
    one = 2 / (8 / 3) ** 0.5
    assert [column.name for column in data.features.columns] == ["x", "k"]
    assert data.splits["train"].columns["inputs"].numpy() == pytest.approx(
        np.array([[-one, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0, 1, 0, 1, 0], [one, 0, 0, 0, 1]])
    )
    assert data.splits["test"].columns["inputs"].tolist() == [[0, 0, 0, 0, 0], [0, 1, 1, 0, 0]]
    assert data.splits["validation"].columns["inputs"].numpy() == pytest.approx(np.array([[2 * one, 0, 0, 0, 1]]))
    assert data.splits["test"].columns["target"].tolist() == [1, 0]


def test_every_kind_of_file_gives_the_same_tensors(write, tmp_path):
    expected = ready(write(csv(ROWS)))
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "pets.parquet")
    others = [
        str(tmp_path / "pets.parquet"),
        write("\n".join(map(json.dumps, ROWS)), "pets.jsonl"),
        write(json.dumps(ROWS), "pets.json"),
        write(csv(ROWS).replace(",", ";"), "semicolons.csv"),
        write(csv(ROWS).replace(",", "\t"), "pets.tsv"),
    ]
    for source in others:
        data = ready(source)
        for name, split in expected.splits.items():
            assert torch.equal(data.splits[name].columns["inputs"], split.columns["inputs"]), source
            assert torch.equal(data.splits[name].columns["target"], split.columns["target"]), source


def test_missing_splits_are_cut_from_training(write):
    folder = write(csv(ROWS), "set/train.csv").rpartition("/")[0]
    write(csv(ROWS[:7]), "set/test.csv")
    assert {name: len(split) for name, split in ready(folder).splits.items()} == {
        "train": 52,
        "validation": 8,
        "test": 7,
    }
    whole = ready(folder)
    whole.splits = {}
    whole.setup("whole")
    assert {name: len(split) for name, split in whole.splits.items()} == {"test": 7}


def test_columns_as_categories_ignored_and_constant(write):
    source = write(csv(ROWS).replace("no", "5,no").replace("yes", "5,yes").replace("fate", "same,fate"))
    with pytest.warns(UserWarning, match="left out same, the same in every training row"):
        data = ready(source, categorical=("size",), ignore=("age",))
    assert [column.name for column in data.features.columns] == ["size", "town"]
    assert data.features.columns[0].categories == sorted(data.features.columns[0].categories, key=float)
    assert data.input_shape == (42 + 2,)  # 42 training rows of different size, and two towns


def test_a_subset_is_stratified_and_the_seed_of_the_cut_matters():
    data = ready("iris", target=None, num_examples=60)
    assert [len(split) for split in data.splits.values()] == [42, 6, 12]
    assert torch.bincount(data.splits["train"].columns["target"]).tolist() == [14, 14, 14]
    other = ready("iris", target=None, num_examples=60, split_seed=1)
    assert not torch.equal(all_inputs(data), all_inputs(other))


def test_statistics_survive_a_checkpoint_and_serve_other_data(write, tmp_path):
    data = ready(write(csv(ROWS)))
    torch.save(data.state_dict(), tmp_path / "state")
    other = Tables(write(csv(ROWS[10:20]).replace(",A,", ",C,"), "other.csv"))
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    other.setup("whole")
    age = data.features.columns[0]
    inputs = other.splits["test"].columns["inputs"]
    assert inputs[:, 0].numpy() == pytest.approx((np.arange(10, 20) - age.mean) / age.deviation, rel=1e-5)
    assert inputs[:, 2:].tolist() == [[0, 0], [0, 1]] * 5  # C is unseen, B is known
    assert other.splits["test"].columns["target"].tolist() == [int(i % 3 == 0) for i in range(10, 20)]


def test_a_restored_table_is_cut_as_it_was_in_training(write):
    # "same" is left out of training for being constant there, and yet it tells rows apart when they are cut.
    rows = [f"{i % 9},{'AB'[i % 2]},{int(i == 11)},{['no', 'yes'][i % 3 == 0]}\n" for i in range(30)]
    source = write("age,town,same,fate\n" + "".join(rows))
    with pytest.warns(UserWarning, match="left out same"):
        data = ready(source, split_seed=0)
    other = Tables(source, "fate", split_seed=0)
    other.load_state_dict(data.state_dict())
    other.setup()
    assert all(
        torch.equal(split.columns["inputs"], other.splits[name].columns["inputs"])
        for name, split in data.splits.items()
    )


def test_a_persons_rows_need_no_target_and_are_named(write):
    data = ready(write(csv(ROWS)))
    inputs = data.encode([write("town,size,age\nA,2.5,10\nB,2.75,11\n", "new.csv")])
    assert inputs.names == ["row 1", "row 2"]
    assert torch.equal(
        inputs.examples.columns["inputs"], data.encode([write(csv(ROWS[10:12]))]).examples.columns["inputs"]
    )
    assert data.answers({"probability": torch.tensor([[0.9, 0.1]])})[0]["label"] == "no"
    with pytest.raises(ValueError, match=r"old.csv has no column 'size'; did you mean 'sise'"):
        data.encode([write("town,sise,age\nA,2.5,10\n", "old.csv")])
    with pytest.raises(ValueError, match=r"bad.csv, row 2: column 'age' holds 'old'"):
        data.encode([write("town,size,age\nA,2,3\nA,2,old\n", "bad.csv")])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nan,1,A,no", "pets.csv, row 61: column 'age' holds 'nan', which is not a finite number"),
        ("1,inf,A,no", "pets.csv, row 61: column 'size' holds 'inf'"),
        ("ten,1,A,no", "pets.csv, row 61: column 'age' holds 'ten'"),
        ("1,1,A,", "pets.csv, row 61: the target is missing"),
        ("1,1,A", "pets.csv, row 61: 3 cells, and the header names 4 columns"),
    ],
)
def test_a_bad_row_stops_or_is_skipped(write, line, says):
    source = write(csv(ROWS) + line + "\n")
    with pytest.raises(ValueError, match=says):
        ready(source)
    with pytest.warns(UserWarning, match="1 of 61 rows"):
        data = ready(source, on_error="skip")
    assert data.skipped == 1 and sum(map(len, data.splits.values())) == 60
    source = write(csv(ROWS) + f"{line}\n" * 6)
    with pytest.raises(ValueError, match="6 of 66 rows cannot be used"):
        ready(source, on_error="skip")


def test_computed_infinity_in_parquet_is_refused_and_null_is_missing(tmp_path):
    rows = pa.table({"x": [1.0, None, 3.0, float("inf")] * 10, "y": ["a", "b"] * 20})
    parquet.write_table(rows, tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"row 4: column 'x' holds inf"):
        ready(str(tmp_path / "x.parquet"), target="y")
    parquet.write_table(rows.slice(0, 3), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="3 examples are too few"):
        ready(str(tmp_path / "x.parquet"), target="y")


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ("nan", "row 61: target 'nan' is not a finite"),
        ("n.a.", "row 61: target 'n.a.' is not"),
        ("inf", "target 'inf'"),
    ],
)
def test_a_number_to_predict_has_to_be_finite(write, numbers, says):
    with pytest.raises(ValueError, match=says):
        ready(write(csv(ROWS) + f"1,{numbers},A,no\n"), target="size")


def test_a_class_that_training_lacks_is_named_with_file_and_row(write):
    folder = write(csv(ROWS), "set/train.csv").rpartition("/")[0]
    write(csv(ROWS[:7]) + "1,1,A,maybe\n", "set/test.csv")
    with pytest.raises(ValueError, match=r"test.csv, row 8: target 'maybe' is none of the 2 classes.*: no, yes"):
        ready(folder)


@pytest.mark.parametrize(
    ("text", "keys", "says"),
    [
        (csv(ROWS), {"target": None}, "data.target: name the column .* age, size, town, fate"),
        (csv(ROWS), {"target": "fade"}, "no column 'fade'; did you mean 'fate'"),
        (csv(ROWS), {"ignore": ("agee",)}, "data.ignore: .* no column 'agee'; did you mean 'age'"),
        (csv(ROWS), {"ignore": ("age", "size", "town")}, "no column to predict from"),
        (csv(ROWS[1:3]), {}, "one class only, 'no'"),
        (csv(ROWS[:3]), {}, "3 examples are too few"),
        ("", {}, "no header line"),
        ("a,fate\n", {}, "has no rows"),
        ("a,a,fate\n1,2,no\n", {}, "two columns named 'a'"),
        ("n,fate\n" + "".join(f"id{i},{i % 2}\n" for i in range(300)), {}, "column 'n' has 210 .*--data.ignore n"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(write, text, keys, says):
    with pytest.raises(ValueError, match=says) as error:
        ready(write(text), **keys)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [("pets.bin", "is not a table; expected one of .csv"), ("pets.parquet", "cannot be read as parquet")],
)
def test_a_file_that_is_no_table(write, name, says):
    with pytest.raises(ValueError, match=says):
        ready(write("abc", name))


def test_an_empty_folder_and_a_mistyped_name(tmp_path):
    with pytest.raises(ValueError, match="has no table in it"):
        ready(str(tmp_path))
    with pytest.raises(ValueError, match="nearest: iris"):
        ready("irsi")


def test_folder_files_have_the_same_columns(write):
    folder = write(csv(ROWS), "set/train.csv").rpartition("/")[0]
    write("age,size,fate\n1,2,no\n", "set/test.csv")
    with pytest.raises(ValueError, match=r"test.csv has no column 'town'"):
        ready(folder)
