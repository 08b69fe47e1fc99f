"""``raydeck diagnose``: how far back gradients reach in recurrent networks, and what distance their memory bridges."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import workloads
from cluster import console, diagnose_picture
from cluster.checkpoints import WEIGHTS
from cluster.failures import RunFailed
from cluster.flags import Flags, read_flags
from cluster.folder import Folder
from cluster.placement import Placement, RunFlags, Saving
from cluster.runs import Run, check_name, default_name
from cluster.session import Stopped
from cluster.train import train
from cluster.using import open_run, opened
from cluster.worker import Job, quiet
from lightning_modules.shared.gradients import recurrent_of
from workloads import _diagnose, _evaluate
from workloads._diagnose import Curve
from workloads._machine import Machine, inspect, prepare
from workloads._spec import Config, Workload
from workloads._training import Training
from workloads.data._base import DataModule

SHOWN = (0, 1, 10, 50, 100, 200, 400)
"""Distances that the table shows; the CSV has all."""


@dataclass(frozen=True, kw_only=True)
class DiagnoseFlags:
    """What is compared, and at what cost.

    Args:
        cells: Cells to compare, separated by commas: rnn-sigmoid, rnn-relu, rnn-tanh, gru, lstm. By default all that
            the module has.
        max_epochs: Epochs that each cell trains for; by default trainer.max_epochs. 0 trains none, and measures what
            there is.
        examples: Validation examples over which gradients are averaged.
        distances: Values of data.distance, separated by commas, at each of which every cell is trained too, to set its
            test metric against the distance.
    """

    cells: str | None = None
    max_epochs: int | None = None
    examples: int = 32
    distances: str | None = None

    def __post_init__(self) -> None:
        if self.max_epochs is not None and self.max_epochs < 0:
            raise ValueError(f"--max-epochs: expected at least 0, got {self.max_epochs}")
        if self.examples < 1:
            raise ValueError(f"--examples: expected at least 1, got {self.examples}")


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """A comparison of cells.

    Args:
        workload: The workload.
        job: What all cells share; its directory holds the figures, and below ``runs/`` a run a cell.
        cells: Name to config.
        flags: The command's own flags.
        distances: At which the cells are trained.
    """

    workload: Workload
    job: Job
    cells: Mapping[str, Config]
    flags: DiagnoseFlags
    distances: Sequence[int]

    def of(self, cell: str, distance: int | None = None) -> Job:
        """The run of a cell, at its own distance or another."""
        config, name = self.cells[cell], cell
        if distance not in (None, config["data"].get("distance")):
            config, name = self.workload.config(config, {"data.distance": distance}), f"{cell}-distance-{distance}"
        return replace(self.job, config=config, directory=f"{self.job.directory}/runs/{name}")


def command(arguments: list[str]) -> int:
    """``diagnose NAME|RUN [flags]``."""
    if arguments[0] not in workloads.names() and ("/" in arguments[0] or Folder(arguments[0]).exists()):
        return of_run(arguments)
    diagnosis, as_json = parse(arguments)
    if diagnosis is None:
        return 0
    folder = Folder(diagnosis.job.directory)
    console.say(f"diagnosis {folder.short()}")
    quiet()
    machine = inspect(diagnosis.job.placement.accelerator, "32", diagnosis.job.placement.cpus_per_worker)
    prepare(machine)
    data = diagnosis.workload.build_data(diagnosis.job.config, machine)
    data.prepare_data()
    data.setup("fit")
    try:
        curves = gradients(diagnosis, data)
        scores = list(by_distance(diagnosis, data))
    except Stopped as stopped:
        console.say(f"stopped; the same command goes on with the diagnosis in {folder.short()}")
        return 128 + stopped.signum
    write(folder, diagnosis.workload, curves, scores)
    present(folder, diagnosis.workload, curves, scores, as_json)
    return 0


def parse(arguments: Sequence[str]) -> tuple[Diagnosis | None, bool]:
    """The diagnosis of ``NAME [flags]``, and whether to answer in JSON; None after printing help.

    Raises:
        ValueError: A flag or a key is at fault, or the workload's module is not recurrent.
    """
    workload = workloads.load(arguments[0])
    reading = _diagnose.reading(workload)
    flags = Flags("diagnose", workload, {"": [RunFlags, DiagnoseFlags, Placement], "checkpoint.": [Saving]})
    flags.parser.set_defaults(dict(reading))
    if any(argument in ("-h", "--help") for argument in arguments):
        flags.parser.print_help()
        return None, False
    config, namespace = flags.parse(arguments[1:], reading)
    where, own = read_flags(RunFlags, namespace), read_flags(DiagnoseFlags, namespace)
    if own.max_epochs:
        config["trainer"]["max_epochs"] = own.max_epochs
    Training(**config["trainer"])
    cells = chosen(own, _diagnose.cells_of(workload, config))
    name = where.name if where.name is not None else default_name(f"diagnose-{workload.name}", config)
    job = Job(
        workload=workload.name,
        config=config,
        directory=str(Folder(where.storage) / check_name(name)),
        placement=read_flags(Placement, namespace),
        saving=read_flags(Saving, namespace, "checkpoint."),
        baselines=False,
    )
    distances = distances_of(own, workload, config)
    return Diagnosis(workload=workload, job=job, cells=cells, flags=own, distances=distances), namespace["json"]


def chosen(flags: DiagnoseFlags, cells: Mapping[str, Config]) -> Mapping[str, Config]:
    """Those cells that are asked for.

    Raises:
        ValueError: One is not among them.
    """
    names = [name.strip() for name in flags.cells.split(",")] if flags.cells else list(cells)
    for name in names:
        if name not in cells:
            raise ValueError(f"--cells: no {name!r}; there are: {', '.join(cells)}")
    return {name: cells[name] for name in names}


def distances_of(flags: DiagnoseFlags, workload: Workload, config: Config) -> list[int]:
    """The distances that are asked for.

    Raises:
        ValueError: They are no whole numbers, or the workload has no distance to set, or not these.
    """
    if flags.distances is None:
        return []
    known = workload.keys()
    if "data.distance" not in known:
        raise ValueError(f"--distances: {workload.name} has no data.distance; long_dependency has")
    try:
        found = sorted({int(text) for text in flags.distances.split(",")})
    except ValueError:
        raise ValueError(f"--distances: expected whole numbers such as 10,25,50, got {flags.distances!r}") from None
    for distance in found:  # refused before anything is trained
        workload.build_data(workload.config(config, {"data.distance": distance}), Machine())
    return found


def gradients(diagnosis: Diagnosis, data: DataModule) -> list[Curve]:
    """Measure every cell at its initial weights, train it, and measure it again."""
    workload, num_examples = diagnosis.workload, diagnosis.flags.examples
    curves: list[Curve] = []
    for cell, config in diagnosis.cells.items():
        model = workload.build_model(config, workload.decided(data))
        curves += _diagnose.curves(model, data, cell=cell, weights="initial", num_examples=num_examples)
        with trained(diagnosis, cell).checkpoints(workload.mode).best() as found:
            if found is None:
                continue
            model, _ = _evaluate.restore(workload, config, found[1] / WEIGHTS, data.machine)
        curves += _diagnose.curves(model, data, cell=cell, weights="trained", num_examples=num_examples)
    return curves


def trained(diagnosis: Diagnosis, cell: str, distance: int | None = None) -> Run:
    """The run of a cell, done or gone on with. One whose loss is no longer finite is told of, and stands as it is."""
    job = diagnosis.of(cell, distance)
    run = Run(Folder(job.directory))
    run.check(job.workload, job.config)
    if diagnosis.flags.max_epochs == 0 or run.is_done(job.config):
        return run
    console.say(f"run {run.folder.short()}")
    try:
        train(job)
    except RunFailed as error:
        if error.failure.kind != "nan_loss":
            raise
        console.warn(f"{run.folder.short()}: {error}")
    return run


def by_distance(diagnosis: Diagnosis, data: DataModule) -> Iterator[dict[str, Any]]:
    """Train every cell at every distance; yields what each has reached on its test split."""
    metric, chance = diagnosis.workload.metric, 1 / data.num_outputs
    for distance in diagnosis.distances:
        for cell in diagnosis.cells:
            result = trained(diagnosis, cell, distance).result()
            value = result.get("test", {}).get(metric)
            told = {key: result.get(key) for key in ("status", "epochs", "steps", "seconds")}
            yield {"cell": cell, "distance": distance, metric: value, "chance": chance, **told}


def of_run(arguments: Sequence[str]) -> int:
    """``diagnose RUN``: one run's best checkpoint, and what it began with."""
    found = open_run("diagnose", arguments)
    if found is None:
        return 0
    run, workload, config, namespace, machine = found
    flags = DiagnoseFlags(examples=namespace["examples"])
    with opened(run, workload, config, machine) as (model, data):
        recurrent = recurrent_of(model)
        if recurrent is None:
            raise ValueError(f"{arguments[0]} is a run of {workload.name}, whose module is not recurrent")
        cell = f"rnn-{recurrent.activation}" if recurrent.cell == "rnn" else recurrent.cell
        data.setup("fit")
        initial = workload.build_model(config, workload.decided(data))
        curves: list[Curve] = []
        for weights, measured in (("initial", initial), ("trained", model)):
            curves += _diagnose.curves(measured, data, cell=cell, weights=weights, num_examples=flags.examples)
    write(run.folder, workload, curves, [])
    present(run.folder, workload, curves, [], namespace["json"])
    return 0


