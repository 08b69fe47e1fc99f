"""Device, precision, threads and transfer are decided in one place: for machines with 0, 1 and 8 GPUs."""

import pytest

from workloads._machine import decide, inspect

NONE = {"num_gpus": 0, "native_bf16": False, "num_cpus": 2}
ONE_OLD = {"num_gpus": 1, "native_bf16": False, "num_cpus": 8, "gpu_memory": 8 << 30}
EIGHT = {"num_gpus": 8, "native_bf16": True, "num_cpus": 64, "gpu_memory": 80 << 30}


@pytest.mark.parametrize(
    ("there", "accelerator", "precision", "expected"),
    [
        (NONE, "auto", "auto", ("cpu", "32-true", False)),
        (NONE, "auto", "bf16-mixed", ("cpu", "bf16-mixed", False)),
        (ONE_OLD, "auto", "auto", ("gpu", "32-true", True)),
        (ONE_OLD, "auto", "16-mixed", ("gpu", "16-mixed", True)),
        (ONE_OLD, "cpu", "auto", ("cpu", "32-true", False)),
        (EIGHT, "auto", "auto", ("gpu", "bf16-mixed", True)),
        (EIGHT, "gpu", "32", ("gpu", "32-true", True)),
        (EIGHT, "cpu", "auto", ("cpu", "32-true", False)),
    ],
)
def test_decision(there, accelerator, precision, expected):
    machine = decide(accelerator, precision, **there)
    assert (machine.accelerator, machine.precision, machine.pin_memory) == expected
    assert machine.num_threads == there["num_cpus"]


def test_a_set_lives_on_the_gpu_where_a_quarter_of_the_free_memory_holds_it():
    machine = decide("auto", "auto", **ONE_OLD)
    assert machine.holds(2 << 30)
    assert not machine.holds((2 << 30) + 1)
    assert not decide("cpu", "auto", **ONE_OLD).holds(1)
    assert not decide("auto", "auto", **NONE).holds(1)


@pytest.mark.parametrize(
    ("accelerator", "precision", "there", "fault"),
    [
        ("gpu", "auto", NONE, "no GPU here"),
        ("auto", "16-mixed", NONE, "16-mixed needs a GPU"),
        ("cpu", "16-mixed", EIGHT, "16-mixed needs a GPU"),
    ],
)
def test_what_is_not_there_is_refused(accelerator, precision, there, fault):
    with pytest.raises(ValueError, match=fault):
        decide(accelerator, precision, **there)


def test_this_machine_is_described_in_a_line():
    line = inspect("cpu", "auto", 3).describe()
    assert line == "cpu, precision 32-true, 3 threads, no copies"
