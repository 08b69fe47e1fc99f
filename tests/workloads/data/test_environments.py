"""Environments that are stepped together: seeds, ends, going back in mid-episode, pictures, and those that fail."""

import time

import gymnasium
import numpy as np
import odd_environments  # noqa: F401, registers its environments
import pytest
import torch

from workloads.data._environments import Environments, Patient, as_frames, form_of, make


def environments(name, count=3, seed=0, timeout=30.0, side=42):
    return Environments(name, range(count), seed, side, timeout)


def test_they_do_what_each_would_do_alone():
    ours, actions = environments("CartPole-v1"), np.random.default_rng(0).integers(2, size=(60, 3))
    frames = [ours.begin()]
    ticks = [ours.step(row) for row in actions]
    again = environments("CartPole-v1")
    assert np.array_equal(again.begin(), frames[0])
    for row, tick in zip(actions, ticks, strict=True):
        other = again.step(row)
        assert np.array_equal(other.frames, tick.frames) and np.array_equal(other.acted, tick.acted)
    # The same by Gymnasium itself, up to the first end.
    alone = gymnasium.make("CartPole-v1")
    shown, _ = alone.reset(seed=ours_seed(0, 0))
    assert np.array_equal(shown, frames[0][0])
    for row, tick in zip(actions, ticks, strict=True):
        shown, reward, terminated, truncated, _ = alone.step(int(row[0]))
        assert np.array_equal(shown, tick.frames[0]) and reward == tick.rewards[0]
        assert terminated == tick.terminated[0] and truncated == tick.truncated[0]
        if terminated:
            break
    assert terminated


def ours_seed(number, episode, seed=0):
    from workloads.data._batches import mixed

    return mixed(seed, number, episode) % 2**31


def test_an_end_is_shown_before_the_next_episode_begins():
    ours = environments("Corridor-v0", 1)
    place = round(float(ours.begin()[0, 0]) * 4)
    for _ in range(4 - place):
        tick = ours.step(np.ones(1, np.int64))
        assert tick.acted.all()
    assert tick.terminated[0] and not tick.truncated[0] and tick.frames[0, 0] == 1.0
    assert tick.returns == [pytest.approx(1.0 - 0.1 * (3 - place))]
    following = ours.step(np.ones(1, np.int64))
    assert not following.acted[0] and following.frames[0, 1] == 0.0 and following.rewards[0] == 0.0
    assert ours.step(np.ones(1, np.int64)).acted[0]


def test_a_limit_of_time_cuts_off_and_does_not_end():
    ours = environments("Corridor-v0", 1)
    ours.begin()
    ticks = [ours.step(np.zeros(1, np.int64)) for _ in range(20)]
    assert ticks[-1].truncated[0] and not any(tick.terminated[0] for tick in ticks)


def test_seeds_and_numbers_decide_and_workers_share():
    whole = environments("CartPole-v1", 4).begin()
    halves = [Environments("CartPole-v1", range(rank, 4, 2), 0, 42, 30.0).begin() for rank in range(2)]
    assert np.array_equal(whole[[0, 2]], halves[0]) and np.array_equal(whole[[1, 3]], halves[1])
    assert not np.array_equal(whole, environments("CartPole-v1", 4, seed=1).begin())
    assert len(np.unique(whole, axis=0)) == 4


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Pictures-v0"])
def test_going_back_in_the_middle_of_episodes(name):
    ours = environments(name)
    ours.begin()
    random = np.random.default_rng(1)

    def action():
        return random.integers(2, size=3) if ours.form.num_actions else random.uniform(-1, 1, (3, 1)).astype(np.float32)

    for _ in range(37):
        ours.step(action())
    state = ours.state()
    again = environments(name)
    frames, there = again.restore(state)
    assert there.all() and np.array_equal(frames, ours.frames)
    for _ in range(40):
        row = action()
        one, other = ours.step(row), again.step(row)
        assert np.array_equal(one.frames, other.frames) and np.array_equal(one.rewards, other.rewards)
        assert np.array_equal(one.acted, other.acted) and one.returns == pytest.approx(other.returns)


