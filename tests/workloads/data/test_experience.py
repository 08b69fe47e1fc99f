"""Experience as data: episodes that judge, what a batch holds beside what was lived through, and what is refused."""

import gymnasium
import numpy as np
import odd_environments
import pytest
import torch
from torch import nn

from workloads.data.replay import Replay
from workloads.data.rollouts import Rollouts

SMALL = {"num_envs": 4, "batch_size": 8, "steps_per_epoch": 64, "num_episodes": 6}
REPLAY = {**SMALL, "steps_per_batch": 32, "updates_per_batch": 5, "learning_starts": 40, "replay_size": 400}


class Wanderer(nn.Module):
    """Acts at random, and takes what it sees for a vote."""

    device = torch.device("cpu")

    def __init__(self, num_actions):
        super().__init__()
        self.num_actions, self.play, self.learned, self.hparams = num_actions, None, None, {}

    def explore(self, seen):
        assert seen.ndim >= 2
        if not self.num_actions:
            return torch.randn(len(seen), 1)
        return torch.randint(self.num_actions, (len(seen),))

    def exploit(self, seen):
        score = seen.float().flatten(1).sum(dim=1)
        return (score > 0).long() if self.num_actions else score[:, None].tanh()


def ready(kind=Replay, **keys):
    data = kind(**({**REPLAY, **keys} if kind is Replay else {**SMALL, "rollout_length": 8, **keys}))
    data.setup("fit")
    data.attach(Wanderer(data.num_actions))
    return data


def batches(data, rank=0, world_size=1):
    loader = data.batches("train")
    loader.rank, loader.world_size = rank, world_size
    return loader


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_episodes_are_those_that_gymnasium_plays_alone(name):
    data = ready(Rollouts, env=name)
    seeds = torch.tensor([5, 6, 7])
    played = data.play(data.agent.exploit, seeds)
    form = data.form
    for k, seed in enumerate(seeds.tolist()):
        environment = gymnasium.make(name)
        shown, _ = environment.reset(seed=seed)
        total, done, steps = 0.0, False, 0
        while not done:
            action = data.agent.exploit(torch.from_numpy(shown)[None])[0].numpy()
            shown, reward, terminated, truncated, _ = environment.step(form.native(action))
            assert np.array_equal(played["actions"][k, steps].numpy(), action)
            total, steps, done = total + reward, steps + 1, terminated or truncated
        assert played["return"][k].item() == pytest.approx(total, rel=1e-5) and played["length"][k] == steps
    again = data.play(data.agent.exploit, seeds[1:])
    assert torch.equal(again["return"], played["return"][1:])


def test_validation_and_test_are_of_other_seeds_than_each_other_and_training():
    data = ready()
    seeds = {split: data.splits[split].gather(torch.arange(6))["episode"] for split in ("validation", "test")}
    assert not set(seeds["validation"].tolist()) & set(seeds["test"].tolist())
    (batch,) = data.batches("validation")
    assert torch.equal(batch["episode"], seeds["validation"])


@pytest.mark.parametrize("keys", [{}, {"n_step": 3, "frame_stack": 2, "priority_exponent": 0.6}])
def test_what_is_remembered_is_what_was_lived_through(keys):
    data = ready(env="Corridor-v0", **keys)
    steps, stack = keys.get("n_step", 1), keys.get("frame_stack", 1)
    for batch in batches(data):
        assert batch["seen"].shape == (5, 8, 2 * stack) and batch["rewards"].shape == (5, 8, steps)
        seen, following = batch["seen"].flatten(0, 1), batch["next_seen"].flatten(0, 1)
        place = (seen[:, -2] * 4).round()
        action = batch["action"].flatten()
        first_reward = batch["rewards"].flatten(0, 1)[:, 0]
        expected = torch.where((place == 3) & (action == 1), 1.0, -0.1)
        assert torch.allclose(first_reward, expected)
        taken, terminated = batch["steps"].flatten(), batch["terminated"].flatten()
        # The corridor counts its steps in what it shows: what follows is as many steps later, of the same episode.
        assert torch.allclose((following[:, -1] - seen[:, -1]) * 100, taken.float(), atol=1e-3)
        assert torch.equal(terminated, (following[:, -2] * 4).round() == 4)
        if stack == 2:
            counts = (seen.unflatten(1, (2, 2))[:, :, 1] * 100).round()
            assert torch.equal(counts[:, 1] - counts[:, 0], (counts[:, 1] > 0).float())
        data.learned(batch["place"], torch.rand(5, 8))
    assert data.history.size == 40 // 4 + 64 // 4 and data.totals[0] <= 104


