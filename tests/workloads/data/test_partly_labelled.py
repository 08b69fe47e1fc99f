"""Images of which some have labels, or none, or that leave a class out; and the epochs that they make."""

import numpy as np
import torch
from PIL import Image
from real_digits import DIGITS, PIXELS, refusal, write_metadata

from workloads.data._batches import Batches, InMemory, plan_over_and_over
from workloads.data.images import Images


def flat(root, rows):
    root.mkdir(parents=True, exist_ok=True)
    for i in rows:
        Image.fromarray(PIXELS[i]).save(root / f"{i:04}.png")
    return root


def test_a_folder_without_classes_will_do_where_labels_are_optional(tmp_path):
    folder = flat(tmp_path / "photos", range(60))
    data = Images(str(folder), labels="optional")
    data.setup()
    assert data.num_classes == 0 and data.output == "none" and data.metric is None
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 42, "validation": 6, "test": 12}
    assert (data.splits["train"].columns["target"] == -1).all() and data.splits["train"].labelled is None
    assert "is in no class's folder" in refusal(Images(str(folder)))


def test_images_without_a_label_are_trained_on_and_never_judged_by(tmp_path):
    lines = [(f"{i:04}.png", DIGITS.target[i] if i % 4 == 0 else "") for i in range(240)]
    folder = write_metadata(tmp_path / "some", range(240), ("file_name", "label"), lines)
    data = Images(str(folder), labels="optional")
    data.setup()
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes == {"train": 180 + 42, "validation": 6, "test": 12}
    for name in ("validation", "test"):
        assert (data.splits[name].columns["target"] >= 0).all()
    train = data.splits["train"]
    assert torch.equal(train.labelled, torch.nonzero(train.columns["target"] >= 0)[:, 0]) and len(train.labelled) == 42
    assert "the target is missing" in refusal(Images(str(folder)))


def test_a_mistyped_column_of_labels_is_refused_also_where_they_are_optional(tmp_path):
    folder = write_metadata(tmp_path / "m", range(40), ("file_name", "kind"), [(f"{i:04}.png", "a") for i in range(40)])
    assert "no column 'knd'" in refusal(Images(str(folder), labels="optional", label_column="knd"))
    data = Images(str(folder), labels="optional")
    data.setup()
    assert data.num_classes == 0


def test_a_few_labels_are_drawn_with_each_class_s_share():
    data, other = (Images("digits", num_labelled=100, split_seed=seed) for seed in (0, 1))
    for one in (data, other):
        one.setup()
    train = data.splits["train"]
    assert len(train) == 1258 and len(train.labelled) == 100
    assert set(train.columns["target"][train.labelled].bincount().tolist()) <= {9, 10, 11}
    assert not torch.equal(train.labelled, other.splits["train"].labelled)


def test_the_first_epochs_hand_out_all_images_and_later_ones_the_labelled_over_and_over():
    examples = InMemory({"number": torch.arange(50)})
    examples.labelled, examples.unlabelled_epochs = torch.tensor([3, 7, 11, 19]), 2
    batches = Batches(examples, 8, seed=5, shuffle=True)
    epochs = [torch.cat([batch["number"] for batch in batches]) for _ in range(4)]
    for epoch in epochs[:2]:
        assert epoch.sort().values.tolist() == list(range(50))
    for epoch in epochs[2:]:
        counts = np.unique(epoch.numpy(), return_counts=True)
        assert counts[0].tolist() == [3, 7, 11, 19] and counts[1].sum() == 50 and set(counts[1]) <= {12, 13}
    assert not torch.equal(epochs[2], epochs[3])
    halves = [Batches(examples, 8, seed=5, shuffle=True, rank=r, world_size=2) for r in range(2)]
    for _ in range(2):
        for half in halves:
            list(half)
    for k, (one, two) in enumerate(zip(*halves, strict=True)):
        assert sorted([*one["number"].tolist(), *two["number"].tolist()]) == sorted(
            plan_over_and_over(examples.labelled, 50, 8, seed=5, epoch=2)[k].tolist()
        )


def test_a_class_that_is_left_out_is_in_the_test_alone():
    data = Images("digits", labels="optional", leave_out="8")
    data.setup()
    for name, there in (("train", False), ("validation", False), ("test", True)):
        assert (data.splits[name].columns["target"] == 8).any() == there
    assert "data.leave_out: no class 'ten'; there are: 0, 1, 2" in refusal(Images("digits", leave_out="ten"))


def test_epochs_without_labels_must_leave_one_with(tmp_path, raydeck):
    _, err = raydeck(
        "train", "stacked_autoencoder", "--smoke", "--trainer.max_epochs", "4", "--storage", tmp_path / "runs", code=2
    )
    assert "data.unlabelled_epochs: 4 of 4 epochs leave none with labels; set --trainer.max_epochs to at least 5" in err
    assert not (tmp_path / "runs").exists()


def test_two_images_are_too_few(tmp_path):
    folder = flat(tmp_path / "two", range(2))
    assert "2 examples are too few to cut into train, validation, test" in refusal(
        Images(str(folder), labels="optional")
    )