def write(folder: Folder, workload: Workload, curves: Sequence[Curve], scores: Sequence[dict[str, Any]]) -> None:
    """Figures as PNG and numbers as CSV."""
    folder.create()
    folder.write("gradients.csv", as_csv([row for curve in curves for row in curve.rows()]))
    title = f"{workload.name}: {workload.task}"
    folder.write("gradients.png", diagnose_picture.png(diagnose_picture.gradients(title, curves)))
    if scores:
        folder.write("distances.csv", as_csv(scores))
        folder.write("distances.png", diagnose_picture.png(diagnose_picture.distances(title, workload.metric, scores)))


def as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def present(
    folder: Folder, workload: Workload, curves: Sequence[Curve], scores: Sequence[dict[str, Any]], as_json: bool
) -> None:
    """Tables on stdout, or everything as JSON; and where the figures are."""
    if as_json:
        told = [
            asdict(curve) | {"norms": [_safe(n) for n in curve.norms], "factor": _safe(curve.factor())}
            for curve in curves
        ]
        print(json.dumps({"diagnosis": str(folder), "gradients": told, "distances": list(scores)}, indent=1))
        return
    longest = max(len(curve.norms) for curve in curves)
    shown = [d for d in SHOWN if d < longest]
    rows = [
        (c.cell, c.weights, c.state, *(f"{c.norms[d]:.1e}" if d < len(c.norms) else "" for d in shown),
         f"{c.factor():.3g}")
        for c in curves
    ]  # fmt: skip
    title = "norm of the loss's gradient with respect to the state so many steps before the last"
    console.table(title, ("cell", "weights", "state", *map(str, shown), "a step"), rows)
    if scores:
        distances = sorted({row["distance"] for row in scores})
        found = {(row["cell"], row["distance"]): row[workload.metric] for row in scores}
        cells = dict.fromkeys(row["cell"] for row in scores)
        print()
        console.table(
            f"{workload.metric} on test, by distance", ("cell", *map(str, distances)),
            [(cell, *(console.number(found[cell, distance]) for distance in distances)) for cell in cells],
        )  # fmt: skip
    print()
    for name in ("gradients", "distances")[: 1 + bool(scores)]:
        print(f"drawn: {folder.short()}/{name}.png, numbers: {name}.csv")


def _safe(value: float) -> float | None:
    """A number as JSON has it, which has no infinity."""
    return value if math.isfinite(value) else None
