"""The same run from several seeds, and what they come to together.

Shapes: S seeds, X places on a learning curve.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cluster import console
from cluster.folder import Folder
from cluster.runs import Run, default_name
from cluster.session import Stopped
from cluster.worker import Job
from workloads._extras import need
from workloads._spec import Workload

CURVES = "curves.png"

Curve = tuple[list[float], list[float]]
"""Places and values."""


def jobs_of(job: Job) -> list[Job]:
    """The run of each seed; one that the user has named is called that and the seed."""
    folder, _, name = job.directory.rpartition("/")
    is_named = name != default_name(job.workload, job.config)
    jobs = []
    for seed in range(job.config["seed"], job.config["seed"] + job.seeds):
        config = {**job.config, "seed": seed}
        own = f"{name}-seed{seed}" if is_named else default_name(job.workload, config)
        jobs.append(replace(job, config=config, directory=f"{folder}/{own}", seeds=1))
    return jobs


def train(jobs: Sequence[Job], workload: Workload, as_json: bool) -> int:
    """Do the runs of several seeds one after the other, or go on with them, and say what they come to."""
    from cluster.train import train as launch

    need("matplotlib", extra="search")  # before hours of training, not after
    runs = [Run(Folder(job.directory)) for job in jobs]
    for job, run in zip(jobs, runs, strict=True):
        run.check(job.workload, job.config)
    for job, run in zip(jobs, runs, strict=True):
        if run.is_done(job.config):
            continue
        console.say(f"run {run.folder.short()} (seed {job.config['seed']})")
        try:
            launch(job)
        except Stopped as stopped:
            console.say("stopped; the same command goes on from the last checkpoint")
            return 128 + stopped.signum
    folder = Folder(f"{jobs[0].directory}-seeds{len(jobs)}")
    told = summary([run.result() for run in runs], [job.config["seed"] for job in jobs])
    folder.create()
    folder.write("result.json", json.dumps(told, indent=1).encode())
    curves = [curve(run.folder.read("metrics.csv").decode(), workload.monitor) for run in runs]
    picture = io.BytesIO()
    draw([found for found, _ in curves], curves[0][1], workload.monitor, picture)
    folder.write(CURVES, picture.getvalue())
    if as_json:
        print(json.dumps({"folder": str(folder), **told}, indent=1))
    else:
        present(told, workload, runs)
        console.say(f"learning curves: {(folder / CURVES).short()}")
    return 0


def summary(results: Sequence[dict[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """Test metrics of all seeds.

    Returns:
        ``workload``, ``metric``, ``seeds``, ``test`` (metric to ``values`` in the order of seeds, ``mean`` and ``std``,
        the sample's standard deviation), ``baselines`` of the first seed, ``seconds`` of all.
    """
    found = {}
    for name in results[0]["test"]:
        values = [result["test"][name] for result in results]
        found[name] = {"values": values, "mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}
    return {
        "workload": results[0]["workload"],
        "metric": results[0]["metric"],
        "seeds": list(seeds),
        "test": found,
        "baselines": results[0].get("baselines", {}),
        "seconds": sum(result["seconds"] for result in results),
    }


def present(told: dict[str, Any], workload: Workload, runs: Sequence[Run]) -> None:
    """A row for each seed, their mean, and the baselines."""
    metric = told["metric"]
    test = told["test"][metric]
    rows = [
        (f"seed {seed}", console.number(value), run.folder.short())
        for seed, value, run in zip(told["seeds"], test["values"], runs, strict=True)
    ]
    spread = f"{console.number(test['mean'])} ± {console.number(test['std'])}"
    rows.append((f"{told['workload']}, mean and deviation", spread, ""))
    rows += [(name, console.number(value), "") for name, value in told["baselines"].items()]
    print()
    console.table("on the test split", ("", metric, "run"), rows)


def curve(table: str, monitor: str) -> tuple[Curve, str]:
    """A run's learning curve, from its ``metrics.csv``.

    Returns:
        Places and values of the monitored metric where it was measured, and what the places count: steps in an
        environment where the run counts them, else epochs.
    """
    rows = list(csv.DictReader(io.StringIO(table)))
    along = "env_steps" if rows and "env_steps" in rows[0] else "epoch"
    measured = [row for row in rows if row.get(monitor)]
    return ([float(row[along]) for row in measured], [float(row[monitor]) for row in measured]), along


def draw(curves: Sequence[Curve], along: str, monitor: str, file: io.BytesIO) -> None:
    """Draw the mean of several learning curves, a band of one standard deviation, and each of them, as a PNG.

    Args:
        curves: Of each seed.
        along: What places count.
        monitor: What values are.
        file: Open for writing.
    """
    need("matplotlib", extra="search")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    # Seeds need not have counted alike: each curve is read off at the places of the shortest.
    places_X = np.array(min((places for places, _ in curves), key=lambda places: places[-1]))
    values_SX = np.stack([np.interp(places_X, *found) for found in curves])
    mean_X, deviation_X = values_SX.mean(axis=0), values_SX.std(axis=0, ddof=1)
    for places, values in curves:
        axes.plot(places, values, color="tab:blue", alpha=0.3, linewidth=0.8)
    axes.fill_between(places_X, mean_X - deviation_X, mean_X + deviation_X, color="tab:blue", alpha=0.2, linewidth=0)
    axes.plot(places_X, mean_X, color="tab:blue", linewidth=2, label=f"mean of {len(curves)} seeds, ± one deviation")
    axes.set_xlabel({"env_steps": "environment steps", "epoch": "epochs"}[along])
    axes.set_ylabel(monitor)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(file, format="png")
