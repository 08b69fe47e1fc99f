import itertools
import math

import pytest
import torch

from lightning_modules.shared.decoding import END, PAD, START, UNKNOWN, beam, forcing, greedy, penalty

VOCABULARY = 6
"""PAD, UNKNOWN, START, END and two words."""


def markov(seed, num_examples=3, width=1):
    """A network whose next token depends on the one before it, on the example and on how many were written."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(num_examples, 8, VOCABULARY, VOCABULARY, generator=generator) * 2
    log_probs = scores.log_softmax(dim=-1).repeat_interleave(width, dim=0)

    def step(token_N, state):
        (written_N,) = state
        return log_probs[torch.arange(len(token_N)), written_N, token_N], (written_N + 1,)

    start = torch.full((num_examples,), START)
    return step, (torch.zeros(num_examples, dtype=torch.int64),), start


def by_brute_force(seed, example, longest, strength):
    """The best whole sequence of all there are, and its score."""
    step, (written,), _ = markov(seed)
    words, best = (UNKNOWN, *range(END + 1, VOCABULARY)), (-float("inf"), [])
    for length in range(longest):
        for beginning in itertools.product(words, repeat=length):
            total, before = 0.0, START
            for t, token in enumerate([*beginning, END]):
                tokens = torch.full((3,), before)
                total += step(tokens, (written + t,))[0][example, token].item()
                before = token
            best = max(best, (total / penalty(length + 1, strength), [*beginning, END]))
    return best


@pytest.mark.parametrize("strength", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_wide_enough_for_all_finds_what_brute_force_finds(seed, strength):
    longest = torch.tensor([4, 3, 1])
    step, state, start = markov(seed, width=81)
    found = beam(step, state, start, longest, width=81, length_penalty=strength)
    for b in range(3):
        score, tokens = by_brute_force(seed, b, int(longest[b]), strength)
        assert found.tokens_BT[b].tolist() == tokens + [PAD] * (found.tokens_BT.shape[1] - len(tokens))
        assert found.score_B[b].item() == pytest.approx(score, abs=1e-5)
    assert found.complete_B.all()


@pytest.mark.parametrize("seed", range(20))
def test_a_beam_of_one_is_greedy(seed):
    step, state, start = markov(seed)
    longest = torch.tensor([8, 5, 2])
    ours = beam(step, state, start, longest, width=1, length_penalty=0.6)
    theirs = greedy(step, state, start, longest, length_penalty=0.6)
    assert torch.equal(ours.tokens_BT, theirs.tokens_BT) and torch.equal(ours.complete_B, theirs.complete_B)
    torch.testing.assert_close(ours.score_B, theirs.score_B)


def test_a_wider_beam_finds_no_worse_a_sequence_on_the_whole():
    scores = []
    for width in (1, 2, 4, 8):
        found = [beam(*markov(seed, width=width), torch.full((3,), 8), width=width, length_penalty=0.0)
                 for seed in range(12)]  # fmt: skip
        scores.append(torch.cat([f.score_B for f in found]).mean().item())
    assert scores == sorted(scores) and scores[-1] > scores[0] + 0.1


def test_an_example_does_not_depend_on_those_beside_it():
    step, state, start = markov(5, width=3)
    together = beam(step, state, start, torch.tensor([8, 4, 2]), width=3, length_penalty=0.6)
    for b, longest in enumerate((8, 4, 2)):
        alone, state_b = markov(5, width=3)[0], (torch.zeros(1, dtype=torch.int64),)

        def only(token_N, state, b=b, alone=alone):
            padded = torch.full((9,), PAD)
            padded[3 * b : 3 * b + 3] = token_N
            log_probs, _ = alone(padded, (torch.full((9,), int(state[0][0])),))
            return log_probs[3 * b : 3 * b + 3], (state[0] + 1,)

        found = beam(only, state_b, start[:1], torch.tensor([longest]), width=3, length_penalty=0.6)
        assert together.tokens_BT[b][together.tokens_BT[b] != PAD].tolist() == found.tokens_BT[0].tolist()
        assert together.score_B[b].item() == pytest.approx(found.score_B[0].item())


def test_what_never_ends_is_cut_and_says_so():
    log_probs = torch.full((1, VOCABULARY), -torch.inf)
    log_probs[0, VOCABULARY - 1] = 0.0

    def step(token_N, state):
        return log_probs.expand(len(token_N), -1), state

    for found in (greedy(step, (), torch.tensor([START]), torch.tensor([5]), length_penalty=0.6),
                  beam(step, (), torch.tensor([START]), torch.tensor([5]), width=2, length_penalty=0.6)):  # fmt: skip
        assert found.tokens_BT.tolist() == [[VOCABULARY - 1] * 5]
        assert found.complete_B.tolist() == [False] and found.score_B.tolist() == [0.0]


def test_the_penalty_by_hand():
    assert penalty(1, 0.6) == 1.0
    assert penalty(7, 1.0) == 2.0
    assert penalty(7, 0.0) == 1.0


def test_the_probability_of_forcing():
    assert [forcing(p, "constant", 0.7) for p in (0.0, 1.0)] == [0.7, 0.7]
    assert [forcing(p, "linear", 0.6) for p in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.8, 0.6])
    assert forcing(0.5, "inverse_sigmoid", 0.6) == pytest.approx(0.8)
    assert forcing(0.0, "inverse_sigmoid", 0.6) == pytest.approx(1 - 0.4 / (1 + math.exp(6)))
