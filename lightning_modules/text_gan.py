"""Generative adversarial network of text: a recurrent generator of lines against a discriminator of real and made ones.

Shapes: B lines of a batch, T tokens of the longest line, R rollouts, N rows, V vocabulary, E embedding, H hidden units.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lightning_modules.shared import optimization
from lightning_modules.shared.collected import Collected, scored
from lightning_modules.shared.decoding import END, PAD
from lightning_modules.shared.line_generator import LineGenerator, pick
from lightning_modules.shared.players import Player, Players, phase_at

Method = Literal["policy_gradient", "gumbel_softmax"]

NUM_SAMPLES = 20
"""Lines that are shown as training goes on."""

CHUNK = 4096
"""Lines that the discriminator reads at once."""


class TextGAN(Players):
    """A generator of lines that first learns by likelihood, then against a discriminator.

    With policy_gradient (SeqGAN: Yu et al. 2017, arXiv:1609.05473) each token is rewarded by how real the discriminator
    takes the lines to be that may follow from it; with gumbel_softmax (Kusner and Hernández-Lobato 2016,
    arXiv:1611.04051) the discriminator is given tokens so soft that its gradient reaches the generator.

    Args:
        vocabulary: Tokens that there are; decided by the data.
        length: Most tokens of a line; decided by the data.
        ends: Whether lines may end before that, by a token of their own; decided by the data.
        embedding_dim: Width of the generator's embedding.
        hidden_dim: Width of the generator's LSTM.
        discriminator: cnn: convolutions over the tokens, the largest value of each filter (Kim 2014,
            arXiv:1408.5882); lstm: both directions, the largest value of each unit.
        discriminator_dim: Width of its embedding.
        filter_widths: Tokens under each kind of filter of cnn.
        num_filters: Filters of each width; of lstm hidden units of each direction.
        discriminator_dropout: Probability that a feature is left out of a training step of the discriminator.
        method: How the generator learns from the discriminator.
        num_rollouts: Lines that are finished at random from each beginning, to tell what it is worth.
        temperature: Of gumbel_softmax: how soft tokens are.
        pretrain_epochs: First epochs, in which the generator learns by likelihood.
        discriminator_epochs: Epochs after those in which the discriminator alone learns.
        discriminator_steps: Steps of the discriminator to one of the generator.
        likelihood_weight: Weight of the real lines' likelihood in the generator's loss while it plays; holds it back
            from making ever the same.
        pretrain_lr: Learning rate by likelihood.
        lr: Learning rate of the generator against the discriminator.
        discriminator_lr: Learning rate of the discriminator.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        ends: bool,
        embedding_dim: int = 32,
        hidden_dim: int = 32,
        discriminator: Literal["cnn", "lstm"] = "cnn",
        discriminator_dim: int = 64,
        filter_widths: tuple[int, ...] = (1, 2, 3, 4, 5),
        num_filters: int = 64,
        discriminator_dropout: float = 0.25,
        method: Method = "policy_gradient",
        num_rollouts: int = 8,
        temperature: float = 1.0,
        pretrain_epochs: int = 40,
        discriminator_epochs: int = 5,
        discriminator_steps: int = 5,
        likelihood_weight: float = 0.0,
        pretrain_lr: float = 1e-2,
        lr: float = 1e-3,
        discriminator_lr: float = 1e-3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self._check()
        self.generator = LineGenerator(vocabulary, embedding_dim, hidden_dim, ends)
        kind = ConvolutionalReader if discriminator == "cnn" else RecurrentReader
        self.discriminator = kind(vocabulary, discriminator_dim, filter_widths, num_filters, discriminator_dropout)
        rates = {"likelihood": pretrain_lr, "discriminator": discriminator_lr, "generator": lr}
        self.settings = {
            name: optimization.Settings(optimizer="adamw", lr=rate, weight_decay=0.0, schedule="constant", warmup=0.0)
            for name, rate in rates.items()
        }
        self.val_nll, self.test_nll = MeanMetric(), MeanMetric()
        self.val_lines, self.test_lines = (Collected(("tokens",)) for _ in range(2))

    def _check(self) -> None:
        key = self.hparams
        if not 0 <= key.discriminator_dropout < 1:
            raise ValueError(
                f"model.discriminator_dropout: expected a fraction from 0 to below 1, got {key.discriminator_dropout}"
            )
        for name in ("embedding_dim", "hidden_dim", "discriminator_dim", "num_filters", "num_rollouts"):
            if key[name] < 1:
                raise ValueError(f"model.{name}: expected at least 1, got {key[name]}")
        if key.discriminator_steps < 1:
            raise ValueError(f"model.discriminator_steps: expected at least 1, got {key.discriminator_steps}")
        for name in ("pretrain_epochs", "discriminator_epochs", "likelihood_weight"):
            if key[name] < 0:
                raise ValueError(f"model.{name}: expected at least 0, got {key[name]}")
        if not key.filter_widths or min(key.filter_widths) < 1 or max(key.filter_widths) > key.length:
            raise ValueError(f"model.filter_widths: expected widths from 1 to the {key.length} tokens of a line")
        for name in ("temperature", "pretrain_lr", "lr", "discriminator_lr"):
            if key[name] <= 0:
                raise ValueError(f"model.{name}: expected more than 0, got {key[name]}")

    @property
    def phase(self) -> str:
        key = self.hparams
        phases = [("likelihood", key.pretrain_epochs), ("discriminator", key.discriminator_epochs)]
        return phase_at(self.current_epoch, phases, "adversarial")

    def players(self) -> Mapping[str, Player]:
        networks = {
            "likelihood": self.generator, "discriminator": self.discriminator, "generator": self.generator
        }  # fmt: skip
        return {name: Player(networks=[net], settings=self.settings[name]) for name, net in networks.items()}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        real_BT, phase = batch["tokens"], self.phase
        if phase == "likelihood":
            with self.turn("likelihood") as move:
                loss = self.generator.nll(real_BT)
                move(loss)
            return {"loss": loss}
        told = self._move_discriminator(real_BT)
        if phase == "adversarial" and self.global_step % self.hparams.discriminator_steps == 0:
            with self.turn("generator") as move:
                by_policy = self.hparams.method == "policy_gradient"
                loss = self._policy_loss(len(real_BT), told) if by_policy else self._soft_loss(len(real_BT))
                told["generator_loss"] = loss.detach()
                if self.hparams.likelihood_weight:
                    loss = loss + self.hparams.likelihood_weight * self.generator.nll(real_BT)
                move(loss)
        return told

    def _move_discriminator(self, real_BT: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            made_BT = self.generator.draw(len(real_BT), self.hparams.length)
        with self.turn("discriminator") as move:
            real_B, made_B = self.discriminator(real_BT), self.discriminator(made_BT)
            loss = F.softplus(-real_B).mean() + F.softplus(made_B).mean()
            move(loss)
        accuracies = {"real_accuracy": (real_B > 0).float().mean(), "made_accuracy": (made_B < 0).float().mean()}
        return {"loss": loss, **accuracies}

    def _policy_loss(self, count: int, told: dict[str, Tensor]) -> Tensor:
        """REINFORCE (Williams 1992), by how much more a line is worth with each token than before it."""
        with torch.no_grad():
            made_BT = self.generator.draw(count, self.hparams.length)
            reward_BT = rewards(self.generator, self._realness, made_BT, self.hparams.num_rollouts)
            advantage_BT = advantages(reward_BT, made_BT != PAD)
        told["reward"] = reward_BT[:, -1].mean()
        return (self.generator.nlls(made_BT) * advantage_BT).sum() / (made_BT != PAD).sum()

    def _realness(self, lines_NT: Tensor) -> Tensor:
        """How probably real each line is, shape (N,)."""
        self.discriminator.eval()
        parts = [self.discriminator(some).float().sigmoid() for some in lines_NT.split(CHUNK)]
        self.discriminator.train()
        return torch.cat(parts)

    def _soft_loss(self, count: int) -> Tensor:
        soft_BTV = self.generator.draw_soft(count, self.hparams.length, self.hparams.temperature)
        return F.softplus(-self.discriminator(soft_BTV)).mean()

    def _evaluate(self, batch: dict[str, Tensor], batch_idx: int, nll: MeanMetric, lines: Collected) -> None:
        real_BT = batch["tokens"]
        nll.update(self.generator.nll(real_BT).float(), weight=(real_BT != PAD).sum())
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        most = max(self.trainer.datamodule.batch_size, 2 * world_size)
        generator = torch.Generator().manual_seed(batch_idx)  # the same lines on any number of ranks
        made_BT = self.generator.draw(most, self.hparams.length, generator=generator)
        lines.update(tokens=made_BT[rank::world_size][: len(real_BT)])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, batch_idx, self.val_nll, self.val_lines)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({"val/nll": self.val_nll, **scored(self, "validation", self.val_lines)})

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, batch_idx, self.test_nll, self.test_lines)

    def on_test_epoch_end(self) -> None:
        self.log_dict({"test/nll": self.test_nll, **scored(self, "test", self.test_lines)})

    def samples(self) -> list[str]:
        """Lines of the same noise whenever they are asked for."""
        made_BT = self.generator.draw(NUM_SAMPLES, self.hparams.length, generator=torch.Generator().manual_seed(0))
        return self.trainer.datamodule.lines(made_BT)

    def predict_step(
        self, batch: dict[str, Tensor], batch_idx: int, *, temperature: float = 1.0, seed: int = 0
    ) -> dict[str, Tensor]:
        """Lines.

        Args:
            batch: ``line`` (B,): its number.
            batch_idx: Place of the batch.
            temperature: Divides the logits before a token is drawn: below 1 the likely becomes more likely.
            seed: Decides what is drawn.

        Returns:
            ``tokens`` (B, T), with PAD behind a line's end.

        Raises:
            ValueError: The temperature is not more than 0.
        """
        if temperature <= 0:
            raise ValueError(f"--temperature: expected more than 0, got {temperature:g}")
        generator = torch.Generator().manual_seed(seed + batch_idx)
        count, length = len(batch["line"]), self.hparams.length
        return {"tokens": self.generator.draw(count, length, temperature=temperature, generator=generator)}


