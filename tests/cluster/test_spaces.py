"""Search spaces: conditional choices, grids, what the command line may say of them, and what can be built."""

import numpy as np
import pytest
from ray import tune

import workloads
from cluster.building import Builder
from cluster.spaces import Space, change_flags, draws, load, points_of
from tune_spaces import Given, Several

CONDITIONAL = Space(
    {
        "model.hidden_dims": Several(1, 3, tune.choice([8, 16])),
        "model.optimizer": tune.choice(["adamw", "sgd"]),
        "model.lr": Given("model.optimizer", {"adamw": tune.loguniform(1e-4, 1e-3), "sgd": tune.uniform(0.1, 0.2)}),
        "model.dropout": 0.25,
    }
)


def test_a_point_holds_what_is_active_in_it_and_nothing_else():
    seen = set()
    for point, _ in zip(draws(CONDITIONAL, seed=0), range(60), strict=False):
        length, optimizer = point["model.hidden_dims.length"], point["model.optimizer"]
        widths = [point[f"model.hidden_dims.{k}"] for k in range(length)]
        assert set(point) == {
            "model.hidden_dims.length", *(f"model.hidden_dims.{k}" for k in range(length)),
            "model.optimizer", f"model.lr|{optimizer}",
        }  # fmt: skip
        low, high = (1e-4, 1e-3) if optimizer == "adamw" else (0.1, 0.2)
        assert low <= point[f"model.lr|{optimizer}"] <= high
        assert CONDITIONAL.overrides(point) == {
            "model.hidden_dims": widths, "model.optimizer": optimizer,
            "model.lr": point[f"model.lr|{optimizer}"], "model.dropout": 0.25,
        }  # fmt: skip
        seen.add((length, optimizer))
    assert seen == {(length, optimizer) for length in (1, 2, 3) for optimizer in ("adamw", "sgd")}


def test_points_are_plain_values_and_the_same_for_a_seed():
    first = [point for point, _ in zip(draws(CONDITIONAL, seed=3), range(5), strict=False)]
    again = [point for point, _ in zip(draws(CONDITIONAL, seed=3), range(5), strict=False)]
    other = [point for point, _ in zip(draws(CONDITIONAL, seed=4), range(5), strict=False)]
    assert first == again != other
    assert {type(value) for point in first for value in point.values()} == {int, float, str}


def test_a_small_space_is_drawn_until_it_is_exhausted_and_no_point_twice():
    space = Space({"a": tune.choice([1, 2]), "b": tune.choice(["x", "y"])})
    points = list(draws(space, seed=0))
    assert len(points) == 4 == len({tuple(point.values()) for point in points})


def test_a_range_gives_a_grid_its_ends_and_its_middle_on_its_own_scale():
    assert points_of(tune.choice([[8], [16]])) == [[8], [16]]
    assert points_of(tune.uniform(0.0, 1.0)) == [0.0, 0.5, 1.0]
    assert points_of(tune.loguniform(1e-4, 1e-2)) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert points_of(tune.randint(1, 6)) == [1, 3, 5]
    assert points_of(7) == [7]


def test_a_grid_has_every_combination_of_what_is_active_once():
    points = CONDITIONAL.grid()
    # 2 + 4 + 8 lists of one to three widths, for each optimizer with three rates of its own.
    assert len(points) == (2 + 4 + 8) * 2 * 3 == len({tuple(sorted(point.items())) for point in points})
    with pytest.raises(ValueError, match=r"more than 1,000 combinations.*--search random"):
        Space({str(k): tune.choice([1, 2]) for k in range(10)}).grid()


