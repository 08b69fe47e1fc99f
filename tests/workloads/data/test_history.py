"""The ring of past steps: what is seen back, what follows, what is drawn how often, and what must never be."""

from types import MappingProxyType

import numpy as np
import pytest
import torch

from workloads.data._environments import Form
from workloads.data._history import History

FORM = Form((1,), is_picture=False, num_actions=3)


def filled(length, ticks, num_envs=1, ends=MappingProxyType({}), cuts=MappingProxyType({})):
    """A history whose frame is the tick; after an end follows the last frame, and then another episode's first.

    Args:
        ends, cuts: Environment to ticks whose action ended its episode, or cut it off.
    """
    history = History(FORM, length, num_envs)
    waits, first = np.zeros(num_envs, bool), np.ones(num_envs, bool)
    for tick in range(ticks):
        terminated = np.array([tick in ends.get(e, ()) for e in range(num_envs)])
        truncated = np.array([tick in cuts.get(e, ()) for e in range(num_envs)])
        history.add(
            frame=np.full((num_envs, 1), tick, np.float32), action=np.full(num_envs, tick % 3),
            reward=np.where(waits, 0.0, 10.0**-tick if tick < 6 else 1.0), terminated=terminated, truncated=truncated,
            acted=~waits, first=first, priority=1.0,
        )  # fmt: skip
        first, waits = waits, terminated | truncated
    return history


def test_frames_seen_back_do_not_reach_over_an_episode_s_beginning():
    history = filled(10, 7, ends={0: [2]})  # 0 1 2 end, 3 is the last frame, 4 5 6 another episode
    rows = torch.tensor([0, 2, 3, 4, 6])
    seen = history.seen(rows, torch.zeros(5, dtype=torch.int64), 3)[..., 0]
    assert seen.tolist() == [[0, 0, 0], [0, 1, 2], [1, 2, 3], [4, 4, 4], [4, 5, 6]]


def test_what_follows_stops_at_the_end_of_an_episode():
    history = filled(10, 8, ends={0: [2]}, cuts={0: [5]})  # 4 5 cut, 6 is the last frame
    rows = torch.tensor([0, 1, 2, 4, 5])
    ahead = history.ahead(rows, torch.zeros(5, dtype=torch.int64), 3)
    assert ahead["steps"].tolist() == [3, 2, 1, 2, 1]
    assert ahead["terminated"].tolist() == [True, True, True, False, False]
    assert ahead["next_row"].tolist() == [3, 3, 3, 6, 6]  # of what is cut off, its own last frame
    expected = [[1, 0.1, 0.01], [0.1, 0.01, 0], [0.01, 0, 0], [1e-4, 1e-5, 0], [1e-5, 0, 0]]
    assert ahead["rewards"].tolist() == [pytest.approx(row, rel=1e-5) for row in expected]


def drawn(history, count=4000, num_steps=1, num_frames=1, exponent=0.0):
    torch.manual_seed(0)
    rows, envs, weights = history.sample(count, num_steps, num_frames, exponent)
    return rows, envs, weights


def test_only_what_is_whole_is_drawn():
    history = filled(10, 7, num_envs=2, ends={1: [1]})
    rows, envs, weights = drawn(history, num_steps=2)
    found = set(zip(rows.tolist(), envs.tolist(), strict=True))
    # Not the newest two rows, of which not all that follows is known; not row 2 of env 1, a last frame.
    assert found == {(r, 0) for r in range(5)} | {(0, 1), (1, 1), (3, 1), (4, 1)}
    assert weights.tolist() == pytest.approx([1.0] * 4000)


def test_a_full_ring_writes_over_the_oldest():
    history = filled(5, 12)
    assert sorted(history.columns["frame"][:, 0, 0].tolist()) == [7, 8, 9, 10, 11]
    rows, envs, _ = drawn(history, num_frames=2)
    frames = history.seen(rows, envs, 2)[..., 0]
    assert set(map(tuple, frames.tolist())) == {(7, 8), (8, 9), (9, 10)}  # 11 has no next yet, 7 no frame before it
    following = history.columns["frame"][history.ahead(rows, envs, 1)["next_row"], envs, 0]
    assert (following == frames[:, 1] + 1).all()


def test_priorities_decide_how_often_and_weights_make_up_for_it():
    history = filled(6, 5)
    history.columns["priority"][:4, 0] = torch.tensor([1.0, 4.0, 16.0, 0.25])
    rows, _, weights = drawn(history, 40_000, exponent=0.5)
    share = rows.bincount(minlength=4) / len(rows)
    expected = torch.tensor([1.0, 2.0, 4.0, 0.5]) / 7.5
    assert torch.allclose(share, expected, atol=0.01)
    assert torch.allclose(weights, (1 / (4 * expected))[rows])


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="no step to learn from yet"):
        History(FORM, 4, 1).sample(3, 1, 1, 0.0)


def test_a_state_taken_over_goes_on_as_before_even_into_another_length():
    history = filled(8, 13, num_envs=2, ends={0: [10]})
    state = history.state()
    assert state["frame"][:, 0, 0].tolist() == list(range(5, 13))
    for length in (8, 20, 4):
        other = History(FORM, length, 2)
        other.restore(state)
        assert other.size == min(8, length)
        for name in other.columns:
            assert torch.equal(other.state()[name], state[name][-other.size :])
        other.add(frame=np.full((2, 1), 99.0), acted=np.ones(2, bool))
        assert other.columns["frame"][other.row(0), 0, 0] == 99 and other.columns["frame"][other.row(1), 0, 0] == 12


def test_what_does_not_go_on_leads_nowhere():
    history = filled(20, 7, num_envs=2)
    history.cut(np.array([False, True]), 3)
    history.add(frame=np.full((2, 1), 50.0), acted=np.ones(2, bool), first=np.array([False, True]))
    history.add(frame=np.full((2, 1), 51.0), acted=np.ones(2, bool))
    history.add(frame=np.full((2, 1), 52.0), acted=np.ones(2, bool))
    history.add(frame=np.full((2, 1), 53.0), acted=np.ones(2, bool))
    rows, envs, _ = drawn(history, num_steps=3)
    of_cut = set(rows[envs == 1].tolist())
    assert of_cut == {0, 1, 2, 3, 7} and set(rows[envs == 0].tolist()) == set(range(8))
