import itertools

import pytest
import torch
from torch import nn

from lightning_modules.shared.activations import activate, initialise


def test_values_of_the_activations():
    at_one = {name: activate(name)(torch.tensor(1.0)).item() for name in ("relu", "sigmoid", "tanh", "gelu")}
    assert at_one == pytest.approx({"relu": 1.0, "sigmoid": 0.7310586, "tanh": 0.7615942, "gelu": 0.8413447})


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"^model.activation: expected one of relu, sigmoid, tanh, gelu, got 'swish'$"):
        activate("swish")


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_signals_keep_their_size_through_twenty_layers(name):
    torch.manual_seed(0)
    layers = [[nn.Linear(a, b), activate(name)] for a, b in itertools.pairwise([256] * 21)]
    network = nn.Sequential(*itertools.chain(*layers), nn.Linear(256, 64))
    initialise(network, name)
    spread = network(torch.randn(64, 256)).std().item()
    assert 0.2 < spread < 3.0