def test_errors_decide_what_is_drawn_next():
    data = ready(env="Corridor-v0", priority_exponent=1.0, replay_size=200)
    first, second = batches(data)
    data.learned(first["place"], torch.zeros(5, 8))
    wanted = first["place"][0, 0]
    data.learned(wanted[None, None], torch.full((1, 1), 500.0))
    rows, envs, weights = data.history.sample(200, 1, 1, 1.0)
    hits = (rows == wanted[0]) & (envs == wanted[1])
    assert hits.float().mean() > 0.7 and weights[hits].max() < 0.1
    newest = data.history.place
    third = data.collect()
    assert data.history.columns["priority"][newest].tolist() == pytest.approx([500.001] * 4)
    assert third["weight"].shape == second["weight"].shape


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_a_rollout_holds_its_steps_in_order(name):
    data = ready(Rollouts, env=name, frame_stack=2)
    width = data.form.frame_shape[0]
    last = None
    for batch in batches(data):
        assert batch["seen"].shape == (8, 4, 2 * width)
        assert batch["action"].dtype == (torch.int64 if data.num_actions else torch.float32)
        if last is not None:
            assert torch.equal(batch["seen"][0], last)
        ended = batch["terminated"] | batch["truncated"]
        # What did not act shows the last frame of an episode: the row after an end, and no other.
        assert torch.equal(batch["acted"][1:], ~ended[:-1])
        newer, older = batch["seen"][1:, :, :width], batch["seen"][:-1, :, width:]
        goes_on = batch["acted"][:-1]
        assert torch.equal(newer[goes_on], older[goes_on])
        last = batch["last_seen"]


def test_pictures_reach_the_network_as_bytes():
    data = ready(env="Pictures-v0", frame_stack=3, image_side=40)
    assert data.input_shape == (3, 40, 40) and data.num_actions == 2
    batch = next(iter(batches(data)))
    assert batch["seen"].shape == (5, 8, 3, 40, 40) and batch["seen"].dtype == torch.uint8
    bright = batch["seen"][:, :, -1, 20].float()
    side = bright[..., 20:].sum(dim=2) > bright[..., :20].sum(dim=2)
    assert torch.equal(batch["rewards"][..., 0] == 1, side == (batch["action"] == 1))


