"""A recurrent network that writes lines token by token, and says how likely any line is.

Shapes: B lines of a batch, N lines that are drawn, T tokens of the longest line, V vocabulary, E embedding, H hidden
units.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.shared.decoding import END, PAD, START, UNKNOWN

State = tuple[Tensor, Tensor]


class LineGenerator(nn.Module):
    """An LSTM that says what token comes next.

    Args:
        vocabulary: V.
        embedding_dim: E.
        hidden_dim: H.
        ends: Whether a line may end.
    """

    def __init__(self, vocabulary: int, embedding_dim: int, hidden_dim: int, ends: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding_dim)
        self.lstm = nn.LSTM(embedding_dim, hidden_dim, batch_first=True)
        self.head = nn.Linear(hidden_dim, vocabulary)
        never_V = torch.zeros(vocabulary)
        never_V[[PAD, UNKNOWN, START] + ([] if ends else [END])] = -torch.inf
        self.register_buffer("never_V", never_V, persistent=False)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of the next token; those that never come are minus infinity."""
        return self.head(hidden).float() + self.never_V

    def nlls(self, lines_BT: Tensor) -> Tensor:
        """Negative log likelihood of each token after those before it, in nats, shape (B, T); 0 of PAD and UNKNOWN."""
        inputs_BT = F.pad(lines_BT[:, :-1], (1, 0), value=START)
        hidden_BTH, _ = self.lstm(self.embedding(inputs_BT))
        target_BT = lines_BT.masked_fill(lines_BT == UNKNOWN, PAD)
        losses = F.cross_entropy(
            self.logits(hidden_BTH).flatten(0, 1), target_BT.flatten(), ignore_index=PAD, reduction="none"
        )
        return losses.view(lines_BT.shape)

    def nll(self, lines_BT: Tensor) -> Tensor:
        """The same, the mean over tokens."""
        return self.nlls(lines_BT).sum() / ((lines_BT != PAD) & (lines_BT != UNKNOWN)).sum()

    def start(self, count: int) -> tuple[Tensor, State]:
        """The token that stands before a line, shape (N,), and a state that remembers nothing."""
        device = self.never_V.device
        hidden_NH = self.head.weight.new_zeros(count, self.lstm.hidden_size)
        return torch.full((count,), START, device=device), (hidden_NH, hidden_NH)

    def step(self, embedded_NE: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits of the next token, shape (N, V), and the state, after one more token."""
        state = torch.lstm_cell(embedded_NE, state, *self.lstm.all_weights[0])
        return self.logits(state[0]), state

    def draw(
        self, count: int, length: int, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Lines that are drawn token by token, shape (N, T), with PAD behind END.

        Args:
            count: N.
            length: T.
            temperature: Divides the logits.
            generator: Decides what is drawn, on the CPU; None takes the global one of the device.
        """
        return torch.stack([token_N for token_N, _ in self.drawing(count, length, temperature, generator)], dim=1)

    def drawing(
        self, count: int, length: int, temperature: float, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, State]]:
        """Each token of lines that are drawn, and the state before it."""
        token_N, state = self.start(count)
        open_N = torch.ones_like(token_N, dtype=torch.bool)
        for _ in range(length):
            logits_NV, state = self.step(self.embedding(token_N), state)
            token_N = pick(logits_NV / temperature, generator).masked_fill(~open_N, PAD)
            open_N = open_N & (token_N != END)
            yield token_N, state

    def draw_soft(self, count: int, length: int, temperature: float) -> Tensor:
        """Lines of soft tokens, through which a gradient passes, shape (N, T, V); all PAD behind an END."""
        token_N, state = self.start(count)
        embedded_NE, open_N1 = self.embedding(token_N), torch.ones(count, 1, device=token_N.device)
        pad_V = F.one_hot(torch.tensor(PAD, device=token_N.device), self.head.out_features).float()
        tokens = []
        for _ in range(length):
            logits_NV, state = self.step(embedded_NE, state)
            soft_NV = F.gumbel_softmax(logits_NV, tau=temperature)
            embedded_NE = soft_NV @ self.embedding.weight
            tokens.append(open_N1 * soft_NV + (1 - open_N1) * pad_V)
            open_N1 = open_N1 * (soft_NV.detach().argmax(dim=1, keepdim=True) != END)
        return torch.stack(tokens, dim=1)


def pick(logits_NV: Tensor, generator: torch.Generator | None) -> Tensor:
    """A token of each row, drawn by its logits, shape (N,)."""
    sums_NV = logits_NV.softmax(dim=1).cumsum(dim=1)
    device = logits_NV.device if generator is None else "cpu"
    level_N1 = torch.rand(len(logits_NV), 1, generator=generator, device=device).to(logits_NV.device)
    # The first token whose sum is above a part of the whole: one random number a row, where others draw one a token.
    return torch.searchsorted(sums_NV, level_N1 * sums_NV[:, -1:], right=True)[:, 0].clamp(max=logits_NV.shape[1] - 1)
