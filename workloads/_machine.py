"""The one place that decides device, precision, threads and transfer."""

import ctypes
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Accelerator = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What one process of a run may use, and how.

    Args:
        accelerator: Where the network runs.
        precision: Lightning's name of the arithmetic.
        num_threads: Threads of a CPU operation.
        pin_memory: Stage batches in page-locked host memory and copy them without blocking.
        gpu_memory: Bytes of free GPU memory; 0 without a GPU.
    """

    accelerator: Literal["cpu", "gpu"] = "cpu"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    num_threads: int = 1
    pin_memory: bool = False
    gpu_memory: int = 0

    def holds(self, num_bytes: int) -> bool:
        """Whether a whole data set of that size should live on the GPU: at most a quarter of its free memory."""
        return self.accelerator == "gpu" and num_bytes * 4 <= self.gpu_memory

    def describe(self) -> str:
        """One line for people."""
        transfer = "pinned, non-blocking copies" if self.pin_memory else "no copies"
        return f"{self.accelerator}, precision {self.precision}, {self.num_threads} threads, {transfer}"


def decide(
    accelerator: Accelerator,
    precision: str,
    *,
    num_gpus: int,
    native_bf16: bool,
    num_cpus: int,
    cpu_bf16: Literal["none", "emulated", "native"] = "none",
    gpu_memory: int = 0,
) -> Machine:
    """Decide from what is asked and what is there.

    Args:
        accelerator: ``auto`` takes a GPU when there is one.
        precision: ``trainer.precision``; ``auto`` is bf16-mixed on a GPU that has it natively, ``bf16-native`` on any
            device that has, and both are 32 bit elsewhere.
        num_gpus: GPUs this process may use.
        native_bf16: Whether the GPU computes in bfloat16 in hardware.
        num_cpus: CPUs this process may use.
        cpu_bf16: How the CPU computes in bfloat16, if at all.
        gpu_memory: Bytes free on the GPU.

    Raises:
        ValueError: A GPU is asked for and none is there, 16-mixed without a GPU, or bf16-mixed on a CPU that cannot.
    """
    if accelerator == "gpu" and num_gpus == 0:
        raise ValueError("--accelerator gpu: no GPU here; use --accelerator cpu or auto")
    gpu = num_gpus > 0 and accelerator != "cpu"
    if precision == "16-mixed" and not gpu:
        raise ValueError("trainer.precision: 16-mixed needs a GPU; use 32 or bf16-mixed")
    if precision == "bf16-mixed" and not gpu and cpu_bf16 == "none":
        raise ValueError(
            "trainer.precision: this processor does not compute in bfloat16; use bf16-native, auto or 32 in place of "
            "bf16-mixed"
        )
    if precision in ("auto", "bf16-native"):
        native = native_bf16 if gpu else precision == "bf16-native" and cpu_bf16 == "native"
        precision = "bf16-mixed" if native else "32"
    return Machine(
        accelerator="gpu" if gpu else "cpu",
        precision="32-true" if precision == "32" else precision,
        num_threads=max(1, num_cpus),
        pin_memory=gpu,
        gpu_memory=gpu_memory if gpu else 0,
    )


def prepare(machine: Machine) -> None:
    """Make this process compute as decided."""
    import torch

    torch.set_num_threads(machine.num_threads)
    if machine.accelerator == "cpu" and sys.platform == "linux":
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let the C library reuse a step's activations in the next, instead of returning them to the kernel.

    By default glibc maps blocks of more than 128 KiB anew each time, and the kernel clears every page of them: a
    quarter of the time of a small convolutional network's step. See mallopt(3).
    """
    trim_threshold, mmap_threshold = -1, -3
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # other C libraries manage without
        libc.mallopt(mmap_threshold, 32 << 20)  # the most that glibc takes
        libc.mallopt(trim_threshold, 1 << 30)


def available_cpus() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def inspect(accelerator: Accelerator, precision: str, num_cpus: int | None = None) -> Machine:
    """Look at this machine and decide; ``num_cpus`` defaults to all that this process may use."""
    import torch

    num_gpus = torch.cuda.device_count()
    looks = num_gpus > 0 and accelerator != "cpu"
    return decide(
        accelerator,
        precision,
        num_gpus=num_gpus,
        native_bf16=looks and torch.cuda.is_bf16_supported(including_emulation=False),
        num_cpus=num_cpus or available_cpus(),
        cpu_bf16=bf16_of(torch.cpu.get_capabilities()) if hasattr(torch.cpu, "get_capabilities") else "emulated",
        gpu_memory=torch.cuda.mem_get_info()[0] if looks else 0,
    )


def bf16_of(capabilities: Mapping[str, Any]) -> Literal["none", "emulated", "native"]:
    """How a CPU computes in bfloat16.

    PyTorch's oneDNN emulates it from AVX-512 on and fails before; on processors that are not x86 that is not known.

    Args:
        capabilities: As ``torch.cpu.get_capabilities`` has them.
    """
    if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"):
        return "native"
    return "none" if capabilities.get("architecture") == "x86_64" and not capabilities.get("avx512_bw") else "emulated"


def total_memory() -> int:
    """Bytes of memory of this machine, or of the container if that has less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError):
        return total  # no container, or one without a limit ("max")