class ConvolutionalReader(nn.Module):
    """A line to a score that is high for real ones, by its runs of few tokens."""

    def __init__(self, vocabulary: int, dim: int, widths: tuple[int, ...], num_filters: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim)
        self.filters = nn.ModuleList(nn.Conv1d(dim, num_filters, width) for width in widths)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(num_filters * len(widths), 1)

    def forward(self, lines: Tensor) -> Tensor:
        """Scores, shape (B,), of tokens (B, T), or of soft tokens (B, T, V)."""
        embedded_BET = embed(self.embedding, lines).transpose(1, 2)
        found = [filters(embedded_BET).amax(dim=2).relu() for filters in self.filters]
        return self.head(self.dropout(torch.cat(found, dim=1))).squeeze(1)


class RecurrentReader(nn.Module):
    """A line to a score that is high for real ones, by an LSTM of both directions."""

    def __init__(self, vocabulary: int, dim: int, widths: tuple[int, ...], num_filters: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim)
        self.lstm = nn.LSTM(dim, num_filters, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * num_filters, 1)

    def forward(self, lines: Tensor) -> Tensor:
        """Scores, shape (B,), of tokens (B, T), or of soft tokens (B, T, V)."""
        hidden_BTH, _ = self.lstm(embed(self.embedding, lines))
        return self.head(self.dropout(hidden_BTH.amax(dim=1))).squeeze(1)


