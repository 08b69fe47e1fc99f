"""``raydeck evaluate`` and ``raydeck predict``: a finished run, found by its directory."""

import csv
import inspect
import json
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

import workloads
from cluster import console
from cluster.checkpoints import WEIGHTS
from cluster.cli import VERBS
from cluster.flags import add_choices, explain, refuse_unknown
from cluster.folder import Folder
from cluster.retrying import StorageError
from cluster.runs import Run
from cluster.worker import quiet
from workloads import _evaluate, _machine
from workloads._machine import Machine, prepare
from workloads._spec import Config, Workload, choices, flatten, to_config

FLAGS: dict[str, dict[str, dict[str, Any]]] = {
    "evaluate": {},
    "diagnose": {
        "--examples": {"type": int, "default": 32, "help": "Validation examples over which gradients are averaged."},
    },
    "predict": {
        "inputs": {"nargs": "*", "type": str, "help": "What to answer for: files, or the words themselves."},
        "--output": {
            "type": str,
            "default": None,
            "help": "Write answers to this .csv or .json, or a picture to .png (of an agent's episode: to .gif).",
        },
    },
}
"""What each verb takes besides the keys of the run's config."""


@contextmanager
def opened(run: Run, workload: Workload, config: Config, machine: Machine) -> Any:
    """The module and data module of a run's best checkpoint."""
    with run.checkpoints(workload.mode).best() as found:
        if found is None:
            raise ValueError(f"run {run.folder} has no whole checkpoint; train it first")
        yield _evaluate.restore(workload, config, found[1] / WEIGHTS, machine)


def open_run(verb: str, arguments: Sequence[str]) -> tuple[Run, Workload, Config, Any, Machine] | None:
    """Find the run that is the first argument, parse the rest and prepare the machine; None after printing help."""
    found = read_run(verb, arguments)
    if found is None:
        return None
    run, workload, config, namespace = found
    quiet()
    machine = _machine.inspect(namespace["accelerator"], config["trainer"]["precision"])
    prepare(machine)
    return run, workload, config, namespace, machine


def read_run(verb: str, arguments: Sequence[str]) -> tuple[Run, Workload, Config, Any] | None:
    """Find the run that is the first argument and parse the rest; None after printing help.

    Raises:
        ValueError: There is no such run, or a flag is at fault.
    """
    form = VERBS[verb][0]
    if arguments[0].startswith("-"):
        raise ValueError(f"{verb} takes a run directory first: raydeck {verb} {form}")
    run = Run.find(arguments[0])
    name, stored = run.stored()
    workload = workloads.load(name)
    config = workload.config(stored)
    parser = ArgumentParser(prog=f"raydeck {verb} {form}", exit_on_error=False, allow_abbrev=False)
    for flag, options in FLAGS[verb].items():
        parser.add_argument(flag, **options)
    for function in answering(workload) if verb == "predict" else ():
        add_choices(parser, function)
    parser.add_argument("--json", action="store_true", help="Print the answer as JSON.")
    parser.add_argument("--accelerator", default="auto", choices=("auto", "cpu", "gpu"), help="Where to run.")
    workload.add_arguments(parser)
    parser.set_defaults(flatten(config, workload.keys()))
    if any(argument in ("-h", "--help") for argument in arguments):
        parser.print_help()
        return None
    refuse_unknown(parser, workload, arguments[1:])
    try:
        namespace = parser.parse_args(list(arguments[1:]))
    except ArgumentError as error:
        raise ValueError(explain(parser, str(error), arguments)) from None
    changed = to_config(namespace)
    if changed["model"] != config["model"]:
        raise ValueError(f"the model of a finished run cannot be changed; {verb} takes --data.* only")
    if verb == "predict" and not namespace["inputs"] and workload.reader_type.needs_inputs:
        raise ValueError("predict needs inputs: raydeck predict RUN INPUT...")
    return run, workload, changed, namespace


