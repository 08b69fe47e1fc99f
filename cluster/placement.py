"""Where a run happens, how it is saved and how a sweep searches: the flags that are not part of a config."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a run happens.

    Args:
        workers: Processes that train together. One runs in this process, without Ray, unless an address is given.
        gpus_per_worker: GPUs of each worker; auto is one where the cluster has GPUs for all workers, else none.
        cpus_per_worker: CPUs, and so threads, of each worker; 0 shares out all there are.
        accelerator: auto takes a GPU when there is one.
        address: Ray cluster to run on, e.g. auto, local or 10.0.0.1:6379; RAY_ADDRESS says the same.
        max_failures: Lost workers or nodes after which a run is given up; each time it goes on from its last
            checkpoint.
    """

    workers: int = 1
    gpus_per_worker: float | Literal["auto"] = "auto"
    cpus_per_worker: int = 0
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    address: str | None = None
    max_failures: int = 0

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"--workers: expected at least 1, got {self.workers}")
        if self.gpus_per_worker != "auto" and self.gpus_per_worker < 0:
            raise ValueError(f"--gpus-per-worker: expected at least 0, got {self.gpus_per_worker}")
        if self.cpus_per_worker < 0:
            raise ValueError(f"--cpus-per-worker: expected at least 0, got {self.cpus_per_worker}")
        if self.max_failures < 0:
            raise ValueError(f"--max-failures: expected at least 0, got {self.max_failures}")
        if self.accelerator == "gpu" and self.gpus_per_worker == 0:
            raise ValueError("--accelerator gpu and --gpus-per-worker 0 contradict each other; drop one")


@dataclass(frozen=True, kw_only=True)
class Saving:
    """When checkpoints are saved, besides at every epoch's end.

    Args:
        every_minutes: Longest time between checkpoints in the middle of an epoch.
        keep: Best checkpoints to keep, besides the last two.
    """

    every_minutes: float = 10.0
    keep: int = 1

    def __post_init__(self) -> None:
        if self.every_minutes <= 0:
            raise ValueError(f"--checkpoint.every_minutes: expected more than 0, got {self.every_minutes}")
        if self.keep < 1:
            raise ValueError(f"--checkpoint.keep: expected at least 1, got {self.keep}")


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a sweep searches.

    Args:
        trials: Configurations to try; a grid search tries every one of its own.
        concurrent: Trials at a time; 0 runs as many as there are CPUs (or GPUs) for.
        scheduler: asha stops trials that lag behind (Li et al. 2018, arXiv:1810.05934); fifo lets each finish.
        search: random draws from the space; grid tries all combinations, with three points of each range.
        grace: Epochs before asha may stop a trial.
        time_budget: Minutes after which no trial goes on; null for no limit.
    """

    trials: int = 16
    concurrent: int = 0
    scheduler: Literal["asha", "fifo"] = "asha"
    search: Literal["random", "grid"] = "random"
    grace: int = 1
    time_budget: float | None = None

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"--trials: expected at least 1, got {self.trials}")
        if self.concurrent < 0:
            raise ValueError(f"--concurrent: expected at least 0, got {self.concurrent}")
        if self.grace < 1:
            raise ValueError(f"--grace: expected at least 1, got {self.grace}")
        if self.time_budget is not None and self.time_budget <= 0:
            raise ValueError(f"--time-budget: expected more than 0 minutes, got {self.time_budget:g}")


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """What a run is called and where it is kept.

    Args:
        name: Name of the run; by default the workload and a short hash of the config.
        storage: Folder or URI (s3://, gs://) that holds runs.
        baselines: Whether to measure the workload's simple baselines beside the result.
    """

    name: str | None = None
    storage: str = "runs"
    baselines: bool = True
