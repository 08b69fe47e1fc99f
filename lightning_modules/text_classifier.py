"""Recurrent network over a text's words, pooled into an answer.

Shapes: B batch, T tokens, D word vector, H output (of all directions together), F pooled features, K logits (1, or the
number of classes).
"""

from typing import Any, Literal

import pytorch_lightning as L
import torch
from torch import Tensor, nn

from lightning_modules.shared import objectives, optimization
from lightning_modules.shared.attribution import class_logits, integrated_gradients, log_odds
from lightning_modules.shared.lstm import LSTMCell
from lightning_modules.shared.objectives import Output
from lightning_modules.shared.optimization import OptimizerName, Schedule
from lightning_modules.shared.recurrent import Cell, CellActivation, Recurrent, last, mask

Pooling = Literal["last", "mean", "max", "mean+max", "attention"]

DEVIATION = 0.1
"""Standard deviation of word vectors before training."""


class TextClassifier(L.LightningModule):
    """Recurrent network over a text's words, pooled into an answer.

    Texts of any length are read whole; what fills up a batch changes nothing.

    Args:
        num_tokens: Size of the vocabulary, with 0 for what fills up a batch; decided by the data.
        output: binary, multiclass, regression or count; decided by the data.
        num_outputs: Number of classes for multiclass, else 1; decided by the data.
        target_scale: Standard deviation of a regression's target in its own units, else 1; decided by the data.
        vectors_dim: Numbers of a pretrained word vector, 0 without; decided by the data.
        cell: rnn (Elman), gru or lstm.
        activation: Of rnn: tanh, relu or sigmoid.
        embedding_dim: Numbers of a word vector; pretrained ones have their own.
        hidden_dim: Width of each layer and direction.
        num_layers: Recurrent layers, each above the one before.
        bidirectional: Whether a second set of cells reads from the end.
        memory_steps: Steps for which an lstm or gru remembers before training, from 3 ("chrono", Tallec and Ollivier
            2018, arXiv:1804.11188); with 0 an lstm does for three or four.
        pooling: What is made of the outputs at all words: the last one of each direction, their mean, the largest of
            each feature, mean and largest, or an average weighted by learned attention (Yang et al. 2016).
        pool_words: Whether word vectors are pooled beside the outputs (S. Lai et al. 2015, "Recurrent Convolutional
            Neural Networks"), so that the recurrent layers are left with what single words do not say; not with last.
        word_dropout: Probability that a word is left out of a training step.
        embedding_dropout: Probability that a number of the word vectors is left out of a training step, at all words of
            a text at once (Gal and Ghahramani 2016, arXiv:1512.05287).
        dropout: Probability that a feature is left out of a training step, between layers and before the answer.
        label_smoothing: Part of a label's probability that is spread evenly over all classes in training.
        optimizer: adamw, or sgd with Nesterov momentum 0.9.
        lr: Largest learning rate.
        weight_decay: Decay of weights, word vectors among them; biases have none.
        schedule: Learning rate after the warm-up: constant, cosine (to 0) or step (a tenth from half of training, a
            hundredth from three quarters).
        warmup: Fraction of all optimizer steps over which the learning rate rises from 0.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(
        self,
        num_tokens: int,
        output: Output,
        num_outputs: int,
        target_scale: float = 1.0,
        vectors_dim: int = 0,
        cell: Cell = "lstm",
        activation: CellActivation = "tanh",
        embedding_dim: int = 64,
        hidden_dim: int = 64,
        num_layers: int = 1,
        bidirectional: bool = True,
        memory_steps: int = 0,
        pooling: Pooling = "mean+max",
        pool_words: bool = False,
        word_dropout: float = 0.1,
        embedding_dropout: float = 0.5,
        dropout: float = 0.5,
        label_smoothing: float = 0.0,
        optimizer: OptimizerName = "adamw",
        lr: float = 2e-3,
        weight_decay: float = 0.0,
        schedule: Schedule = "cosine",
        warmup: float = 0.05,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        objectives.check(dropout=dropout, label_smoothing=label_smoothing)
        for key, value in (("word_dropout", word_dropout), ("embedding_dropout", embedding_dropout)):
            if not 0 <= value < 1:
                raise ValueError(f"model.{key}: expected a fraction from 0 to below 1, got {value}")
        if embedding_dim < 1:
            raise ValueError(f"model.embedding_dim: expected at least 1, got {embedding_dim}")
        self.output, self.label_smoothing, self.pooling = output, label_smoothing, pooling
        self.word_dropout, self.embedding_dropout = word_dropout, embedding_dropout
        self.optimization = optimization.Settings(
            optimizer=optimizer, lr=lr, weight_decay=weight_decay, schedule=schedule, warmup=warmup
        )
        width = vectors_dim or embedding_dim
        self.embedding = nn.Embedding(num_tokens, width, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=DEVIATION)
        with torch.no_grad():
            self.embedding.weight[0] = 0
        self.recurrent = Recurrent(
            cell, width, hidden_dim, num_layers, bidirectional=bidirectional, dropout=dropout, activation=activation,
            memory_steps=memory_steps,
        )  # fmt: skip
        self.pool_words = pool_words and pooling != "last"
        features = self.recurrent.output_dim + width * self.pool_words
        self.attention = Attention(features) if pooling == "attention" else None
        features *= 2 if pooling == "mean+max" else 1
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, objectives.num_logits(output, num_outputs)))
        self.val_metrics, self.test_metrics = (objectives.Metrics(output, num_outputs, target_scale) for _ in range(2))

    def setup(self, stage: str) -> None:
        """Take over the data's pretrained word vectors, before any checkpoint is loaded."""
        vectors = getattr(self.trainer.datamodule, "vectors", None)
        if stage == "fit" and vectors is not None:
            with torch.no_grad():
                # Words that have none stay random, of the same spread.
                self.embedding.weight.mul_(float(vectors.vector_KD.std()) / DEVIATION)
                self.embedding.weight[vectors.token_K] = vectors.vector_KD.to(self.embedding.weight.device)

    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Tensor:
        """Logits, shape (B, K), of padded texts with at least one token each."""
        return self.judge(self.embed(tokens_BT), length_B)

    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Word vectors, shape (B, T, D); zeros for what fills up, and for a word that is left out."""
        if self.training and self.word_dropout:
            left_out_BT = torch.rand(tokens_BT.shape, device=tokens_BT.device) < self.word_dropout
            tokens_BT = tokens_BT.masked_fill(left_out_BT, 0)
        words_BTD = self.embedding(tokens_BT)
        if self.training and self.embedding_dropout:
            kept_B1D = torch.rand_like(words_BTD[:, :1]) >= self.embedding_dropout
            words_BTD = words_BTD * (kept_B1D / (1 - self.embedding_dropout))
        return words_BTD

    def judge(self, words_BTD: Tensor, length_B: Tensor) -> Tensor:
        """Logits, shape (B, K), of word vectors."""
        outputs_BTH, _ = self.recurrent(words_BTD, length_B)
        if self.pool_words:
            outputs_BTH = torch.cat([outputs_BTH, words_BTD.to(outputs_BTH.dtype)], dim=2)
        return self.head(self.pool(outputs_BTH, length_B))

    def pool(self, outputs_BTH: Tensor, length_B: Tensor) -> Tensor:
        """Features of each text, shape (B, F)."""
        if self.pooling == "last":
            return last(outputs_BTH, length_B, self.recurrent.num_directions)
        padding_BT1 = ~mask(length_B, outputs_BTH.shape[1])[:, :, None]
        if self.attention is not None:
            return self.attention(outputs_BTH, padding_BT1)
        pooled = []
        dtype = self.embedding.weight.dtype  # not autocast's, which is too coarse for a sum
        if "mean" in self.pooling:
            total_BH = outputs_BTH.masked_fill(padding_BT1, 0).sum(dim=1, dtype=dtype)
            pooled.append(total_BH / length_B[:, None])
        if "max" in self.pooling:
            pooled.append(outputs_BTH.masked_fill(padding_BT1, -torch.inf).amax(dim=1).to(dtype))
        return torch.cat(pooled, dim=1)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        logits_BK = self(batch["text"], batch["text_length"])
        return objectives.loss(self.output, logits_BK, batch["target"], label_smoothing=self.label_smoothing)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.val_metrics.update(self(batch["text"], batch["text_length"]), batch["target"])

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.val_metrics.named("val"))

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.test_metrics.update(self(batch["text"], batch["text_length"]), batch["target"])

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.test_metrics.named("test"))

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int, *, explain: bool = False) -> dict[str, Tensor]:
        """Answers.

        Args:
            batch: Texts.
            batch_idx: Unused.
            explain: Mark the words that speak for and against the answer; with --output x.png draw them, and an
                LSTM's gates over them.

        Returns:
            ``probability`` (B, classes) or ``value`` (B,); of an explanation also ``influence`` (B, T), see
            :meth:`influence`, ``length`` (B,), ``number`` (B,) of the text, and of an LSTM ``gates`` (B, T, 3).
        """
        tokens_BT, length_B = batch["text"], batch["text_length"]
        answer = objectives.answer(self.output, self(tokens_BT, length_B))
        if explain:
            answer |= {"influence": self.influence(tokens_BT, length_B), "length": length_B, "number": batch["number"]}
            if self.recurrent.cell == "lstm":
                answer["gates"] = self.gates(tokens_BT)
        return answer

    def influence(self, tokens_BT: Tensor, length_B: Tensor) -> Tensor:
        """What each word adds to the answer's score, shape (B, T): integrated gradients of its vector.

        The score is the log odds of the most likely class against all others, or the logit of a number. The path
        begins at a text whose words are all left out, as word dropout does in training; the influences of a text add up
        to its score less that text's.
        """
        # In full precision; and cuDNN has no backward pass of recurrent layers outside training.
        full = torch.autocast(self.device.type, enabled=False), torch.backends.cudnn.flags(enabled=False)
        with torch.inference_mode(False), torch.no_grad(), full[0], full[1]:
            words_BTD, length_B = self.embed(tokens_BT).clone(), length_B.clone()
            chosen_B = class_logits(self.output, self.judge(words_BTD, length_B)).argmax(dim=1)

            def score(words_BTD: Tensor) -> Tensor:
                return log_odds(class_logits(self.output, self.judge(words_BTD, length_B)), chosen_B)

            return (integrated_gradients(score, words_BTD) * words_BTD).sum(dim=2)

    def gates(self, tokens_BT: Tensor) -> Tensor:
        """Input, forget and output gate at each word, shape (B, T, 3): means over the first layer's forward cells."""
        with torch.autocast(self.device.type, enabled=False):
            gates = LSTMCell.of(self.recurrent.layers[0][0]).unroll(self.embed(tokens_BT))
        return torch.stack([gate_BTH.mean(dim=2) for gate_BTH in (gates.input, gates.forget, gates.output)], dim=2)

    def configure_optimizers(self) -> dict[str, Any]:
        return optimization.configure(self, self.optimization)


class Attention(nn.Module):
    """Average over the words, weighted by how much each matters (Z. Yang et al. 2016, "Hierarchical Attention").

    Args:
        dim: H.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False))

    def forward(self, outputs_BTH: Tensor, padding_BT1: Tensor) -> Tensor:
        """Features, shape (B, H)."""
        weight_BT1 = self.weigh(outputs_BTH).float().masked_fill(padding_BT1, -torch.inf).softmax(dim=1)
        return (weight_BT1 * outputs_BTH.masked_fill(padding_BT1, 0)).sum(dim=1)
