"""Language model: a recurrent network that reads a text token by token and says what comes next.

Shapes: B streams, T tokens of a chunk, V vocabulary, E embedding, H hidden units, L layers.
"""

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.shared import objectives, optimization
from lightning_modules.shared.carried import all_streams, own_streams
from lightning_modules.shared.likelihood import PAD, Metrics, nats
from lightning_modules.shared.optimization import OptimizerName, Schedule
from lightning_modules.shared.recurrent import Cell, Recurrent, State

NUM_SPECIAL = 4
"""Tokens that no text has; they come first."""


class Poet(L.LightningModule):
    """Language model: a recurrent network that reads a text token by token and says what comes next.

    It is trained by truncated back-propagation through time (Williams and Peng 1990): gradients reach back to a chunk's
    beginning, the state is carried from each chunk to the next of the same stream, so that the network has read all
    of the text before. An epoch begins with a state of zeros.

    Args:
        vocabulary: Tokens that there are; decided by the data.
        cell: lstm, gru, or rnn (tanh).
        num_layers: Recurrent layers, one upon the other.
        hidden_dim: Units of each layer.
        embedding_dim: Width of a token's embedding.
        tied: Whether the output's weights are those of the embedding (Press and Wolf 2017, arXiv:1608.05859); where
            hidden_dim differs from embedding_dim, a linear layer leads from one to the other.
        dropout: Probability that a feature is left out of a training step: before, between and after the layers.
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
        vocabulary: int,
        cell: Cell = "lstm",
        num_layers: int = 1,
        hidden_dim: int = 512,
        embedding_dim: int = 512,
        tied: bool = True,
        dropout: float = 0.1,
        optimizer: OptimizerName = "adamw",
        lr: float = 3e-3,
        weight_decay: float = 0.01,
        schedule: Schedule = "cosine",
        warmup: float = 0.02,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        objectives.check(dropout=dropout, label_smoothing=0.0)
        for name in ("num_layers", "hidden_dim", "embedding_dim"):
            if self.hparams[name] < 1:
                raise ValueError(f"model.{name}: expected at least 1, got {self.hparams[name]}")
        self.optimization = optimization.Settings(
            optimizer=optimizer, lr=lr, weight_decay=weight_decay, schedule=schedule, warmup=warmup
        )
        self.embedding = nn.Embedding(vocabulary, embedding_dim)
        self.recurrent = Recurrent(cell, embedding_dim, hidden_dim, num_layers, dropout=dropout)
        last_dim = embedding_dim if tied else hidden_dim
        self.bridge = nn.Linear(hidden_dim, last_dim) if last_dim != hidden_dim else nn.Identity()
        self.head = nn.Linear(last_dim, vocabulary)
        self.dropout = nn.Dropout(dropout)
        # Inputs of variance 1, and logits whose variance does not depend on the width, also where both are one matrix.
        self.scale = embedding_dim**0.5
        nn.init.normal_(self.embedding.weight, std=1 / self.scale)
        nn.init.normal_(self.head.weight, std=last_dim**-0.5)
        nn.init.zeros_(self.head.bias)
        if tied:
            self.head.weight = self.embedding.weight
        self.carried: State | None = None  # through training, and apart from it through an evaluation
        self.carried_in_evaluation: State | None = None
        self.restored: State | None = None
        self.val_metrics, self.test_metrics = Metrics(), Metrics()

    def forward(self, inputs_BT: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits of the token after each, shape (B, T, V), and the state after the last."""
        embedded_BTE = self.dropout(self.embedding(inputs_BT) * self.scale)
        hidden_BTH, state = self.recurrent(embedded_BTE, state=state)
        return self.head(self.bridge(self.dropout(hidden_BTH))), state

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        if self.restored is not None:
            trainer = self.trainer
            self.carried = own_streams(self.restored, trainer.global_rank, trainer.world_size, self.device)
            self.restored = None
        logits_BTV, state = self(batch["inputs"], self.carried if batch_idx else None)
        self.carried = tuple(part.detach() for part in state)
        return nats(logits_BTV, batch["target"]).sum() / (batch["target"] != PAD).sum()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, batch_idx, self.val_metrics)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.val_metrics.named("val"))

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, batch_idx, self.test_metrics)

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.test_metrics.named("test"))

    def _evaluate(self, batch: dict[str, Tensor], batch_idx: int, metrics: Metrics) -> None:
        state = self.carried_in_evaluation if batch_idx else None
        logits_BTV, self.carried_in_evaluation = self(batch["inputs"], state)
        metrics.update(logits_BTV, batch["target"], batch["characters"])

    def predict_step(
        self,
        batch: dict[str, Tensor],
        batch_idx: int,
        *,
        length: int = 400,
        temperature: float = 0.8,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Iterator[dict[str, Tensor]]:
        """Go on writing, a token a step.

        Args:
            batch: ``inputs`` (B, T): what has been written.
            batch_idx: Place of the batch.
            length: Tokens to write; of bpe a token is several characters.
            temperature: Divides the logits before a token is drawn: below 1 the likely becomes more likely.
            top_p: Draw among the likeliest tokens that together have this probability (Holtzman et al. 2020,
                arXiv:1904.09751); 1 draws among all.
            seed: Decides what is drawn.

        Yields:
            ``token`` and ``step``, its number from 0, shapes (B,).

        Raises:
            ValueError: A value is out of range.
        """
        check_drawing(length, temperature, top_p, seed)
        generator = torch.Generator().manual_seed(seed)  # of the CPU, so that a GPU writes the same
        tokens_BT, state = batch["inputs"], None
        for step in range(length):
            logits_BTV, state = self(tokens_BT, state)
            probability_BV = nucleus(probabilities(logits_BTV[:, -1], temperature), top_p)
            tokens_BT = torch.multinomial(probability_BV.cpu(), 1, generator=generator).to(tokens_BT.device)
            yield {"token": tokens_BT[:, 0], "step": torch.full_like(tokens_BT[:, 0], step)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the state that all workers' streams have reached, so that a run goes on in the middle of its texts."""
        if self.carried is not None:
            checkpoint["carried"] = all_streams(self.carried, self.trainer.world_size)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.restored = checkpoint.get("carried")

    def configure_optimizers(self) -> dict[str, Any]:
        return optimization.configure(self, self.optimization)


def probabilities(logits_BV: Tensor, temperature: float) -> Tensor:
    """What a token is drawn by, float64; a temperature however low leaves one of the likeliest."""
    logits_BV = logits_BV.double().index_fill(1, torch.arange(NUM_SPECIAL, device=logits_BV.device), -torch.inf)
    return ((logits_BV - logits_BV.amax(dim=1, keepdim=True)) / temperature).softmax(dim=1)


def nucleus(probability_BV: Tensor, top_p: float) -> Tensor:
    """The probabilities of the fewest likeliest tokens that together have at least ``top_p``; the others' become 0."""
    sorted_BV, token_BV = probability_BV.sort(dim=1, descending=True, stable=True)
    before_BV = F.pad(sorted_BV.cumsum(dim=1)[:, :-1], (1, 0))
    kept_BV = sorted_BV.masked_fill(before_BV >= top_p, 0.0)
    return torch.zeros_like(probability_BV).scatter(1, token_BV, kept_BV)


def check_drawing(length: int, temperature: float, top_p: float, seed: int) -> None:
    """Refuse what nothing can be drawn with.

    Raises:
        ValueError: A value is out of range; one line that names its flag.
    """
    if length < 1:
        raise ValueError(f"--length: expected at least 1 token, got {length}")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"--temperature: expected more than 0, got {temperature:g}; near 0 the likeliest is drawn")
    if not 0 < top_p <= 1:
        raise ValueError(f"--top-p: expected a probability above 0, at most 1, got {top_p:g}")
    if not 0 <= seed < 2**63:
        raise ValueError(f"--seed: expected a whole number from 0 to below 2^63, got {seed}")