@pytest.mark.parametrize("kind", [Replay, Rollouts])
@pytest.mark.parametrize("name", ["CartPole-v1", "Pictures-v0"])
def test_going_on_in_mid_epoch_is_as_if_nothing_had_been(kind, name):
    whole, stopped = ready(kind, env=name, frame_stack=2), ready(kind, env=name, frame_stack=2)
    expected = list(batches(whole))
    loader = batches(stopped)
    for _, _ in zip(range(1), loader, strict=False):
        pass
    state, place = stopped.state_dict(), loader.state_dict()
    resumed = ready(kind, env=name, frame_stack=2)
    resumed.load_state_dict(state)
    loader = batches(resumed)
    loader.load_state_dict(place)
    rest = list(loader)
    assert len(rest) == len(expected) - 1 > 0
    for ours, theirs in zip(rest, expected[1:], strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.equal(resumed.totals, whole.totals) and resumed.concerns == []


def test_a_checkpoint_without_past_steps_collects_some_first():
    data = ready(checkpoint_replay=False)
    loader = batches(data)
    next(iter(loader))
    state = data.state_dict()
    assert "history" not in state["experience"] and data.cost == ""
    resumed = ready(checkpoint_replay=False)
    resumed.load_state_dict(state)
    loader = batches(resumed)
    loader.load_state_dict({"epoch": 0, "next_batch": 1})
    next(iter(loader))
    assert resumed.history.size == 40 // 4 + 32 // 4
    assert resumed.totals[0] > data.totals[0]


def test_an_environment_that_does_not_repeat_itself_is_told_of(monkeypatch):
    data = ready(env="Forgetful-v0")
    for _, _ in zip(range(1), batches(data), strict=False):
        pass
    resumed = ready(env="Forgetful-v0")
    resumed.load_state_dict(data.state_dict())
    odd_environments.Forgetful.starts += 1
    next(iter(batches(resumed)))
    assert "does not repeat itself" in resumed.concerns[0]
    # Those that are elsewhere see the first frame of another episode, as if it had been there before.
    assert resumed.history.size == data.history.size + 8


def test_workers_share_the_environments_and_one_takes_over_from_two():
    ranks = [ready(), ready()]
    for rank, data in enumerate(ranks):
        data.start(rank, 2)
        for _ in range(11):
            data.advance()
    from workloads.data._experience import together

    parts = []
    for data in ranks:
        data.world_size = 1
        parts.append(data.state_dict()["experience"])
    alone = ready()
    alone.load_state_dict({"experience": together(parts)})
    alone.start(0, 1)
    assert alone.concerns == [] and alone.history.num_envs == 4
    for rank, data in enumerate(ranks):
        assert np.array_equal(alone.frames[rank::2], data.frames)
        ours, theirs = alone.history.state()["frame"][:, rank::2], data.history.state()["frame"]
        assert torch.equal(ours, theirs)
    assert alone.totals[0] == sum(data.totals[0] for data in ranks)


@pytest.mark.parametrize(
    ("kind", "keys", "said"),
    [
        (Replay, {"num_envs": 0}, r"data\.num_envs: expected at least 1, got 0"),
        (Replay, {"steps_per_batch": 3}, r"data\.steps_per_batch: expected at least one of each of 4 environments"),
        (Replay, {"priority_exponent": 1.5}, r"data\.priority_exponent: expected from 0 to 1"),
        (Replay, {"replay_size": 39}, r"data\.replay_size: expected at least the 40 steps before an update, got 39"),
        (Replay, {"step_timeout": 0.0}, r"data\.step_timeout: expected more than 0"),
        (Replay, {"steps_per_epoch": 16}, r"data\.steps_per_epoch: 16 steps are less than the 32 of one batch"),
        (
            Replay,
            {"env": "Pictures-v0", "image_side": 400, "replay_size": 1_000_000},
            r"data\.replay_size: .* 149\.0 GiB",
        ),
        (Replay, {"env": "Pendulum-v1"}, r"Pendulum-v1 takes actions of 1 numbers.*take actor_critic"),
        (Rollouts, {"batch_size": 100}, r"data\.batch_size: 100 is more than the 32 steps"),
        (Rollouts, {"rollout_length": 1}, r"data\.rollout_length: expected at least 2"),
    ],
)
def test_bad_keys_are_refused(kind, keys, said):
    with pytest.raises(ValueError, match=said):
        ready(kind, **keys)


def test_episodes_are_asked_for_by_seed():
    data = Replay()
    inputs = data.encode([], num_episodes=2, first_seed=9)
    assert inputs.names == ["seed 9", "seed 10"]
    with pytest.raises(ValueError, match="an agent plays episodes; leave inputs out"):
        data.encode(["x"])
    with pytest.raises(ValueError, match="--num-episodes: expected at least 1"):
        data.encode([], num_episodes=0)


def test_an_episode_is_drawn_as_it_was_played(tmp_path):
    from PIL import Image

    data = ready()
    inputs = data.encode([], num_episodes=2)
    episode = inputs.examples.gather(torch.arange(2))["episode"]
    answers = data.answers({**data.play(data.agent.exploit, episode), "episode": episode})
    assert data.picture(inputs, answers, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as film:
        shown = 0
        for k in range(film.n_frames):  # equal frames are one that is shown for longer
            film.seek(k)
            shown += film.info["duration"]
        assert shown == 20 * (answers[0]["steps"] + 1) and film.size == (600, 400) and film.n_frames > 50
    answers[0]["return"] += 1
    with pytest.raises(ValueError, match="does not repeat an episode"):
        data.picture(inputs, answers, tmp_path / "b.gif")
    assert not (tmp_path / "b.gif").exists()
