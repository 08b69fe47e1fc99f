import math

import pytest
import torch

from lightning_modules.shared import objectives
from lightning_modules.shared.objectives import Metrics


def test_binary_loss_by_hand():
    logits, target = torch.tensor([[math.log(3.0)], [0.0]]), torch.tensor([1, 0])
    assert objectives.loss("binary", logits, target).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


def test_multiclass_loss_by_hand():
    logits, target = torch.tensor([[math.log(2.0), 0.0, 0.0]]), torch.tensor([0])
    assert objectives.loss("multiclass", logits, target).item() == pytest.approx(math.log(2))


def test_smoothing_mixes_in_the_uniform_distribution():
    logits, target = torch.tensor([[math.log(2.0), 0.0, 0.0]]), torch.tensor([0])
    uniform = (math.log(2) + 2 * math.log(4)) / 3
    assert objectives.loss("multiclass", logits, target, label_smoothing=0.3).item() == pytest.approx(
        0.7 * math.log(2) + 0.3 * uniform
    )


def test_binary_smoothing_equals_that_of_two_classes():
    logit, target = torch.tensor([[1.3], [-0.4]]), torch.tensor([1, 1])
    two = torch.cat([torch.zeros_like(logit), logit], dim=1)
    assert objectives.loss("binary", logit, target, label_smoothing=0.2).item() == pytest.approx(
        objectives.loss("multiclass", two, target, label_smoothing=0.2).item()
    )


def test_regression_loss_by_hand():
    assert objectives.loss("regression", torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 5.0])).item() == 2.5


def test_count_loss_is_the_poisson_likelihood_up_to_a_constant():
    logits, target = torch.tensor([[0.7], [-0.2]]), torch.tensor([3.0, 0.0])
    reference = -torch.distributions.Poisson(logits[:, 0].exp()).log_prob(target)
    constant = torch.lgamma(target + 1).mean()
    assert objectives.loss("count", logits, target).item() == pytest.approx((reference.mean() - constant).item())


def test_probabilities_of_two_classes():
    answer = objectives.answer("binary", torch.tensor([[math.log(3.0)]]))
    assert answer["probability"].tolist() == [pytest.approx([0.25, 0.75])]


def test_probabilities_of_many_classes():
    answer = objectives.answer("multiclass", torch.tensor([[math.log(2.0), 0.0, 0.0]]))
    assert answer["probability"].tolist() == [pytest.approx([0.5, 0.25, 0.25])]


def test_values():
    assert objectives.answer("regression", torch.tensor([[-1.5]]))["value"].tolist() == [-1.5]
    assert objectives.answer("count", torch.tensor([[math.log(7.0)]]))["value"].tolist() == [pytest.approx(7.0)]


def computed(metrics):
    return {name: metric.compute().item() for name, metric in metrics.named("val").items()}


def test_metrics_of_classes_do_not_depend_on_the_cut_into_batches():
    logits, target = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    whole, cut = Metrics("multiclass", 3, 1.0), Metrics("multiclass", 3, 1.0)
    whole.update(logits, target)
    for part in (slice(0, 4), slice(4, 6), slice(6, 7)):
        cut.update(logits[part], target[part])
    assert computed(cut) == pytest.approx(computed(whole))
    assert computed(cut)["val/accuracy"] == pytest.approx((logits.argmax(1) == target).float().mean().item())
    assert computed(cut)["val/loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, target).item())


def test_f1_is_the_mean_over_both_classes():
    metrics = Metrics("binary", 1, 1.0)
    metrics.update(torch.tensor([[1.0], [1.0], [-1.0], [1.0]]), torch.tensor([1, 1, 0, 0]))
    # Class 1: precision 2/3, recall 1, F1 4/5; class 0: precision 1, recall 1/2, F1 2/3.
    assert computed(metrics)["val/accuracy"] == 0.75
    assert computed(metrics)["val/f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_regression_metrics_are_in_the_units_of_the_target():
    metrics = Metrics("regression", 1, 10.0)
    metrics.update(torch.tensor([[1.0], [-1.0]]), torch.tensor([2.0, -2.0]))
    metrics.update(torch.tensor([[0.0]]), torch.tensor([0.0]))
    assert computed(metrics) == pytest.approx(
        {"val/loss": 2 / 3, "val/mae": 20 / 3, "val/r2": 0.75, "val/rmse": 10 * math.sqrt(2 / 3)}
    )


def test_r2_of_one_example_is_not_a_number():
    metrics = Metrics("regression", 1, 1.0)
    metrics.update(torch.tensor([[1.0]]), torch.tensor([2.0]))
    assert math.isnan(computed(metrics)["val/r2"])
    assert computed(metrics)["val/mae"] == 1.0


def test_count_metrics():
    metrics = Metrics("count", 1, 1.0)
    metrics.update(torch.tensor([[math.log(3.0)], [math.log(4.0)]]), torch.tensor([5.0, 4.0]))
    assert computed(metrics)["val/mae"] == pytest.approx(1.0)


def test_metrics_add_nothing_to_a_checkpoint():
    assert Metrics("regression", 1, 1.0).state_dict() == {}


@pytest.mark.parametrize("key", ["dropout", "label_smoothing"])
def test_strengths_out_of_range_are_refused(key):
    with pytest.raises(ValueError, match=f"^model.{key}: expected a fraction from 0 to below 1, got 1.0$"):
        objectives.check(**{"dropout": 0.0, "label_smoothing": 0.0, key: 1.0})


def test_data_without_labels_is_refused_where_there_is_something_to_predict():
    with pytest.raises(ValueError, match="the data has no labels to learn from"):
        objectives.num_logits("none", 1)
