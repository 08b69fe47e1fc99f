"""Encoder-decoder with attention: reads a sentence in both directions, and writes it in another language.

Shapes: B batch, S source tokens, T target tokens, L layers, D embedding, H hidden, V vocabulary, N rows of a search.
"""

from typing import Any, Literal

import pytorch_lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchmetrics import MeanMetric

from lightning_modules.shared import decoding, objectives, optimization
from lightning_modules.shared.attention import Attention, AttentionKind, Memory
from lightning_modules.shared.decoding import PAD, State, Writings, Written
from lightning_modules.shared.optimization import OptimizerName, Schedule
from lightning_modules.shared.recurrent import Recurrent, last

Batch = dict[str, Tensor]

EXTRA_TOKENS = 10
"""Tokens that a translation may have beyond ``max_length_ratio``, for the shortest sentences."""

LOSS_TOKENS = 8192
"""Target tokens whose scores over the whole vocabulary are held at once."""


class Translator(L.LightningModule):
    """Encoder-decoder with attention over the source, for one or several target languages.

    The encoder reads in both directions; its last states are the decoder's first. The decoder begins with a token that
    names the target language. Its states attend to the source after the recurrent layers (Luong et al. 2015), so that
    training runs these over a whole target at once. Source and targets share one vocabulary, whose embeddings are also
    the output layer's weights (Press and Wolf 2017, arXiv:1608.05859).

    Scheduled teacher forcing (Bengio et al. 2015, arXiv:1506.03099) in two passes (Duckworth et al. 2019,
    arXiv:1906.04331): the first, on the true tokens, guesses each; in the second a guess stands in for a true token
    with one minus the probability of forcing.

    Args:
        num_tokens: Size of the vocabulary; decided by the data.
        num_languages: Target languages; decided by the data.
        cell: Recurrent cell of encoder and decoder.
        embedding_dim: Width of an embedded token.
        hidden_dim: Width of the decoder's states; each direction of the encoder has half of it.
        num_layers: Recurrent layers of the encoder, and of the decoder.
        attention: How a state of the decoder scores a source token: luong (a bilinear form) or bahdanau (a layer).
        dropout: Probability that a feature of an embedding, of a layer's output or of what the output layer sees is
            left out of a training step.
        label_smoothing: Part of a token's probability that is spread evenly over all tokens in training.
        teacher_forcing: Probability that the decoder is given a true token and not its own guess, at the end of
            training, in [0, 1].
        forcing_schedule: How that probability comes about: constant, or from 1 down, linear or along an inverse
            sigmoid.
        beam_width: Beginnings that are continued together when translating; 1 is greedy.
        length_penalty: What favours long translations in a beam search, from 0; 0.6 is usual.
        max_length_ratio: Longest translation, in tokens for each of the source; ten more are allowed.
        optimizer: adamw, or sgd with Nesterov momentum 0.9.
        lr: Largest learning rate.
        weight_decay: Decay of weights; biases have none.
        schedule: Learning rate after the warm-up: constant, cosine (to 0) or step (a tenth from half of training, a
            hundredth from three quarters).
        warmup: Fraction of all optimizer steps over which the learning rate rises from 0.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(
        self,
        num_tokens: int,
        num_languages: int = 1,
        cell: Literal["gru", "lstm"] = "lstm",
        embedding_dim: int = 256,
        hidden_dim: int = 256,
        num_layers: int = 1,
        attention: AttentionKind = "luong",
        dropout: float = 0.1,
        label_smoothing: float = 0.0,
        teacher_forcing: float = 0.9,
        forcing_schedule: decoding.ForcingSchedule = "linear",
        beam_width: int = 1,
        length_penalty: float = 0.6,
        max_length_ratio: float = 3.0,
        optimizer: OptimizerName = "adamw",
        lr: float = 2e-3,
        weight_decay: float = 0.0,
        schedule: Schedule = "cosine",
        warmup: float = 0.05,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        objectives.check(dropout=dropout, label_smoothing=label_smoothing)
        self._check()
        self.optimization = optimization.Settings(
            optimizer=optimizer, lr=lr, weight_decay=weight_decay, schedule=schedule, warmup=warmup
        )
        self.num_steps = 0
        self.embedding = nn.Embedding(num_tokens + num_languages, embedding_dim, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=embedding_dim**-0.5)  # so that the output layer begins at scale 1
        self.encoder = Recurrent(cell, embedding_dim, hidden_dim // 2, num_layers, bidirectional=True, dropout=dropout)
        self.decoder = Recurrent(cell, embedding_dim, hidden_dim, num_layers, dropout=dropout)
        self.bridge = nn.Linear(hidden_dim, (2 if cell == "lstm" else 1) * num_layers * hidden_dim)
        self.attention = Attention(attention, hidden_dim)
        self.combine = nn.Linear(2 * hidden_dim, embedding_dim)
        self.bias = nn.Parameter(torch.zeros(num_tokens))
        self.dropout = nn.Dropout(dropout)
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()
        self.val_writings, self.test_writings = Writings(), Writings()

    def _check(self) -> None:
        key = self.hparams
        for name, least in (("embedding_dim", 1), ("hidden_dim", 2), ("num_layers", 1), ("beam_width", 1)):
            if key[name] < least:
                raise ValueError(f"model.{name}: expected at least {least}, got {key[name]}")
        if key.hidden_dim % 2:
            raise ValueError(f"model.hidden_dim: expected an even number, got {key.hidden_dim}")
        if not 0 <= key.teacher_forcing <= 1:
            raise ValueError(f"model.teacher_forcing: expected a probability, got {key.teacher_forcing}")
        if key.length_penalty < 0:
            raise ValueError(f"model.length_penalty: expected at least 0, got {key.length_penalty}")
        if key.max_length_ratio <= 0:
            raise ValueError(f"model.max_length_ratio: expected more than 0, got {key.max_length_ratio}")

    def encode(self, batch: Batch) -> tuple[Memory, State]:
        """What is attended to, and the decoder's first state, each part (L, B, H)."""
        output_BSH, _ = self.encoder(self._embedded(batch["source"]), batch["source_length"])
        first_BF = torch.tanh(self.bridge(last(output_BSH, batch["source_length"], num_directions=2)))
        parts = first_BF.unflatten(1, (-1, self.hparams.num_layers, self.hparams.hidden_dim)).unbind(1)
        return self.attention.memory(output_BSH, batch["source"] == PAD), tuple(p.transpose(0, 1) for p in parts)

    def decode(self, input_BT: Tensor, state: State, memory: Memory) -> tuple[Tensor, Tensor, State]:
        """What the output layer sees, shape (B, T, D), the weights of attention, (B, T, S), and the next state.

        Args:
            input_BT: The token before each that is to be written.
            state: Of the layers, each part (L, B, H).
            memory: What is attended to.
        """
        output_BTH, state = self.decoder(self._embedded(input_BT), state=state)
        context_BTH, weight_BTS = self.attention(output_BTH, memory)
        combined_BTD = torch.tanh(self.combine(torch.cat([context_BTH, output_BTH], dim=-1)))
        return self.dropout(combined_BTD), weight_BTS, state

    def logits(self, combined: Tensor) -> Tensor:
        """Scores of the next token, shape (..., V), of what :meth:`decode` returns, (..., D)."""
        return F.linear(combined, self.embedding.weight[: len(self.bias)], self.bias)

    def write(
        self,
        batch: Batch,
        encoded: tuple[Memory, State],
        beam_width: int | None = None,
        length_penalty: float | None = None,
    ) -> Written:
        """Translate without teacher forcing what :meth:`encode` has read; None takes the module's own settings."""
        width = self.hparams.beam_width if beam_width is None else beam_width
        strength = self.hparams.length_penalty if length_penalty is None else length_penalty
        for name, value, least in (("beam_width", width, 1), ("length_penalty", strength, 0)):
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        memory, state = encoded[0].repeated(width), tuple(part.transpose(0, 1) for part in encoded[1])

        def step(token_N: Tensor, state: State) -> tuple[Tensor, State]:
            state = tuple(part.transpose(0, 1) for part in state)
            combined_N1D, _, state = self.decode(token_N[:, None], state, memory)
            return self.logits(combined_N1D[:, 0]).float().log_softmax(dim=-1), tuple(p.transpose(0, 1) for p in state)

        longest_B = (batch["source_length"] * self.hparams.max_length_ratio).ceil().long() + EXTRA_TOKENS
        start_B = self._start(batch["language"])
        if width == 1:
            return decoding.greedy(step, state, start_B, longest_B, length_penalty=strength)
        return decoding.beam(step, state, start_B, longest_B, width=width, length_penalty=strength)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        memory, state = self.encode(batch)
        input_BT = self._inputs(batch["target"], batch["language"])
        progress = self.global_step / self.num_steps if self.num_steps else 0.0
        forced = decoding.forcing(progress, self.hparams.forcing_schedule, self.hparams.teacher_forcing)
        if forced < 1:
            input_BT = self._mixed(input_BT, state, memory, forced)
        combined_BTD, _, _ = self.decode(input_BT, state, memory)
        return self._loss(combined_BTD, batch["target"], self.hparams.label_smoothing)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._measure(batch, self.val_loss, self.val_writings)

    def on_validation_epoch_end(self) -> None:
        self._log("val", "validation", self.val_loss, self.val_writings)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._measure(batch, self.test_loss, self.test_writings)

    def on_test_epoch_end(self) -> None:
        self._log("test", "test", self.test_loss, self.test_writings)

    def predict_step(
        self,
        batch: Batch,
        batch_idx: int,
        *,
        beam_width: int | None = None,
        length_penalty: float | None = None,
    ) -> dict[str, Tensor]:
        """Translations.

        Args:
            beam_width: Beginnings that are continued together; 1 is greedy. By default that of the run.
            length_penalty: What favours long translations in a beam search. By default that of the run.

        Returns:
            ``tokens`` (B, T), ``score`` and ``complete`` (B,) of :class:`Written`; ``attention`` (B, T, S); and the
            batch's ``source`` and ``language``.
        """
        memory, state = self.encode(batch)
        tokens_BT, score_B, complete_B = self.write(batch, (memory, state), beam_width, length_penalty)
        _, weight_BTS, _ = self.decode(self._inputs(tokens_BT, batch["language"]), state, memory)
        written = {"tokens": tokens_BT, "score": score_B, "complete": complete_B, "attention": weight_BTS}
        return written | {key: batch[key] for key in ("source", "language")}

    def configure_optimizers(self) -> dict[str, Any]:
        self.num_steps = int(self.trainer.estimated_stepping_batches)
        return optimization.configure(self, self.optimization)

    def _embedded(self, token_BT: Tensor) -> Tensor:
        return self.dropout(self.embedding(token_BT) * self.hparams.embedding_dim**0.5)

    def _start(self, language_B: Tensor) -> Tensor:
        return len(self.bias) + language_B

    def _inputs(self, target_BT: Tensor, language_B: Tensor) -> Tensor:
        """The token before each of the target."""
        return torch.cat([self._start(language_B)[:, None], target_BT[:, :-1]], dim=1)

    @torch.no_grad()
    def _mixed(self, input_BT: Tensor, state: State, memory: Memory, forced: float) -> Tensor:
        """The inputs with the network's own guess in place of some true tokens."""
        own_BT = (torch.rand(input_BT.shape, device=input_BT.device) >= forced) & (input_BT != PAD)
        own_BT[:, 0] = False
        combined_BTD, _, _ = self.decode(input_BT, state, memory)
        # The guess for a token is what follows from the one before it.
        guess_N = self.logits(combined_BTD[:, :-1][own_BT[:, 1:]]).argmax(dim=-1)
        return input_BT.masked_scatter(own_BT, guess_N)

    def _loss(self, combined_BTD: Tensor, target_BT: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross entropy of the tokens that are not padding, in nats."""

        def total(combined_ND: Tensor, target_N: Tensor) -> Tensor:
            logits_NV = self.logits(combined_ND)
            return F.cross_entropy(logits_NV, target_N, label_smoothing=label_smoothing, reduction="sum")

        real_BT = target_BT != PAD
        parts = list(zip(combined_BTD[real_BT].split(LOSS_TOKENS), target_BT[real_BT].split(LOSS_TOKENS), strict=True))
        if len(parts) == 1:
            return total(*parts[0]) / real_BT.sum()
        # Of long targets, the scores of all tokens at once would fill the memory: they are computed again backwards.
        return sum(checkpoint(total, *part, use_reentrant=False) for part in parts) / real_BT.sum()

    def _measure(self, batch: Batch, loss: MeanMetric, writings: Writings) -> None:
        memory, state = self.encode(batch)
        combined_BTD, _, _ = self.decode(self._inputs(batch["target"], batch["language"]), state, memory)
        loss.update(self._loss(combined_BTD, batch["target"]), weight=batch["target_length"].sum())
        writings.update(self.write(batch, (memory, state)).tokens_BT, batch["example"])

    def _log(self, prefix: str, split: str, loss: MeanMetric, writings: Writings) -> None:
        self.log(f"{prefix}/loss", loss)
        scores = self.trainer.datamodule.scores(split, writings.compute())
        writings.reset()
        self.log_dict({f"{prefix}/{name}": value for name, value in scores.items()})