def test_the_command_line_fixes_narrows_and_adds():
    workload = workloads.load("mlp")
    changes, rest = change_flags(
        ["--trials", "3", "--space.model.lr", "1e-3..1e-2", "--space.model.activation=relu,tanh",
         "--space.model.schedule", "cosine", "--space.model.hidden_dims.length", "2..3",
         "--space.model.hidden_dims.each", "4,8", "--space.model.warmup", "0.01..0.1:log"]
    )  # fmt: skip
    assert rest == ["--trials", "3"]
    told = load(workload, changes).told()
    assert told["model.lr"] == "0.001 to 0.01"
    assert told["model.activation"] == 'one of "relu", "tanh"'
    assert told["model.schedule"] == 'fixed at "cosine"'
    assert told["model.hidden_dims"] == "2 to 3 of (one of 4, 8)"
    assert told["model.warmup"] == "0.01 to 0.1, logarithmic"
    assert load(workloads.load("cnn"), {"model.lr": "1e-3..1e-2"}).told()["model.lr"] == "0.001 to 0.01, logarithmic"
    fixed = load(workload, {"model.hidden_dims": "[16,8]"}).choices["model.hidden_dims"]
    assert fixed == [16, 8]
    choice = load(workload, {"model.hidden_dims": "[[16],[16,8]]"}).choices["model.hidden_dims"]
    assert choice.categories == [[16], [16, 8]]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"model.lrr": "0.1"}, r"no key 'model.lrr'; did you mean 'model.lr'\?"),
        ({"model.num_outputs": "3"}, "decided by the data"),
        ({"model.lr": "fast"}, "--space.model.lr: expected a number, got 'fast'"),
        ({"model.lr": "0.1..0.01"}, "--space.model.lr: expected a range such as"),
        ({"model.lr": "0..0.1:log"}, "--space.model.lr: expected a range such as"),
        ({"model.activation": "relu,swish"}, "model.activation: expected one of relu, .*got 'swish'"),
        ({"model.hidden_dims.length": "3..2"}, "expected a length such as"),
        ({"model.hidden_dims": "64"}, "--space.model.hidden_dims: expected a list"),
        ({"model.optimizer": "adamw", "model.lr": "x"}, "expected a number"),
    ],
)
def test_what_the_command_line_cannot_say(changes, fault):
    with pytest.raises(ValueError, match=fault):
        load(workloads.load("mlp"), changes)


def test_a_flag_without_its_text_is_refused():
    with pytest.raises(ValueError, match=r"--space.model.lr: expected a value"):
        change_flags(["--space.model.lr"])


def builder(name, space, **config):
    workload = workloads.load(name)
    decided = {"input_shape": (1, 8, 8) if name == "cnn" else (30,), "output": "multiclass", "num_outputs": 3}
    return Builder(workload, workload.config(config), space, decided | {"target_scale": 1.0})


def test_what_cannot_be_built_is_passed_over_before_a_worker_starts():
    space = Space({"model.kernel_size": tune.choice([3, 9]), "model.padding": tune.choice(["same", "valid"])})
    build = builder("cnn", space, **{"model.channels": [8], "model.convs_per_block": 1})
    points = list(build.buildable(draws(space, seed=0)))
    assert len(points) == 3 and {"model.kernel_size": 9, "model.padding": "valid"} not in points
    assert "kernel" in build.fault({"model.kernel_size": 9, "model.padding": "valid"})
    hopeless = Space({"model.dropout": tune.uniform(1.5, 2.0)})
    with pytest.raises(ValueError, match=r"100 points of the space in a row cannot be built; the last: model.dropout"):
        list(builder("mlp", hopeless).buildable(draws(hopeless, seed=0)))


def test_only_numbers_that_leave_every_tensor_as_it_is_may_change_as_a_trial_trains():
    found = builder("mlp", load(workloads.load("mlp"))).perturbable
    assert set(found) == {
        "model.dropout", "model.label_smoothing",
        "model.lr|adamw", "model.lr|sgd", "model.weight_decay|adamw", "model.weight_decay|sgd",
    }  # fmt: skip
    pictures = builder("cnn", load(workloads.load("cnn"))).perturbable
    assert {"model.lr", "model.weight_decay", "data.shift", "data.elastic"} <= set(pictures)
    assert not {"model.kernel_size", "model.convs_per_block", "data.batch_size", "model.channels.0"} & set(pictures)


def test_the_shipped_spaces_draw_what_can_be_built():
    for name in ("mlp", "cnn"):
        space = load(workloads.load(name))
        random = np.random.RandomState(0)
        build = builder(name, space)
        assert [build.fault(space.draw(random)) for _ in range(10)] == [None] * 10
