"""Device, precision, threads and transfer are decided in one place: for machines with 0, 1 and 8 GPUs."""

import pytest

from workloads._machine import bf16_of, decide, inspect

NONE = {"num_gpus": 0, "native_bf16": False, "num_cpus": 2}
EMULATES, AMX = (NONE | {"cpu_bf16": kind} for kind in ("emulated", "native"))
ONE_OLD = {"num_gpus": 1, "native_bf16": False, "num_cpus": 8, "gpu_memory": 8 << 30}
EIGHT = {"num_gpus": 8, "native_bf16": True, "num_cpus": 64, "gpu_memory": 80 << 30}


@pytest.mark.parametrize(
    ("there", "accelerator", "precision", "expected"),
    [
        (NONE, "auto", "auto", ("cpu", "32-true", False)),
        (NONE, "auto", "bf16-native", ("cpu", "32-true", False)),
        (EMULATES, "auto", "bf16-native", ("cpu", "32-true", False)),
        (EMULATES, "auto", "bf16-mixed", ("cpu", "bf16-mixed", False)),
        (AMX, "auto", "auto", ("cpu", "32-true", False)),
        (AMX, "auto", "bf16-native", ("cpu", "bf16-mixed", False)),
        (ONE_OLD, "auto", "auto", ("gpu", "32-true", True)),
        (ONE_OLD, "auto", "16-mixed", ("gpu", "16-mixed", True)),
        (ONE_OLD, "cpu", "auto", ("cpu", "32-true", False)),
        (EIGHT, "auto", "auto", ("gpu", "bf16-mixed", True)),
        (ONE_OLD, "auto", "bf16-native", ("gpu", "32-true", True)),
        (EIGHT, "auto", "bf16-native", ("gpu", "bf16-mixed", True)),
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
        ("auto", "bf16-mixed", NONE, "does not compute in bfloat16; use bf16-native, auto or 32"),
    ],
)
def test_what_is_not_there_is_refused(accelerator, precision, there, fault):
    with pytest.raises(ValueError, match=fault):
        decide(accelerator, precision, **there)


def test_this_machine_is_described_in_a_line():
    line = inspect("cpu", "auto", 3).describe()
    assert line == "cpu, precision 32-true, 3 threads, no copies"


def test_what_a_processor_says_of_bfloat16():
    x86 = {"architecture": "x86_64", "avx2": True}
    assert bf16_of(x86) == "none"
    assert bf16_of(x86 | {"avx512_bw": True}) == "emulated"
    assert bf16_of(x86 | {"avx512_bw": True, "avx512_bf16": True}) == "native"
    assert bf16_of({"architecture": "aarch64"}) == "emulated"


def test_an_lstm_computes_here_in_whatever_is_decided():
    import torch

    machine = inspect("cpu", "bf16-native", 1)
    kind = torch.bfloat16 if machine.precision == "bf16-mixed" else torch.float32
    lstm, inputs = torch.nn.LSTM(8, 8), torch.randn(3, 2, 8)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
        outputs, _ = lstm(inputs)
    assert outputs.dtype == kind
