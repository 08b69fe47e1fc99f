"""Writing a sequence token by token: greedy and beam search for any network that says what may come next, and how much
of the truth it is told when it learns.

Shapes: B examples, K beams, T steps, V vocabulary, N rows: B, or B * K with an example's beams adjacent.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

PAD, UNKNOWN, START, END = range(4)
"""Ids that stand for no token, an unknown one, and the two ends of a sequence."""

ForcingSchedule = Literal["constant", "linear", "inverse_sigmoid"]

State = tuple[Tensor, ...]
"""What a network remembers: tensors whose first dimension is the row."""

Step = Callable[[Tensor, State], tuple[Tensor, State]]
"""From the last token of each row, shape (N,), and the state: log probabilities of the next, (N, V), and the state."""


class Written(NamedTuple):
    """What a search has written.

    Args:
        tokens_BT: Ids, with END where it was reached, and PAD behind.
        score_B: Logarithm of the sequence's probability, divided by :func:`penalty`.
        complete_B: Whether END was reached within the longest length.
    """

    tokens_BT: Tensor
    score_B: Tensor
    complete_B: Tensor


class Writings(Metric):
    """All that is written for a split, collected over its batches and from all ranks, to be scored as text."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in ("tokens", "length", "example"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, tokens_BT: Tensor, example_B: Tensor) -> None:
        """Add a batch: what is written, padded, and the examples' numbers in their split."""
        inside_BT = tokens_BT != PAD
        self.tokens.append(tokens_BT[inside_BT])
        self.length.append(inside_BT.sum(dim=1))
        self.example.append(example_B)

    def compute(self) -> dict[str, Tensor]:
        """``tokens`` end to end, and of each example ``length`` and ``example``, int64, on the CPU."""
        return {name: dim_zero_cat(getattr(self, name)).cpu() for name in ("tokens", "length", "example")}


def forcing(progress: float, schedule: ForcingSchedule, last: float) -> float:
    """Probability that a decoder in training is given the true token before each, and not its own guess.

    Scheduled sampling: Bengio et al. 2015 (arXiv:1506.03099).

    Args:
        progress: Part of training that is done, in [0, 1].
        schedule: constant: always ``last``; linear: from 1 to ``last``; inverse_sigmoid: the same, slow at both ends.
        last: At the end of training.
    """
    if schedule == "constant":
        return last
    if schedule == "linear":
        return 1 - (1 - last) * progress
    return 1 - (1 - last) / (1 + math.exp(12 * (0.5 - progress)))


def penalty(length: Tensor | int, strength: float) -> Tensor | float:
    """What to divide a sequence's log probability by, so that long ones are not at a disadvantage.

    ((5 + length) / 6) ** strength: Wu et al. 2016 (arXiv:1609.08144), equation 14.

    Args:
        length: Tokens of the sequence, END included.
        strength: 0 leaves the log probability as it is.
    """
    return ((5 + length) / 6) ** strength


def greedy(step: Step, state: State, start_B: Tensor, max_length_B: Tensor, *, length_penalty: float) -> Written:
    """The most probable token at each step.

    Args:
        step: The network; called with N = B rows.
        state: Its state before the first step.
        start_B: The token that stands before each sequence.
        max_length_B: Most tokens of each, END included; at least 1.
        length_penalty: Strength of :func:`penalty`; decides the score alone.
    """
    token_B, total_B = start_B, torch.zeros(len(start_B), device=start_B.device)
    open_B, tokens = torch.ones_like(start_B, dtype=torch.bool), []
    for t in range(1, int(max_length_B.max()) + 1):
        log_probs_BV, state = _next(step, token_B, state)
        best_B, token_B = log_probs_BV.max(dim=1)
        token_B = token_B.masked_fill(~open_B, PAD)
        total_B = total_B + best_B.masked_fill(~open_B, 0)
        tokens.append(token_B)
        open_B = open_B & (token_B != END) & (max_length_B > t)
        if not open_B.any():
            break
    tokens_BT = torch.stack(tokens, dim=1)
    length_B = (tokens_BT != PAD).sum(dim=1)
    return Written(tokens_BT, total_B / penalty(length_B, length_penalty), (tokens_BT == END).any(dim=1))


