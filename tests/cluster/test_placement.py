"""How many workers: a number or a range, and what a cluster has room for."""

from dataclasses import replace

import pytest

from cluster.cli import main, parse_train
from cluster.placement import Placement
from cluster.preflight import Node, fit, wanted


@pytest.mark.parametrize(
    ("text", "workers", "fewest", "most"),
    [(3, 3, 3, 3), ("3", 3, 3, 3), ("2-8", "2-8", 2, 8), ("1 - 2", "1-2", 1, 2), ("4-4", 4, 4, 4)],
)
def test_workers_are_a_number_or_a_range(text, workers, fewest, most):
    placement = Placement(workers=text)
    assert (placement.workers, placement.fewest, placement.most) == (workers, fewest, most)
    assert placement.is_elastic == (fewest < most)


@pytest.mark.parametrize("text", ["0", "-1", "3-1", "0-2", "1-2-3", "two", "2-", "1.5"])
def test_nonsense_is_refused_in_one_line(text, capsys):
    assert main(["train", "mlp", f"--workers={text}"]) == 2
    told = f"raydeck: --workers: expected a number of at least 1, or a range such as 2-8, got {text}\n"
    assert capsys.readouterr().err == told


def test_flags_take_a_range_and_a_sweep_does_not(capsys):
    assert parse_train("train", ["mlp", "--workers", "2-8"])[0].placement.workers == "2-8"
    assert parse_train("train", ["mlp", "--workers", "2"])[0].placement.workers == 2
    assert main(["tune", "mlp", "--workers", "1-2"]) == 2
    assert "--workers 1-2: each trial of a sweep has a fixed number" in capsys.readouterr().err


def test_a_range_is_fitted_to_nodes_by_as_many_workers_as_they_hold():
    found = [Node("a", "a", {"CPU": 3.0}), Node("b", "b", {"CPU": 4.0})]
    asked = Placement(workers="1-3", gpus_per_worker=0.0)
    assert fit(asked, replace(asked, cpus_per_worker=2), found).cpus_per_worker == 2
    # of three CPUs each the nodes hold two workers; as many as they hold at all is three, of two each
    assert fit(asked, replace(asked, cpus_per_worker=3), found).cpus_per_worker == 2
    strict = replace(asked, cpus_per_worker=4)
    assert fit(strict, strict, found) == strict  # one worker is enough
    with pytest.raises(ValueError, match="2-3 workers of 4 CPUs are asked for, and the cluster's 2 nodes hold 1"):
        fit(replace(strict, workers="2-3"), replace(strict, workers="2-3"), found)
    assert wanted(strict) == "1-3 workers of 4 CPUs"
