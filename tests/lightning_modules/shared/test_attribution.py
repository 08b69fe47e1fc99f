"""Attributions, by functions whose answers are known."""

import pytest
import torch

from lightning_modules.shared.attribution import class_logits, integrated_gradients, log_odds


def test_of_a_quadratic_the_path_s_gradients_are_known():
    inputs = torch.tensor([[[1.0, -2.0]], [[3.0, 0.5]]])
    weight = torch.tensor([2.0, 3.0])
    found = integrated_gradients(lambda x: (weight * x**2).sum(dim=(1, 2)), inputs)
    assert torch.allclose(found, weight * inputs)  # the mean of 2 w a x over a in [0, 1]
    assert torch.allclose((found * inputs).sum(dim=(1, 2)), torch.tensor([2 + 12.0, 18 + 0.75]))


def test_influences_add_up_where_a_function_bends():
    inputs = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    score = lambda x: x.sum(dim=2).tanh().amax(dim=1) + (x[:, 0] * x[:, 1]).sum(dim=1)  # noqa: E731
    total = (integrated_gradients(score, inputs) * inputs).sum(dim=(1, 2))
    assert torch.allclose(total, score(inputs) - score(torch.zeros_like(inputs)), atol=0.02)


def test_log_odds_of_a_class_against_all_others():
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
    probability = logits.softmax(dim=1)
    for chosen in (torch.tensor([1, 2]), torch.tensor([0, 0])):
        p = probability.gather(1, chosen[:, None])[:, 0]
        assert torch.allclose(log_odds(logits, chosen), (p / (1 - p)).log())


def test_of_a_binary_logit_the_log_odds_of_either_class():
    logits = class_logits("binary", torch.tensor([[1.5], [-0.5]]))
    assert log_odds(logits, torch.tensor([1, 0])).tolist() == pytest.approx([1.5, 0.5])
    assert log_odds(class_logits("regression", torch.tensor([[7.0]])), torch.tensor([0])).tolist() == [7.0]