def beam(
    step: Step, state: State, start_B: Tensor, max_length_B: Tensor, *, width: int, length_penalty: float
) -> Written:
    """Beam search: at each step the best ``width`` sequences stay, whole or not; at last the best whole one is taken.

    What stays is decided by probability, what is taken by the score: of all that have been whole at any time. An
    example is done when none that is not whole can overtake its best whole one any more. What is not whole at the
    longest length is taken only where nothing is. A width of 1 is greedy.

    Args:
        step: The network; called with N = B * width rows.
        state: Its state before the first step, of N = B rows.
        start_B: The token that stands before each sequence.
        max_length_B: Most tokens of each, END included; at least 1.
        width: K.
        length_penalty: Strength of :func:`penalty`, at least 0.
    """
    shape_BK, longest = (len(start_B), width), int(max_length_B.max())
    row_B1 = torch.arange(len(start_B), device=start_B.device)[:, None]
    state = tuple(part.repeat_interleave(width, dim=0) for part in state)
    token_BK = start_B[:, None].expand(shape_BK)
    total_BK = torch.full(shape_BK, -torch.inf, device=start_B.device)
    total_BK[:, 0] = 0  # at first all beams of an example are the same: one of them counts
    history_BKT = start_B.new_full((*shape_BK, longest), PAD)
    best = Written(history_BKT[:, 0], total_BK[:, 0] - torch.inf, torch.zeros_like(start_B, dtype=torch.bool))
    open_B = torch.ones_like(start_B, dtype=torch.bool)
    for t in range(1, longest + 1):
        log_probs_NV, state = _next(step, token_BK.flatten(), state)
        total_BK, choice_BK = (total_BK.view(-1, 1) + log_probs_NV).view(len(start_B), -1).topk(width)
        beam_BK, token_BK = choice_BK // log_probs_NV.shape[1], choice_BK % log_probs_NV.shape[1]
        state = tuple(part.index_select(0, (row_B1 * width + beam_BK).flatten()) for part in state)
        history_BKT = history_BKT[row_B1, beam_BK]
        history_BKT[:, :, t - 1] = token_BK
        score_BK = total_BK / penalty(t, length_penalty)
        best = _better(best, history_BKT, score_BK, (token_BK == END) & open_B[:, None], True)
        going_BK = (token_BK != END) & (token_BK != PAD)
        cut_B = open_B & (max_length_B == t) & ~best.complete_B
        best = _better(best, history_BKT, score_BK, going_BK & cut_B[:, None], False)
        # Probabilities only fall: at best one keeps its own, and ends where the penalty is most in its favour.
        hope_B = total_BK.masked_fill(~going_BK, -torch.inf).amax(dim=1) / penalty(max_length_B, length_penalty)
        open_B = open_B & (max_length_B > t) & (best.score_B < hope_B)
        if not open_B.any():
            break
    return best._replace(tokens_BT=best.tokens_BT[:, : int((best.tokens_BT != PAD).sum(dim=1).max())])


def _next(step: Step, token_N: Tensor, state: State) -> tuple[Tensor, State]:
    """Log probabilities of what follows: nothing but PAD, and that for sure, on what is whole; else no PAD or START."""
    log_probs_NV, state = step(token_N, state)
    whole_N1 = ((token_N == END) | (token_N == PAD))[:, None]
    log_probs_NV = log_probs_NV.float().masked_fill(whole_N1, -torch.inf)
    log_probs_NV[:, (PAD, START)] = -torch.inf
    log_probs_NV[:, PAD : PAD + 1].masked_fill_(whole_N1, 0)
    return log_probs_NV, state


def _better(best: Written, tokens_BKT: Tensor, score_BK: Tensor, allowed_BK: Tensor, complete: bool) -> Written:
    """The best so far, or the best of those allowed where that is better."""
    score_B, k_B = score_BK.masked_fill(~allowed_BK, -torch.inf).max(dim=1)
    better_B = score_B > best.score_B
    tokens_BT = tokens_BKT[torch.arange(len(k_B), device=k_B.device), k_B]
    return Written(
        torch.where(better_B[:, None], tokens_BT, best.tokens_BT),
        torch.where(better_B, score_B, best.score_B),
        torch.where(better_B, complete, best.complete_B),
    )