def advantages(reward_BT: Tensor, inside_BT: Tensor) -> Tensor:
    """How much better than expected each token is, shape (B, T), with a standard deviation of 1; 0 behind a line's end.

    What a beginning is worth without its last token is the baseline: it has been told by other rollouts, so that it
    adds no bias, and takes away what earlier tokens decide.

    Args:
        reward_BT: What the beginning up to each token is worth.
        inside_BT: Whether a token is inside its line.
    """
    before_BT = torch.cat([reward_BT[:, :1].mean().expand(len(reward_BT), 1), reward_BT[:, :-1]], dim=1)
    advantage_BT = (reward_BT - before_BT) * inside_BT
    return advantage_BT / (advantage_BT.square().sum() / inside_BT.sum()).sqrt().clamp(min=1e-8)


def embed(embedding: nn.Embedding, lines: Tensor) -> Tensor:
    """Embedded tokens, or soft tokens' mean embeddings, shape (B, T, E)."""
    return lines @ embedding.weight if lines.is_floating_point() else embedding(lines)


def rewards(
    generator: LineGenerator, realness: Callable[[Tensor], Tensor], lines_BT: Tensor, num_rollouts: int
) -> Tensor:
    """What each token of lines is worth: how real the lines are that follow from it, on average, shape (B, T).

    All beginnings are gone on from at once: at place t those of every length up to t draw their next token.

    Args:
        generator: Goes on from each beginning.
        realness: From lines (N, T) to how probably real each is, (N,).
        lines_BT: The lines.
        num_rollouts: R: lines that are drawn from each beginning; the whole lines need none.
    """
    (num_lines, length), rows = lines_BT.shape, num_rollouts * len(lines_BT)
    finished_TNT = lines_BT.repeat(length - 1, num_rollouts, 1)
    token_B, state = generator.start(num_lines)
    states = []
    for place in range(length - 1):
        _, state = generator.step(generator.embedding(token_B), state)
        token_B = lines_BT[:, place]
        states.append(state)
    token_N, open_N = lines_BT.new_empty(0), torch.empty(0, dtype=torch.bool, device=lines_BT.device)
    hidden = tuple(part.new_empty(0, part.shape[1]) for part in state)
    for place in range(1, length):
        # One more beginning, of the first ``place`` tokens, joins those that are being gone on from.
        token_N = torch.cat([token_N, lines_BT[:, place - 1].repeat(num_rollouts)])
        goes_on_B = (lines_BT[:, place - 1] != END) & (lines_BT[:, place - 1] != PAD)
        open_N = torch.cat([open_N, goes_on_B.repeat(num_rollouts)])
        hidden = tuple(
            torch.cat([part, new.repeat(num_rollouts, 1)]) for part, new in zip(hidden, states[place - 1], strict=True)
        )
        logits_NV, hidden = generator.step(generator.embedding(token_N), hidden)
        token_N = pick(logits_NV, None).masked_fill(~open_N, PAD)
        open_N = open_N & (token_N != END)
        finished_TNT[:place, :, place] = token_N.view(place, rows)
    worth_TB = realness(finished_TNT.flatten(0, 1)).view(length - 1, num_rollouts, num_lines).mean(dim=1)
    return torch.cat([worth_TB, realness(lines_BT)[None]]).T
