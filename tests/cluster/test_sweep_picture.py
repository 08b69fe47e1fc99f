"""The picture of a sweep: what its axes say, and that odd sweeps draw too."""

import struct
from itertools import pairwise

import numpy as np
import pytest

from cluster.picture_axes import UNSET, short_names, wrap
from cluster.sweep_picture import Sweep, draw, figure

POINTS = [
    {"model.lr": 1e-4, "model.head_dims": [64, 32], "model.bias": True},
    {"model.lr": 1e-3, "model.head_dims": [], "model.bias": True, "model.width": 16},
    {"model.lr": 1e-2, "model.head_dims": [64, 32], "model.bias": False, "model.width": 8},
    {"model.lr": 1e-3, "model.head_dims": [], "model.bias": False},
]


def sweep(**changes):
    told = {
        "title": "digits",
        "monitor": "val/loss",
        "mode": "min",
        "points": POINTS,
        "scores": [0.5, 0.2, None, 0.3],
        "statuses": ["finished", "stopped early", "failed", "finished"],
        "minutes": [1.0, 4.0, 5.0, 2.0],
        "importances": {"model.lr": 0.7, "model.head_dims": 0.2, "model.bias": 0.1},
    }
    return {**told, **changes}


def axes(**changes):
    return figure(Sweep(**sweep(**changes))).axes


def texts(panel, gid):
    return [text.get_text() for text in panel.texts if text.get_gid() == gid]


def line(panel, label):
    return next(one for one in panel.lines if one.get_label() == label)


def said(drawn):
    return " | ".join(text.get_text() for text in drawn.texts)


def test_a_png_of_the_right_size(tmp_path):
    draw(tmp_path / "sweep.png", **sweep())
    content = (tmp_path / "sweep.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", content[16:24]) == (1760, 990)


def test_axes_go_by_importance_and_the_score_is_last():
    parallel = axes()[0]
    assert texts(parallel, "name") == ["lr", "head_dims", "bias", "width", "val/loss"]
    ticks = texts(parallel, "tick")
    assert ticks[:3] == ["0.0001", "0.001", "0.01"] and "[64,32]" in ticks and "unset" in ticks and "no score" in ticks
    # Best trial: lr amid a log axis, no head, "true" (short texts first), the larger width, the best score on top.
    assert line(parallel, "best").get_ydata() == pytest.approx([0.5, 0, 0, 1, 1])
    scored = next(c for c in parallel.collections if c.get_label() == "scored").get_segments()
    assert [path[-1][1] for path in scored] == pytest.approx([0, 2 / 3])
    (lost,) = next(c for c in parallel.collections if c.get_label() == "no score").get_segments()
    assert lost[-1][1] == UNSET and scored[0][3][1] == UNSET


def test_importance_is_a_bar_a_key():
    bars = axes()[1]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["lr", "head_dims", "bias"]
    assert [bar.get_width() for bar in bars.patches] == [0.7, 0.2, 0.1]
    assert [text.get_text() for text in bars.texts] == ["70%", "20%", "10%"]


def test_the_best_so_far_by_trial_and_by_time():
    _, _, trials, time = axes()
    assert line(trials, "best so far").get_xydata().tolist() == [[1, 0.5], [2, 0.2], [4, 0.2], [4, 0.2]]
    assert line(time, "best so far").get_xydata().tolist() == [[1, 0.5], [2, 0.3], [4, 0.2], [5, 0.2]]
    marks = {c.get_label(): c for c in trials.collections}
    assert marks["finished"].get_offsets().tolist() == [[1, 0.5], [4, 0.3]]
    assert marks["stopped early"].get_facecolor()[0].tolist() == [1, 1, 1, 1]
    assert marks["no score"].get_offsets().tolist() == [[3, trials.get_ylim()[1]]]
    assert trials.get_xlabel() == "trial" and time.get_xlabel() == "minutes" and trials.get_ylabel() == "val/loss"


