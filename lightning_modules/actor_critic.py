"""Actor and critic by proximal policy optimisation: one network acts, another says what that is worth.

Shapes: T steps of a rollout, E environments, N = T * E steps, B steps of an update, A actions or numbers of one, F
features of an observation.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal

from lightning_modules.shared import optimization
from lightning_modules.shared.activations import Activation
from lightning_modules.shared.agent import Agent, Sight
from lightning_modules.shared.optimization import Schedule
from lightning_modules.shared.players import Player

LARGEST_OBSERVATION = 10.0
"""Normalised observations are cut off here."""


class ActorCritic(Agent):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), clipped.

    A batch is a rollout, of which several passes are made in random updates. A rollout that a limit of time cuts off is
    gone on from by the critic's word; only an episode's true end is worth nothing more (Pardo et al. 2018,
    arXiv:1712.00378).

    Args:
        input_shape: What is seen at once, decided by the environment.
        num_actions: Actions to choose from, 0 if an action is numbers; decided by the environment.
        action_dim: Numbers of an action; decided by the environment.
        hidden_dims: Widths of the fully connected layers, of the actor's and of the critic's.
        activation: Between layers.
        gamma: What a reward of the next step is worth now, from 0 to 1.
        gae_lambda: How far ahead advantages look before they trust the critic, from 0 (one step) to 1 (the episode's
            end): generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438).
        num_passes: Passes over each rollout.
        clip_range: How far an action's probability may move within a rollout before it is no longer pushed.
        entropy_weight: Weight of the policy's entropy, which keeps it trying.
        value_weight: Weight of the critic's squared error.
        normalise_advantages: Whether each update's advantages are brought to mean 0 and standard deviation 1.
        normalise_observations: Whether numbers that are seen are brought to mean 0 and standard deviation 1, of all
            that were seen so far; kept in checkpoints.
        normalise_returns: Whether the critic learns returns with mean 0 and standard deviation 1, of all so far; for
            rewards of another size than 1 (van Hasselt et al. 2016, arXiv:1602.07714).
        first_deviation: Standard deviation of numbers of an action at first, of a range from -1 to 1.
        lr: Learning rate.
        schedule: Learning rate over training: constant, cosine (to 0) or step (a tenth from half of training, a
            hundredth from three quarters).

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_actions: int,
        action_dim: int,
        hidden_dims: tuple[int, ...] = (64, 64),
        activation: Activation = "tanh",
        gamma: float = 0.98,
        gae_lambda: float = 0.8,
        num_passes: int = 20,
        clip_range: float = 0.2,
        entropy_weight: float = 0.0,
        value_weight: float = 0.5,
        normalise_advantages: bool = True,
        normalise_observations: bool = True,
        normalise_returns: bool = False,
        first_deviation: float = 0.6,
        lr: float = 1e-3,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self._check()
        self.settings = optimization.Settings(
            optimizer="adamw", lr=lr, weight_decay=0.0, schedule=schedule, warmup=0.0
        )  # fmt: skip
        # A policy that is nearly even at first explores; Andrychowicz et al. 2021 (arXiv:2006.05990) found that to pay.
        self.actor, self.critic = (
            headed(Sight(input_shape, hidden_dims, activation), width, scale)
            for width, scale in ((num_actions or action_dim, 0.01), (1, 1.0))
        )
        if action_dim:
            self.log_deviation_A = nn.Parameter(torch.full((action_dim,), first_deviation).log())
        self.observations = Moments(input_shape) if normalise_observations and len(input_shape) == 1 else None
        self.returns = Moments(()) if normalise_returns else None
        self.example_input_array = torch.zeros(1, *input_shape)

    def _check(self) -> None:
        key = self.hparams
        for name in ("gamma", "gae_lambda"):
            if not 0 <= key[name] <= 1:
                raise ValueError(f"model.{name}: expected from 0 to 1, got {key[name]}")
        for name in ("entropy_weight", "value_weight"):
            if key[name] < 0:
                raise ValueError(f"model.{name}: expected at least 0, got {key[name]}")
        for name in ("clip_range", "first_deviation"):
            if key[name] <= 0:
                raise ValueError(f"model.{name}: expected more than 0, got {key[name]}")
        if key.num_passes < 1:
            raise ValueError(f"model.num_passes: expected at least 1, got {key.num_passes}")
        if not key.hidden_dims or min(key.hidden_dims) < 1:
            raise ValueError(f"model.hidden_dims: expected widths of at least 1, got {list(key.hidden_dims)}")

    def players(self) -> Mapping[str, Player]:
        return {"agent": Player(networks=[self], settings=self.settings)}

    def num_moves(self, name: str, num_batches: int) -> int:
        data = self.trainer.datamodule
        return num_batches * self.hparams.num_passes * -(-data.steps_per_batch // data.batch_size)

    def _normal(self, seen: Tensor) -> Tensor:
        if self.observations is None:
            return seen
        return self.observations.normal(seen).clamp(-LARGEST_OBSERVATION, LARGEST_OBSERVATION)

    def _policy(self, normal: Tensor) -> Distribution:
        outputs_NA = self.actor(normal)
        if self.hparams.num_actions:
            return Categorical(logits=outputs_NA, validate_args=False)
        deviation_NA = self.log_deviation_A.exp().expand_as(outputs_NA)
        return Independent(Normal(outputs_NA, deviation_NA, validate_args=False), 1, validate_args=False)

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of actions or the mean of their numbers, shape (N, A), and what the state is worth, (N,)."""
        normal = self._normal(seen)
        return self.actor(normal), self._worth(normal)

    def explore(self, seen: Tensor) -> Tensor:
        return self._policy(self._normal(seen)).sample()

    def exploit(self, seen: Tensor) -> Tensor:
        outputs_NA = self.actor(self._normal(seen))
        return outputs_NA.argmax(dim=1) if self.hparams.num_actions else outputs_NA

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        key = self.hparams
        normal, last = (self._normal(batch[name]) for name in ("seen", "last_seen"))
        num_steps, acted_TE = len(normal), batch["acted"]
        normal, action = normal.flatten(0, 1), batch["action"].flatten(0, 1)
        with torch.no_grad():
            before_N = self._policy(normal).log_prob(action)
            value_TE = self._worth(normal).unflatten(0, (num_steps, -1))
            next_TE = torch.cat([value_TE[1:], self._worth(last)[None]])
            advantage_TE = advantages(
                batch["reward"], value_TE, next_TE, batch["terminated"], batch["truncated"], key.gamma, key.gae_lambda
            )
        return_N, advantage_N, acted_N = (x.flatten() for x in (advantage_TE + value_TE, advantage_TE, acted_TE))
        if self.returns is not None:
            self.returns.update(return_N[acted_N], self._sum)
            return_N = self.returns.normal(return_N)
        told: dict[str, list[Tensor]] = {}
        with self.turn("agent") as move:
            for some in self._updates(len(normal)):
                values = self._losses(
                    normal[some], action[some], before_N[some], advantage_N[some], return_N[some], acted_N[some]
                )
                move(values["loss"])
                for name, value in values.items():
                    told.setdefault(name, []).append(value.detach())
        if self.observations is not None:
            self.observations.update(batch["seen"].flatten(0, 1), self._sum)
        if self.hparams.action_dim:
            told["deviation"] = [self.log_deviation_A.detach().exp().mean()]
        return {name: torch.stack(values).mean() for name, values in told.items()}

    def _updates(self, num_steps: int) -> Iterator[Tensor]:
        """Which steps of a rollout each update learns from; as many on every rank."""
        data = self.trainer.datamodule
        size = data.batch_size // self.trainer.world_size
        for _ in range(self.hparams.num_passes):
            yield from torch.randperm(num_steps).tensor_split(-(-num_steps // size))

    def _losses(
        self, normal: Tensor, action: Tensor, before_B: Tensor, advantage_B: Tensor, return_B: Tensor, acted_B: Tensor
    ) -> dict[str, Tensor]:
        key = self.hparams
        count = acted_B.sum().clamp(min=1)

        def mean(values_B: Tensor) -> Tensor:
            return (values_B * acted_B).sum() / count

        if key.normalise_advantages:
            centred_B = advantage_B - mean(advantage_B)
            advantage_B = centred_B / (mean(centred_B.square()).sqrt() + 1e-8)
        policy = self._policy(normal)
        ratio_B = (policy.log_prob(action) - before_B).exp()
        policy_loss = mean(clipped_loss(ratio_B, advantage_B, key.clip_range))
        value_loss = mean((self.critic(normal)[:, 0] - return_B).square())
        entropy = mean(policy.entropy())
        loss = policy_loss + key.value_weight * value_loss - key.entropy_weight * entropy
        clipped = mean(((ratio_B - 1).abs() > key.clip_range).float())
        return {
            "loss": loss, "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy, "clipped": clipped
        }  # fmt: skip

    def _worth(self, normal: Tensor) -> Tensor:
        """What the critic says states are worth, shape (N,)."""
        worth_N = self.critic(normal)[:, 0]
        return worth_N if self.returns is None else worth_N * self.returns.deviation() + self.returns.mean

    def _sum(self, values: Tensor) -> Tensor:
        """Over all ranks."""
        return self.trainer.strategy.reduce(values, reduce_op="sum") if self.trainer.world_size > 1 else values


def headed(sight: Sight, width: int, scale: float) -> nn.Sequential:
    """Sight with a last layer; orthogonal weights (Saxe et al. 2014, arXiv:1312.6120), those of the last scaled."""
    network = nn.Sequential(sight, nn.Linear(sight.out_features, width))
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.orthogonal_(layer.weight, scale if layer is network[1] else 2**0.5)
            nn.init.zeros_(layer.bias)
    return network


def advantages(
    reward_TE: Tensor,
    value_TE: Tensor,
    next_TE: Tensor,
    terminated_TE: Tensor,
    truncated_TE: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Generalised advantage estimates, shape (T, E).

    Args:
        reward_TE: Rewards.
        value_TE: What the critic says of each state.
        next_TE: What it says of the state that follows.
        terminated_TE: Where an episode came to its end: nothing follows.
        truncated_TE: Where one was cut off: what follows counts, but no further step is looked at.
        gamma: What a reward of the next step is worth now.
        gae_lambda: How far ahead to look.
    """
    error_TE = reward_TE + gamma * next_TE * ~terminated_TE - value_TE
    goes_on_TE = gamma * gae_lambda * ~(terminated_TE | truncated_TE)
    advantage_E, found = torch.zeros_like(error_TE[0]), []
    for error_E, goes_on_E in zip(error_TE.flip(0), goes_on_TE.flip(0), strict=True):
        advantage_E = error_E + goes_on_E * advantage_E
        found.append(advantage_E)
    return torch.stack(found[::-1])


def clipped_loss(ratio_B: Tensor, advantage_B: Tensor, clip_range: float) -> Tensor:
    """Loss of each action by how much more probable it has become, shape (B,)."""
    return -torch.minimum(ratio_B * advantage_B, ratio_B.clamp(1 - clip_range, 1 + clip_range) * advantage_B)


class Moments(nn.Module):
    """Mean and variance of all values so far (Chan et al. 1983)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))
        self.register_buffer("count", torch.tensor(0.0))

    def update(self, values: Tensor, total: Callable[[Tensor], Tensor]) -> None:
        """Take further values into account, shape (N, ...).

        Args:
            values: This rank's.
            total: Sums a tensor over all ranks.
        """
        count = total(torch.tensor(float(len(values)), device=values.device))
        mean = total(values.sum(dim=0)) / count
        variance = total((values - mean).square().sum(dim=0)) / count
        both = self.count + count
        apart = mean - self.mean
        self.variance = (self.count * self.variance + count * variance) / both + apart.square() * self.count * count / (
            both * both
        )
        self.mean, self.count = self.mean + apart * count / both, both

    def deviation(self) -> Tensor:
        """Standard deviation, never quite 0."""
        return (self.variance + 1e-8).sqrt()

    def normal(self, values: Tensor) -> Tensor:
        """Values with mean 0 and standard deviation 1."""
        return (values - self.mean) / self.deviation()
