"""Multilayer perceptron: fully connected layers over flattened inputs.

Shapes: B batch, F features after flattening, K logits (1, or the number of classes).
"""

import itertools
import math
from typing import Any

import pytorch_lightning as L
from torch import Tensor, nn

from lightning_modules.shared import objectives, optimization
from lightning_modules.shared.activations import Activation, activate, initialise
from lightning_modules.shared.objectives import Output
from lightning_modules.shared.optimization import OptimizerName, Schedule


class MLP(L.LightningModule):
    """Multilayer perceptron: fully connected layers over flattened inputs.

    Args:
        input_shape: Shape of one example; decided by the data.
        output: binary, multiclass, regression or count; decided by the data.
        num_outputs: Number of classes for multiclass, else 1; decided by the data.
        target_scale: Standard deviation of a regression's target in its own units, else 1; decided by the data.
        hidden_dims: Width of each hidden layer; empty for a linear model.
        activation: Non-linearity after each hidden layer.
        hidden_bias: Whether hidden layers have a bias; the output layer always has one.
        dropout: Probability that a hidden unit is left out of a training step.
        label_smoothing: Part of a label's probability that is spread evenly over all classes in training.
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
        input_shape: tuple[int, ...],
        output: Output,
        num_outputs: int,
        target_scale: float = 1.0,
        hidden_dims: tuple[int, ...] = (256,),
        activation: Activation = "relu",
        hidden_bias: bool = True,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        optimizer: OptimizerName = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        schedule: Schedule = "cosine",
        warmup: float = 0.05,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        objectives.check(dropout=dropout, label_smoothing=label_smoothing)
        if any(dim < 1 for dim in hidden_dims):
            raise ValueError(f"model.hidden_dims: expected widths of at least 1, got {list(hidden_dims)}")
        self.output, self.label_smoothing = output, label_smoothing
        self.optimization = optimization.Settings(
            optimizer=optimizer, lr=lr, weight_decay=weight_decay, schedule=schedule, warmup=warmup
        )
        layers: list[nn.Module] = [nn.Flatten()]
        for in_dim, out_dim in itertools.pairwise((math.prod(input_shape), *hidden_dims)):
            layers += [nn.Linear(in_dim, out_dim, bias=hidden_bias), activate(activation)]
            layers += [nn.Dropout(dropout)] if dropout else []
        last_dim = (math.prod(input_shape), *hidden_dims)[-1]
        self.network = nn.Sequential(*layers, nn.Linear(last_dim, objectives.num_logits(output, num_outputs)))
        initialise(self.network, activation)
        self.val_metrics, self.test_metrics = (objectives.Metrics(output, num_outputs, target_scale) for _ in range(2))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits, shape (B, K), of inputs of any shape (B, ...) with F values an example."""
        return self.network(inputs)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        logits_BK = self(batch["inputs"])
        return objectives.loss(self.output, logits_BK, batch["target"], label_smoothing=self.label_smoothing)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.val_metrics.update(self(batch["inputs"]), batch["target"])

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.val_metrics.named("val"))

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.test_metrics.update(self(batch["inputs"]), batch["target"])

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.test_metrics.named("test"))

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return objectives.answer(self.output, self(batch["inputs"]))

    def configure_optimizers(self) -> dict[str, Any]:
        return optimization.configure(self, self.optimization)