def test_where_higher_is_better_the_best_is_the_highest():
    parallel, _, trials, _ = axes(mode="max")
    assert line(trials, "best so far").get_ydata().tolist() == [0.5] * 4
    assert line(parallel, "best").get_ydata()[0] == 0
    assert {c.get_label(): c for c in trials.collections}["no score"].get_offsets()[0][1] == trials.get_ylim()[0]


def test_diverged_trials_stand_at_the_edge_and_are_counted():
    scores = [0.1 + 0.01 * i for i in range(20)] + [1e6, 1e8]
    changes = {"points": [{"model.lr": 0.1 * i} for i in range(22)], "scores": scores, "minutes": list(range(22))}
    drawn = figure(Sweep(**sweep(statuses=["finished"] * 22, **changes)))
    assert drawn.axes[2].get_ylim()[1] < 0.5 and "2 beyond the score's range" in said(drawn)
    assert "2 beyond" in {c.get_label() for c in drawn.axes[2].collections}


def test_a_thousand_trials_of_twenty_keys_show_twelve():
    draws = np.random.default_rng(0).uniform(size=(1000, 20))
    points = [{f"model.option_{k}": float(v) for k, v in enumerate(row)} for row in draws]
    changes = {"points": points, "scores": draws[:, 0].tolist(), "minutes": list(range(1000)), "importances": {}}
    drawn = figure(Sweep(**sweep(statuses=["finished"] * 1000, **changes)))
    assert len(texts(drawn.axes[0], "name")) == 13 and "8 of 20 keys not shown" in said(drawn)
    assert drawn.axes[3].get_xlabel() == "hours"


def test_odd_sweeps_draw(tmp_path):
    one = {"points": POINTS[:1], "scores": [0.5], "statuses": ["finished"], "minutes": [1.0], "importances": {}}
    none = {"points": [], "scores": [], "statuses": [], "minutes": [], "importances": {}}
    lost = {"scores": [None, float("nan"), None, 3.0], "statuses": ["failed"] * 3 + ["failed"], "importances": {}}
    keyless = {"points": [{}] * 4, "importances": {}}
    equal = {"scores": [1.0] * 4, "statuses": ["finished"] * 3 + ["unfinished"]}
    money = {"points": [{"data.$x_1$": "$a_", "data.why?": None}] * 4, "title": "$" * 200, "importances": {}}
    for i, changes in enumerate([one, none, lost, keyless, equal, money, {"bands": [0.1, None, None, 0.2]}]):
        draw(tmp_path / f"{i}.png", **sweep(**changes))
    assert "No trial has a score" in said(figure(Sweep(**sweep(**lost))))
    assert "1 trial: 1 finished. Best val/loss 0.5000, trial 1." in said(figure(Sweep(**sweep(**one))))


def test_no_text_is_cut_off_or_over_another_name():
    long = {f"model.{'very_' * k}long_option": [1] * 30 for k in range(12)}
    drawn = figure(Sweep(**sweep(points=[long] * 4, title="W" * 200, importances=dict.fromkeys(long, 1 / 12))))
    drawn.draw_without_rendering()
    boxes = [text.get_window_extent() for panel in drawn.axes for text in panel.texts if text.get_text()]
    boxes += [label.get_window_extent() for label in drawn.axes[1].get_yticklabels()]
    assert all(box.x0 >= 0 and box.x1 <= 1760 and box.y0 >= 0 and box.y1 <= 990 for box in boxes)
    names = [text.get_window_extent() for text in drawn.axes[0].texts if text.get_gid() == "name"]
    assert all(left.x1 < right.x0 for left, right in pairwise(names))


def test_names_are_short_but_tell_keys_apart():
    keys = ["model.lr", "data.size", "model.size"]
    assert short_names(keys) == {"model.lr": "lr", "data.size": "data.size", "model.size": "model.size"}
    assert wrap("channels.length", 12) == "channels.\nlength" and wrap("lr", 12) == "lr"
