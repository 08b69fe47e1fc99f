"""Deep Q-network: learns what each action is worth, and takes the one that is worth most.

Shapes: U updates of a batch, B steps of an update, N observations, A actions, S steps ahead.
"""

import copy
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.shared import optimization
from lightning_modules.shared.activations import Activation
from lightning_modules.shared.agent import Agent, Sight
from lightning_modules.shared.optimization import Schedule
from lightning_modules.shared.players import Player


class DQN(Agent):
    """Deep Q-network (Mnih et al. 2015, Human-level control through deep reinforcement learning).

    A batch is a block of updates of past steps: the target network stands still in between, so that what it says of all
    of them is computed at once. With double, dueling and the data's n_step and priority_exponent it has what Rainbow
    (Hessel et al. 2018, arXiv:1710.02298) adds, but for distributions and noise.

    Args:
        input_shape: What is seen at once, decided by the environment.
        num_actions: A, decided by the environment.
        hidden_dims: Widths of the fully connected layers.
        activation: Between layers.
        double: Whether the network itself chooses the next action and the target network only says what it is worth
            (van Hasselt et al. 2016, arXiv:1509.06461).
        dueling: Whether the worth of a state and the advantage of each action have heads of their own (Wang et al.
            2016, arXiv:1511.06581).
        gamma: What a reward of the next step is worth now, from 0 to 1.
        epsilon_start: Probability of an action at random at first.
        epsilon_end: The same in the end.
        exploration_fraction: Part of training over which it falls from one to the other, in a line.
        importance_start: How far steps that priorities draw too often are weighed down, as an exponent, at first; in
            the end it is 1.
        target_every: Batches from one change of the target network to the next.
        target_rate: How far it moves to the network then; 1 is a copy.
        lr: Learning rate.
        schedule: Learning rate over training: constant, cosine (to 0) or step (a tenth from half of training, a
            hundredth from three quarters).

    Raises:
        ValueError: A value is out of range.
    """

    learned: Callable[[Tensor, Tensor], None]

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_actions: int,
        hidden_dims: tuple[int, ...] = (256, 256),
        activation: Activation = "relu",
        double: bool = False,
        dueling: bool = False,
        gamma: float = 0.99,
        epsilon_start: float = 1.0,
        epsilon_end: float = 0.04,
        exploration_fraction: float = 0.16,
        importance_start: float = 0.4,
        target_every: int = 1,
        target_rate: float = 1.0,
        lr: float = 2.3e-3,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for name in ("gamma", "epsilon_start", "epsilon_end", "exploration_fraction", "importance_start"):
            if not 0 <= self.hparams[name] <= 1:
                raise ValueError(f"model.{name}: expected from 0 to 1, got {self.hparams[name]}")
        if not 0 < target_rate <= 1:
            raise ValueError(f"model.target_rate: expected more than 0 and at most 1, got {target_rate}")
        if target_every < 1:
            raise ValueError(f"model.target_every: expected at least 1, got {target_every}")
        if not hidden_dims or min(hidden_dims) < 1:
            raise ValueError(f"model.hidden_dims: expected widths of at least 1, got {list(hidden_dims)}")
        self.settings = optimization.Settings(
            optimizer="adamw", lr=lr, weight_decay=0.0, schedule=schedule, warmup=0.0
        )  # fmt: skip
        sight = Sight(input_shape, hidden_dims, activation)
        self.network = nn.Sequential(sight, (Dueling if dueling else nn.Linear)(sight.out_features, num_actions))
        self.target = copy.deepcopy(self.network).requires_grad_(False)
        self.example_input_array = torch.zeros(1, *input_shape)

    def players(self) -> Mapping[str, Player]:
        return {"network": Player(networks=[self.network], settings=self.settings)}

    def num_moves(self, name: str, num_batches: int) -> int:
        return num_batches * self.trainer.datamodule.updates_per_batch

    @property
    def progress(self) -> float:
        """How much of training is done, from 0 to 1."""
        return min(1.0, self.global_step / max(1, int(self.trainer.estimated_stepping_batches)))

    @property
    def epsilon(self) -> float:
        """Probability of an action at random."""
        key = self.hparams
        part = min(1.0, self.progress / key.exploration_fraction) if key.exploration_fraction else 1.0
        return key.epsilon_start + part * (key.epsilon_end - key.epsilon_start)

    def forward(self, seen: Tensor) -> Tensor:
        """What each action is worth, shape (N, A)."""
        return self.network(seen)

    def exploit(self, seen: Tensor) -> Tensor:
        return self(seen).argmax(dim=1)

    def explore(self, seen: Tensor) -> Tensor:
        device = seen.device
        at_random_N = torch.rand(len(seen), device=device) < self.epsilon
        random_N = torch.randint(self.hparams.num_actions, (len(seen),), device=device)
        return torch.where(at_random_N, random_N, self.exploit(seen))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        gained_UB, next_UBA = self._ahead(batch)
        discount_UB = self.hparams.gamma ** batch["steps"] * ~batch["terminated"]
        wanted_UB = gained_UB + discount_UB * next_UBA.amax(dim=2)
        weight_UB = batch["weight"] ** (self.hparams.importance_start * (1 - self.progress) + self.progress)
        weight_UB = weight_UB / weight_UB.amax(dim=1, keepdim=True) / weight_UB.shape[1]
        losses, worths = [], []
        with self.turn("network") as move:
            updates = zip(batch["seen"], batch["action"].unsqueeze(2), wanted_UB, weight_UB, strict=True)
            for u, (seen, action_B1, wanted_B, weight_B) in enumerate(updates):
                worth_B = self.network(seen).gather(1, action_B1)[:, 0]
                if self.hparams.double:
                    chosen_B = self._chosen(batch["next_seen"][u], next_UBA[u])
                    wanted_B.copy_(gained_UB[u] + discount_UB[u] * chosen_B)
                loss = weight_B.dot(F.smooth_l1_loss(worth_B, wanted_B, reduction="none"))
                move(loss)
                losses.append(loss.detach())
                worths.append(worth_B.detach())
        if self.global_step % self.hparams.target_every == 0:
            self._move_target()
        worth_UB = torch.stack(worths)
        error_UB = (wanted_UB - worth_UB).abs()
        self.learned(batch["place"], error_UB)
        return {
            "loss": torch.stack(losses).mean(), "error": error_UB.mean(), "worth": worth_UB.mean(),
            "epsilon": torch.tensor(self.epsilon),
        }  # fmt: skip

    @torch.no_grad()
    def _ahead(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of all updates: the discounted rewards, (U, B), and what the target network says of what follows."""
        rewards_UBS = batch["rewards"]
        gamma_S = self.hparams.gamma ** torch.arange(rewards_UBS.shape[2], device=rewards_UBS.device)
        next_UBA = self.target(batch["next_seen"].flatten(0, 1)).unflatten(0, rewards_UBS.shape[:2])
        return (rewards_UBS * gamma_S).sum(dim=2), next_UBA

    @torch.no_grad()
    def _chosen(self, next_seen: Tensor, next_BA: Tensor) -> Tensor:
        """What the target network says of the action that the network itself would take next, shape (B,)."""
        return next_BA.gather(1, self.network(next_seen).argmax(dim=1, keepdim=True))[:, 0]

    @torch.no_grad()
    def _move_target(self) -> None:
        ours, target = list(self.network.parameters()), list(self.target.parameters())
        torch._foreach_lerp_(target, ours, self.hparams.target_rate)


class Dueling(nn.Module):
    """The worth of a state, and of each action beside the others."""

    def __init__(self, in_features: int, num_actions: int) -> None:
        super().__init__()
        self.state, self.advantage = nn.Linear(in_features, 1), nn.Linear(in_features, num_actions)

    def forward(self, features: Tensor) -> Tensor:
        """What each action is worth, shape (N, A)."""
        advantage_NA = self.advantage(features)
        return self.state(features) + advantage_NA - advantage_NA.mean(dim=1, keepdim=True)
