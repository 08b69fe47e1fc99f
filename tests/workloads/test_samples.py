"""What made pictures are judged by: Fréchet distance by torchmetrics, neighbours by hand, and a judge that is kept."""

import pytest
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from workloads._judge import judge_of
from workloads._samples import Samples, compare, frechet_distance, nearest, precision_recall, scores
from workloads.data.images import Images


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    data = Images("digits", labels="optional", cache_dir=str(tmp_path_factory.mktemp("cache")))
    data.setup()
    return data


class Few(nn.Module):
    """Six features of pictures."""

    def forward(self, pictures):
        return pictures.float().flatten(1)[:, :6] / 50


def test_frechet_distance_is_that_of_torchmetrics():
    torch.manual_seed(0)
    pictures = [torch.randint(0, 256, (300, 3, 4, 4), dtype=torch.uint8) for _ in range(2)]
    pictures[1] = pictures[1] // 2
    theirs = FrechetInceptionDistance(feature=Few(), input_img_size=(3, 4, 4))
    for real, some in zip((True, False), pictures, strict=True):
        theirs.update(some, real=real)
    ours = frechet_distance(*(Few()(some) for some in pictures))
    assert ours == pytest.approx(theirs.compute().item(), rel=1e-4)


def test_frechet_distance_of_shifted_and_scaled_sets_by_hand():
    some = torch.randn(500, 4, dtype=torch.float64)
    assert frechet_distance(some, some) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(some, some + 2) == pytest.approx(16, rel=1e-9)
    # Of a set and thrice of it: the mean moves by 2 m, each standard deviation s by 2 s.
    expected = (2 * some.mean(dim=0)).square().sum() + 4 * some.T.cov().trace()
    assert frechet_distance(some, 3 * some) == pytest.approx(expected.item(), rel=1e-9)


def test_precision_and_recall_tell_what_is_off_from_what_is_missing():
    torch.manual_seed(0)
    here, there = torch.randn(300, 2), torch.randn(300, 2) + 100
    both = torch.cat([here, there])
    precision, recall = precision_recall(torch.randn(300, 2), both)  # good samples of one half alone
    assert precision > 0.9 and 0.4 < recall < 0.55
    precision, recall = precision_recall(torch.cat([torch.randn(300, 2), torch.randn(300, 2) - 50]), here)
    assert 0.4 < precision < 0.55 and recall > 0.9


def test_nearest_is_the_distance_to_the_closest():
    others = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    pictures = torch.tensor([51, 102], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    assert nearest(pictures, others).tolist() == pytest.approx([0.0, 0.4], abs=1e-3)


def test_the_judge_knows_digits_and_is_trained_once(digits):
    judge = judge_of(digits)
    test = digits.splits["test"].gather(torch.arange(len(digits.splits["test"])))
    assert (judge.classes(test["inputs"]) == test["target"]).float().mean() > 0.95
    (kept,) = (digits.cache_dir / "judges").glob("*.ckpt")
    written = kept.stat().st_mtime_ns
    again = judge_of(digits)
    assert kept.stat().st_mtime_ns == written
    assert torch.equal(again.features(test["inputs"]), judge.features(test["inputs"]))


def test_real_digits_score_far_better_than_noise_and_copies_and_collapse_are_told(digits):
    validation = digits.splits["validation"].gather(torch.arange(len(digits.splits["validation"])))["inputs"]
    train = digits.splits["train"].gather(torch.arange(len(validation)))["inputs"]
    noise = torch.randint(0, 256, validation.shape, dtype=torch.uint8)
    found = {name: scores(digits, "test", {"picture": some}) for name, some in (("real", validation), ("noise", noise))}
    assert found["real"]["frechet_distance"] < found["noise"]["frechet_distance"] / 5
    assert found["real"]["precision"] > 0.8 and found["noise"]["recall"] < 0.2 < found["real"]["recall"]
    assert found["real"]["smallest_share"] > 0.05 and found["real"]["copied"] < 0.1
    copies = scores(digits, "test", {"picture": train})
    assert copies["copied"] == 1.0 and any("memorises" in concern for concern in digits.concerns)
    one = digits.splits["train"].columns["inputs"][digits.splits["train"].columns["target"] == 3]
    alike = scores(digits, "test", {"picture": one})
    assert alike["largest_share"] > 0.9 and any("collapsed" in concern for concern in digits.concerns)


def test_two_pictures_are_too_few(tmp_path):
    with pytest.raises(ValueError, match="2 pictures in a split are too few to compare samples with"):
        compare(torch.randn(2, 4), torch.randn(10, 4))


def test_classes_are_asked_for_by_name(digits):
    inputs = Samples(digits).encode(["3", "7"], num_samples=5)
    assert inputs.examples.columns["target"].tolist() == [3, 7, 3, 7, 3]
    assert inputs.names[1] == "sample 2 (7)"
    assert Samples(digits).encode([], num_samples=2).examples.columns["target"].tolist() == [-1, -1]
    with pytest.raises(ValueError, match="eleven: no such class; there are: 0, 1, 2"):
        Samples(digits).encode(["eleven"])
