"""The figures of a diagnosis show what was measured."""

import math
import struct

from cluster.diagnose_picture import FLOOR, distances, gradients, png
from workloads._diagnose import Curve

CURVES = [
    Curve("rnn-sigmoid", "initial", "hidden", [1.0, 1e-20, 1e-60, 0.0], [4, 4, 4, 2]),
    Curve("lstm", "initial", "hidden", [0.5, 0.25, 0.125], [4, 4, 4]),
    Curve("lstm", "initial", "memory", [1.0, 1.0, 1.0], [4, 4, 4]),
    Curve("rnn-sigmoid", "trained", "hidden", [1.0, 2.0, math.inf], [4, 4, 4]),
]
SCORES = [
    {"cell": cell, "distance": distance, "accuracy": accuracy, "chance": 0.25}
    for cell, distance, accuracy in (
        ("rnn-tanh", 10, 1.0),
        ("rnn-tanh", 100, None),
        ("gru", 10, 1.0),
        ("gru", 100, 0.9),
    )
]


def lines(axes):
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def test_norms_stand_in_a_panel_before_and_one_after_training_on_a_logarithmic_scale():
    before, after = gradients("title", CURVES).axes
    assert [axes.get_title(loc="left") for axes in (before, after)] == ["before training", "after training"]
    assert before.get_yscale() == "log" and before.get_ylim() == after.get_ylim()
    assert lines(before)["lstm"] == [0.5, 0.25, 0.125] and lines(before)["lstm, its memory"] == [1.0, 1.0, 1.0]
    assert lines(before)["rnn-sigmoid"] == [1.0, 1e-20, 1e-60, 0.0]
    assert before.get_ylim()[0] == FLOOR and before.get_ylim()[1] > 2
    assert lines(after)["rnn-sigmoid"][:2] == [1.0, 2.0]


def test_a_run_of_one_set_of_weights_has_one_panel():
    assert len(gradients("title", CURVES[:2]).axes) == 1


def test_a_metric_stands_at_its_distance_and_what_failed_nowhere():
    (axes,) = distances("title", "accuracy", SCORES).axes
    assert lines(axes) == {"rnn-tanh": [1.0], "gru": [1.0, 0.9], "chance": [0.25, 0.25]}
    assert [list(line.get_xdata()) for line in axes.lines[:2]] == [[10], [10, 100]]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["10", "100"]


def test_a_cell_that_failed_everywhere_is_in_no_line():
    failed = [{"cell": "rnn-relu", "distance": 10, "accuracy": None, "chance": 0.25}]
    assert lines(distances("title", "accuracy", [*SCORES, *failed]).axes[0]).keys() == {"rnn-tanh", "gru", "chance"}


def test_a_png():
    content = png(gradients("title", CURVES))
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", content[16:24]) == (1430, 616)