def check(verb: str, arguments: Sequence[str]) -> None:
    """Read a command that is to run elsewhere, as far as its run can be seen from here.

    Raises:
        ValueError: As of :func:`read_run`.
    """
    try:
        folder = Folder(arguments[0])
        if not folder.is_local or folder.exists():
            read_run(verb, arguments) if verb in FLAGS else Run.find(arguments[0])
    except StorageError as error:
        console.warn(f"RUN {arguments[0]}: cannot be read from here, so not checked: {' '.join(str(error).split())}")


def evaluate(arguments: list[str]) -> int:
    """``evaluate RUN [--data.* ...]``."""
    found = open_run("evaluate", arguments)
    if found is None:
        return 0
    run, workload, config, namespace, machine = found
    other = config["data"].get("source") != run.stored()[1]["data"].get("source")
    with opened(run, workload, config, machine) as (model, data):
        metrics = _evaluate.evaluate(model, data, machine, whole=other)
    examples = len(data.splits["test"])
    if namespace["json"]:
        answer = {"run": str(run.folder), "examples": examples, "test": metrics}
        print(json.dumps(answer | ({"signatures": dict(data.signatures)} if data.signatures else {}), indent=1))
    else:
        rows = [(name, console.number(value)) for name, value in sorted(metrics.items())]
        console.table(f"{examples:,} examples", ("metric", "test"), rows)
    return 0


def predict(arguments: list[str]) -> int:
    """``predict RUN INPUT... [--output PATH]``."""
    found = open_run("predict", arguments)
    if found is None:
        return 0
    run, workload, config, namespace, machine = found
    output = Path(namespace["output"]) if namespace["output"] else None
    check_output(output, workload.reader_type.drawn_as)
    options = {name: namespace[name] for function in answering(workload) for name in choices(function)}
    speaks = inspect.isgeneratorfunction(workload.model.predict_step) and not namespace["json"]
    with opened(run, workload, config, machine) as (model, data):
        reader = workload.reader_of(data)
        inputs, answers = _evaluate.predict(
            model, data, reader, machine, namespace["inputs"], options, speak if speaks else None
        )
    pictures, answers = answers, [plain(answer) for answer in answers]
    if output is not None and output.suffix == reader.drawn_as:
        if not reader.picture(inputs, pictures, output):
            raise ValueError(f"--output {output}: these inputs make no picture; use .csv or .json")
    elif output is not None:
        write(answers, output)
    if namespace["json"]:
        print(json.dumps(answers, indent=1, ensure_ascii=False))
    elif speaks:
        print()
        for name, value in ((name, value) for answer in answers for name, value in answer.items() if value != ""):
            if name not in ("input", "text") and not isinstance(value, dict | list):
                shown = console.number(value) if isinstance(value, float) else " / ".join(str(value).split("\n"))
                console.say(f"{name.replace('_', ' ')}: {shown}")
    else:
        columns = [k for k, v in answers[0].items() if not isinstance(v, dict | list)]
        rows = [[console.number(a[k]) if isinstance(a[k], float) else a[k] for k in columns] for a in answers]
        console.table("", columns, rows)
        for title, pieces in reader.marked(answers):
            console.marked(title, pieces)
    if output is not None:
        console.say(f"written: {output}")
    return 0


def answering(workload: Workload) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The functions whose keyword-only arguments are flags of ``predict``."""
    return workload.reader_type.encode, workload.model.predict_step


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without its pictures."""
    return {name: value for name, value in answer.items() if not hasattr(value, "__array__")}


def speak(text: str) -> None:
    """Words of an answer, as they come."""
    print(text, end="", flush=True)


def check_output(output: Path | None, drawn_as: str) -> None:
    """Refuse an output that cannot be written, before any work is done."""
    if output is None:
        return
    if output.suffix not in (".csv", ".json", drawn_as):
        raise ValueError(f"--output {output}: the name ends in .csv, .json or {drawn_as}")
    if not output.parent.is_dir():
        raise ValueError(f"--output {output}: there is no folder {output.parent}")


def write(answers: list[dict[str, Any]], output: Path) -> None:
    """Answers as JSON, or as CSV with a column for each class's probability."""
    if output.suffix == ".json":
        output.write_text(json.dumps(answers, indent=1))
        return
    rows = [flatten({k: v for k, v in answer.items() if not isinstance(v, list)}) for answer in answers]
    with output.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
