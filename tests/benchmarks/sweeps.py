"""What a sweep costs beside its training, as ratios in one run. Run by hand, on a quiet machine:

    python tests/benchmarks/sweeps.py trials    seconds per smoke trial, against nesting and a process per trial
    python tests/benchmarks/sweeps.py driver    seconds per trial and the driver's memory, for trials that do nothing

`trials` trains the same small network three ways, one trial at a time: as `raydeck tune` does, in an actor that is used
again; in a Ray Train run of its own inside each trial, as Ray documents; and by one `raydeck train` process per trial.
The first trial of each way, which imports and starts everything, is left out.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAME = "cnn"
ROUNDS, TRIALS, NESTED = 2, 12, 3
COUNTS = (100, 300, 1_000)


def sweep(folder: str, *flags: str):
    from cluster.sweep import parse

    return parse([NAME, "--smoke", "--storage", folder, "--name", "s", "--scheduler", "fifo", *flags])[0]


def start_ray() -> None:
    import ray

    for key in ("RAY_ADDRESS", "RAY_TMPDIR"):
        os.environ.pop(key, None)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


def between(ends: list[float]) -> float:
    """Seconds per trial, from the end of the first to the end of the last."""
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def ours() -> float:
    """Seconds per trial of a sweep whose networks are all of the smoke setting's size."""
    from dataclasses import replace

    from ray.tune import loguniform

    from cluster.spaces import Space
    from cluster.sweep import tune

    start_ray()
    with tempfile.TemporaryDirectory() as folder:
        given = sweep(folder, "--trials", str(TRIALS), "--concurrent", "1")
        tune(replace(given, space=Space({"model.lr": loguniform(1e-3, 1e-2)})))
        records = [json.loads(path.read_text()) for path in Path(folder, "s", "trials").glob("*/trial.json")]
    return between(sorted(record["until"] for record in records))


def nested() -> float:
    """Seconds per trial when each starts Ray Train by itself and passes its reports on, as Ray documents."""
    from dataclasses import replace

    from ray import tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    from cluster.spaces import Space

    start_ray()
    with tempfile.TemporaryDirectory() as folder:
        given = replace(sweep(folder), space=Space({}))

        def worker(config: dict) -> None:
            import ray.train

            from cluster.session import Session
            from cluster.worker import fit

            class Reporting(Session):
                final = shows_progress = False

                def trainer_arguments(self, accelerator, find_unused_parameters):
                    return {"accelerator": accelerator, "devices": 1}

                def report(self, row, best):
                    ray.train.report(row)

            fit(config["job"], Reporting())

        def trial(config: dict) -> None:
            job = given.job_of(f"{config['number']:04d}", {})
            TorchTrainer(
                worker,
                train_loop_config={"job": job},
                scaling_config=ScalingConfig(num_workers=1),
                run_config=RunConfig(
                    name=f"{config['number']}", storage_path=f"{folder}/train", callbacks=[TuneReportCallback()]
                ),
            ).fit()
            tune.report({"ended": time.time()})

        results = tune.Tuner(
            tune.with_resources(trial, {"CPU": 0.01}),
            param_space={"number": tune.grid_search(list(range(NESTED)))},
            tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=f"{folder}/tune", name="nested", verbose=0),
        ).fit()
        return between(sorted(result.metrics["ended"] for result in results))


def processes() -> float:
    """Seconds per trial when each is a process."""
    ends = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(4):
            command = [sys.executable, "-m", "cluster", "train", NAME, "--smoke", "--baselines", "false"]
            command += ["--storage", folder, "--name", str(number), "--cpus-per-worker", "1"]
            subprocess.run(command, check=True, capture_output=True)
            ends.append(time.monotonic())
    return between(ends)


def idle(count: int) -> dict[str, float]:
    """A sweep of trials that report once and do nothing else."""
    from cluster import sweep as sweeps
    from cluster.tuning import run_tuner

    def nothing(config: dict, sweep) -> None:
        from ray import tune

        tune.report({"epoch": 1, "seconds": 0.0, "val/loss": 1.0, "best": 1.0, "values": {}, "scores": [1.0]})

    measured: dict[str, float] = {}

    def watched(*given) -> int:
        before, began = resident(), time.monotonic()
        signum = run_tuner(*given)
        seconds = (time.monotonic() - began) / count
        measured.update(seconds=seconds, memory=(resident() - before) / 2**20, peak=peak())
        return signum

    start_ray()
    sweeps.run_tuner = watched
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        sweeps.tune(sweep(folder, "--trials", str(count), "--max-epochs", "1"), nothing)
        measured["whole"] = (time.monotonic() - began) / count
    return measured


def resident() -> int:
    """Bytes of this process's memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(what: str, *arguments: str):
    """Measure in a process of its own."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, __file__, what, *arguments], check=True, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def compare_trials() -> None:
    ways = ("ours", "nested", "processes")
    seconds = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            seconds[way].append(alone(way))
    best = {way: min(values) for way, values in seconds.items()}
    for way in ways:
        print(f"{way:10} {best[way]:7.2f} s per trial, {best[way] / best['ours']:6.1f}x   {seconds[way]}")


def compare_driver() -> None:
    print("trials   ms per trial (Tune)   ms per trial (all)   MiB grown   MiB peak")
    for count in COUNTS:
        told = alone("idle", str(count))
        print(
            f"{count:6,} {1e3 * told['seconds']:16.1f} {1e3 * told['whole']:20.1f} {told['memory']:14.1f} "
            f"{told['peak']:10.0f}"
        )


if __name__ == "__main__":
    what, *given = sys.argv[1:] or [""]
    if what == "trials":
        compare_trials()
    elif what == "driver":
        compare_driver()
    elif what == "idle":
        print(json.dumps(idle(int(given[0]))))
    elif what in ("ours", "nested", "processes"):
        print(json.dumps({"ours": ours, "nested": nested, "processes": processes}[what]()))
    else:
        sys.exit(__doc__)