def test_one_that_does_not_repeat_itself_is_begun_anew():
    ours = environments("Forgetful-v0", 2)
    ours.begin()
    for _ in range(2):
        ours.step(np.zeros(2, np.int64))
    state = ours.state()
    state["frames"][1] = 0.5  # where the second cannot be
    frames, there = environments("Forgetful-v0", 2).restore(state)
    assert not there[1] and frames[1, 1] == 0.0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Raises-v0", "environment 1 raised RuntimeError: the motor is on fire, at step 6 of its episode 0"),
        ("GivesNaN-v0", "gave an observation that is not finite, at step 7"),
        ("Rewards-v0", "gave a reward that is not finite, at step 7"),
        ("Hangs-v0", r"environment 1 hung: no answer within 0\.5 s, at step 6"),
    ],
)
def test_one_that_fails_is_named_in_a_line(name, said):
    ours = Environments(name, [1], 0, 42, 0.5 if "Hangs" in name else 30.0)
    ours.begin()
    began = time.monotonic()
    with pytest.raises(ValueError, match=rf"^data\.env: {name}: .*{said}.*goes on from the last checkpoint$"):
        for _ in range(10):
            ours.step(np.zeros(1, np.int64))
    assert time.monotonic() - began < 5


def test_environments_that_are_not_there_or_do_not_fit():
    with pytest.raises(ValueError, match=r"no environment 'CartPole-v7'; did you mean .*CartPole-v1"):
        make("CartPole-v7")
    with pytest.raises(ValueError, match=r"no environment 'CartPool-v1'; did you mean CartPole-v1"):
        make("CartPool-v1")
    with pytest.raises(ValueError, match=r"cannot be made: Malformed environment ID"):
        make("")
    with pytest.raises(ValueError, match=r"needs a package: .*nowhere"):
        make("nowhere:Thing-v0")
    with pytest.raises(ValueError, match=r"Several-v0 takes actions of the kind MultiDiscrete"):
        form_of("Several-v0", make("Several-v0"), 42)


def test_a_missing_package_is_named():
    with pytest.raises(ValueError, match=r"data\.env: .* needs a package: .*box2d"):
        make("LunarLander-v3")


def test_numbers_of_places_become_a_list_of_which_one_is_1():
    environment = make("Counts-v0")
    form = form_of("Counts-v0", environment, 42)
    shown, _ = environment.reset(seed=3)
    assert form.frame_shape == (5,) and shown.sum() == 1


def test_pictures_become_grey_squares():
    environment = make("Pictures-v0")
    form = form_of("Pictures-v0", environment, 40)
    assert form.is_picture and form.frame_shape == (40, 40) and (form.num_actions, form.first_action) == (2, 5)
    picture = np.zeros((50, 60, 3), np.uint8)
    picture[..., 0], picture[..., 1], picture[..., 2] = 10, 100, 200
    frames = as_frames(form, [picture, picture // 2])
    assert frames.dtype == np.uint8 and frames.shape == (2, 40, 40)
    assert (frames[0] == round(0.299 * 10 + 0.587 * 100 + 0.114 * 200)).all()


def test_numbers_of_an_action_reach_from_low_to_high():
    form = form_of("Pendulum-v1", make("Pendulum-v1"), 42)
    assert [form.native(np.array([value])).item() for value in (-3.0, -1.0, 0.0, 0.5, 9.0)] == [-2, -2, 0, 1, 2]


def test_the_patient_thread_ends_with_its_owner():
    import gc
    import threading

    before = set(threading.enumerate())
    patient = Patient(1.0)
    assert patient(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        patient(lambda: 1 / 0)
    (thread,) = set(threading.enumerate()) - before
    del patient
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_states_are_plain_tensors():
    ours = environments("CartPole-v1")
    ours.begin()
    state = ours.state()
    assert all(isinstance(value, torch.Tensor) for value in (state["episode"], state["frames"], *state["actions"]))
