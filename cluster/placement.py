"""Where a run happens, how it is saved and how a sweep searches: the flags that are not part of a config."""

import math
import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a run happens.

    Args:
        workers: Processes that train together. One runs in this process, without Ray, unless an address is given.
            A range such as 2-8 trains with as many as there is room for, fewer when nodes are lost and more when some
            come; data.batch_size, which is that of all workers together, stays the same.
        gpus_per_worker: GPUs of each worker; auto is one where the cluster has GPUs for all workers, else none.
        cpus_per_worker: CPUs, and so threads, of each worker; 0 shares out all there are.
        accelerator: auto takes a GPU when there is one.
        address: Ray cluster to run on, e.g. auto, local or 10.0.0.1:6379; RAY_ADDRESS says the same.
        max_failures: Lost or hung workers and lost nodes that a run is continued after, from its last checkpoint.
            Other failures, such as a full disk, would only come again.
        collective_timeout: Seconds that workers wait for one of them, e.g. to average gradients, before it counts as
            hung.
        placement_timeout: Minutes that a run waits for a cluster's busy resources before it is given up.
        insecure: Join a cluster that asks for no token, and so is open to everybody who reaches it.
    """

    workers: int | str = 1
    gpus_per_worker: float | Literal["auto"] = "auto"
    cpus_per_worker: int = 0
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    address: str | None = None
    max_failures: int = 3
    collective_timeout: float = 600.0
    placement_timeout: float = 5.0
    insecure: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "workers", _checked(self.workers))
        if self.gpus_per_worker != "auto" and self.gpus_per_worker < 0:
            raise ValueError(f"--gpus-per-worker: expected at least 0, got {self.gpus_per_worker}")
        if self.cpus_per_worker < 0:
            raise ValueError(f"--cpus-per-worker: expected at least 0, got {self.cpus_per_worker}")
        if self.max_failures < 0:
            raise ValueError(f"--max-failures: expected at least 0, got {self.max_failures}")
        if not 1 <= self.collective_timeout < math.inf:
            raise ValueError(f"--collective-timeout: expected at least 1 second, got {self.collective_timeout:g}")
        if not 0 < self.placement_timeout < math.inf:
            raise ValueError(f"--placement-timeout: expected more than 0 minutes, got {self.placement_timeout:g}")
        if self.accelerator == "gpu" and self.gpus_per_worker == 0:
            raise ValueError("--accelerator gpu and --gpus-per-worker 0 contradict each other; drop one")

    @property
    def is_elastic(self) -> bool:
        """Whether the number of workers may change while the run trains."""
        return isinstance(self.workers, str)

    @property
    def fewest(self) -> int:
        """Workers without which the run waits."""
        return int(str(self.workers).partition("-")[0])

    @property
    def most(self) -> int:
        """Workers beyond which the run takes no more."""
        return int(str(self.workers).rpartition("-")[2])


def _checked(workers: int | str) -> int | str:
    """A number of workers, or a range in the form ``2-8``.

    Raises:
        ValueError: It is neither.
    """
    form = re.fullmatch(r"(\d+)(?:-(\d+))?", str(workers).replace(" ", ""))
    fewest, most = (int(form[1]), int(form[2] or form[1])) if form else (0, 0)
    if not 1 <= fewest <= most:
        raise ValueError(f"--workers: expected a number of at least 1, or a range such as 2-8, got {workers}")
    return fewest if fewest == most else f"{fewest}-{most}"


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
        trials: Configurations to try; a grid search tries every one of its own. The same command with more goes on.
        concurrent: Trials at a time; 0 runs as many as there are CPUs (or GPUs) for.
        max_epochs: Epochs of a trial that is not stopped early; 0 leaves it to trainer.max_epochs.
        scheduler: asha stops trials that lag behind at 1, 3, 9 ... times the grace (Li et al. 2018, arXiv:1810.05934);
            hyperband does so in groups that wait for each other (Li et al. 2018, arXiv:1603.06560); median stops
            trials below the median of the others (Golovin et al. 2017); pbt lets the worst take over the weights and
            altered settings of the best as they train (Jaderberg et al. 2017, arXiv:1711.09846); fifo lets each finish.
            By default asha, with several objectives fifo.
        search: random draws from the space; grid tries all combinations, with three points of each range; optuna
            learns from the trials so far: TPE (Bergstra et al. 2011), with several objectives NSGA-II (Deb et al.
            2002). By default random, with several objectives optuna.
        objectives: What to optimise at once, separated by commas, e.g. val/accuracy,num_parameters: validation metrics,
            num_parameters, seconds. :min or :max behind a name says which is better where the name does not.
        grace: Epochs before asha, hyperband or median may stop a trial.
        perturb_every: Epochs between pbt's alterations of a trial; 0 for a tenth of all epochs.
        seeds: Seeds with which a configuration that is not stopped early is trained; its score is their mean.
        time_budget: Minutes after which no trial goes on; null for no limit. The same command with more goes on.
        keep_trials: Trials, best first, whose checkpoints are kept once they have ended; 0 keeps all.
    """

    trials: int = 16
    concurrent: int = 0
    max_epochs: int = 0
    scheduler: Literal["asha", "hyperband", "median", "pbt", "fifo"] | None = None
    search: Literal["random", "grid", "optuna"] | None = None
    objectives: str | None = None
    grace: int = 1
    perturb_every: int = 0
    seeds: int = 1
    time_budget: float | None = None
    keep_trials: int = 3

    def __post_init__(self) -> None:
        for name, least in (
            ("trials", 1),
            ("concurrent", 0),
            ("max_epochs", 0),
            ("grace", 1),
            ("perturb_every", 0),
            ("seeds", 1),
            ("keep_trials", 0),
        ):
            if getattr(self, name) < least:
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(f"{flag}: expected at least {least}, got {getattr(self, name)}")
        if self.time_budget is not None and not 0 < self.time_budget < math.inf:
            raise ValueError(f"--time-budget: expected more than 0 minutes, got {self.time_budget:g}")
        several = self.objectives is not None
        # Left out, these two depend on the objectives; a frozen value decides them once, here.
        object.__setattr__(self, "scheduler", self.scheduler or ("fifo" if several else "asha"))
        object.__setattr__(self, "search", self.search or ("optuna" if several else "random"))
        self._check_combination()

    def _check_combination(self) -> None:
        if self.objectives is not None and self.scheduler != "fifo":
            raise ValueError(
                f"--scheduler {self.scheduler}: would stop trials by one objective alone; with --objectives use fifo"
            )
        if self.scheduler in ("pbt", "hyperband") and self.search == "optuna":
            raise ValueError(
                f"--search optuna: {self.scheduler} needs all its trials from the start, and optuna chooses one after "
                "the other; use --search random, or --scheduler asha"
            )
        if self.scheduler == "pbt" and self.seeds > 1:
            raise ValueError("--seeds: pbt alters settings as a trial trains, so none could be repeated; drop one")


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


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """How often a run is trained.

    Args:
        seeds: Runs to train, from --seed and the seeds that follow it; their mean and spread are shown.
    """

    seeds: int = 1

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"--seeds: expected at least 1, got {self.seeds}")
