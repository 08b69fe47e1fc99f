"""What an agent's return stands beside: actions at random, and a linear policy that is found by trying.

Shapes: P policies, W weights of one, F features that are seen, A actions or numbers of one, N episodes.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from workloads.data._experience import Experience

POPULATION, ELITE, GENERATIONS = 40, 8, 25
"""Policies of a generation, how many of them the next is drawn like, and generations."""

FIRST_SEED = 3_000_000
"""Seed of the search's first episode; those of training, validation and test are others."""

NOISE = 0.1
"""Least standard deviation of a weight within a generation, which keeps the search going."""


def returns(data: Experience) -> dict[str, float]:
    """Mean return of the test's episodes: of actions at random, and of a linear policy, where numbers are seen."""
    generator = torch.Generator().manual_seed(0)
    seeds_N = data.splits["test"].gather(torch.arange(len(data.splits["test"])))["episode"]
    found = {"random": float(data.play(at_random(data, generator), seeds_N)["return"].mean())}
    if len(data.input_shape) == 1:
        found["linear, by cross-entropy search"] = float(data.play(searched(data), seeds_N)["return"].mean())
    return found


def at_random(data: Experience, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """A policy that does anything."""

    def act(seen: Tensor) -> Tensor:
        if data.num_actions:
            return torch.randint(data.num_actions, (len(seen),), generator=generator)
        return 2 * torch.rand(len(seen), data.action_dim, generator=generator) - 1

    return act


def searched(data: Experience) -> Callable[[Tensor], Tensor]:
    """The linear policy in the middle of the last generation of a cross-entropy search (Rubinstein 1999).

    Each generation's policies play one episode each, all from the same seed; the next is drawn from a normal
    distribution with the mean and deviation of the best.
    """
    random = np.random.default_rng(0)
    num_outputs = data.num_actions or data.action_dim
    size = (data.input_shape[0] + 1) * num_outputs
    mean_W, deviation_W = np.zeros(size), np.ones(size)
    for generation in range(GENERATIONS):
        policies_PW = mean_W + deviation_W * random.standard_normal((POPULATION, size))
        seeds_P = torch.full((POPULATION,), FIRST_SEED + generation)
        return_P = data.play_each(linear(data, torch.from_numpy(policies_PW).float()), seeds_P)["return"].numpy()
        best_EW = policies_PW[np.argsort(-return_P, kind="stable")[:ELITE]]
        mean_W, deviation_W = best_EW.mean(axis=0), np.maximum(best_EW.std(axis=0), NOISE)
    found_1W = torch.from_numpy(mean_W[None]).float()
    policy = linear(data, found_1W)
    return lambda seen: policy(seen, torch.zeros(len(seen), dtype=torch.int64))


def linear(data: Experience, weights_PW: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Linear policies: the greatest output is the action, or outputs bent to lie within -1 and 1 are its numbers.

    Returns:
        From what is seen, (N, F), and each one's policy, (N,), to actions.
    """
    weights_PFA = weights_PW.unflatten(1, (data.input_shape[0] + 1, -1))

    def act(seen_NF: Tensor, policy_N: Tensor) -> Tensor:
        ones_N1 = torch.ones(len(seen_NF), 1)
        outputs_NA = torch.einsum("nf,nfa->na", torch.cat([seen_NF, ones_N1], dim=1), weights_PFA[policy_N])
        return outputs_NA.argmax(dim=1) if data.num_actions else outputs_NA.tanh()

    return act
