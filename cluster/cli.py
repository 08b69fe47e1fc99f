"""The verbs of ``raydeck``. Each imports what it needs when it runs, so that ``list`` and ``--help`` answer at once."""

import importlib
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import workloads
from cluster import console
from cluster.failures import RunFailed
from cluster.retrying import StorageError

VERBS = {
    "list": ("", "the workloads: task, architecture, data, metric, measured result"),
    "show": ("NAME [flags]", "resolved config as YAML, layers, parameters, memory; --space: what `tune` searches"),
    "train": ("NAME [flags]", "one run; the same command goes on with it"),
    "tune": ("NAME [flags]", "one sweep over the workload's space"),
    "evaluate": ("RUN [--data.* ...]", "test metrics of a run's best checkpoint, on other data if asked"),
    "predict": ("RUN INPUT... [--output PATH]", "answers for your own inputs"),
    "diagnose": ("NAME|RUN [flags]", "how far back gradients reach in a recurrent network, by cell"),
    "submit": ("VERB NAME [flags] [--no-wait]", "the same command, as a job on a Ray cluster"),
    "jobs": ("list|status|logs|stop ...", "the jobs of a Ray cluster: what runs, what it says, stopping it"),
    "cluster": ("render|check|up|down|status ...", "manifests for KubeRay, Slurm and `ray up`; a cluster to try"),
    "doctor": ("[flags]", "whether a cluster, its storage and its nodes are fit for a run"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Returns:
        0 done, 1 the run failed, 2 a usage error, 130 or 143 stopped by SIGINT or SIGTERM after saving.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # for people, not for programmers
    try:
        return dispatch(arguments)
    except ValueError as error:
        if os.environ.get("RAYDECK_TRACEBACK"):
            traceback.print_exc()
        print(f"raydeck: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except StorageError as error:
        if os.environ.get("RAYDECK_TRACEBACK"):
            traceback.print_exc()
        print(f"raydeck: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if error.refused else 1
    except RunFailed as error:
        if error.failure.kind == "error" or os.environ.get("RAYDECK_TRACEBACK"):
            traceback.print_exc()  # nothing that we know: whoever mends it needs to see where
        print(f"raydeck: failed: {error}", file=sys.stderr)
        return error.failure.exit_code
    except KeyboardInterrupt:
        print("raydeck: interrupted; the last checkpoint stands", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `raydeck list | head` is no mistake
        return 0
    except Exception as error:
        traceback.print_exc()
        print(f"raydeck: failed: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 1


def dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(version("raydeck"))
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        import difflib

        near = difflib.get_close_matches(verb, VERBS, n=1)
        raise ValueError(
            f"no verb {verb!r}" + (f"; did you mean {near[0]!r}?" if near else f"; one of {', '.join(VERBS)}")
        )
    if verb == "list":
        return list_workloads(rest)
    if verb in ("cluster", "doctor", "jobs"):
        module = {"cluster": "cluster_verbs"}.get(verb, verb)
        return importlib.import_module(f"cluster.{module}").command(rest)
    if not rest or rest[0] in ("-h", "--help"):
        print(f"usage: raydeck {verb} {VERBS[verb][0]}\n\n{VERBS[verb][1]}\n{hint(verb)}")
        return 0
    handlers: dict[str, Callable[[list[str]], int]] = {
        "show": show,
        "train": train,
        "tune": tune,
        "evaluate": evaluate,
        "predict": predict,
        "diagnose": diagnose,
        "submit": submit,
    }
    return handlers[verb](rest)


def usage() -> str:
    width = max(len(f"{verb} {form}") for verb, (form, _) in VERBS.items())
    lines = [f"  raydeck {f'{verb} {form}':{width}}  {words}" for verb, (form, words) in VERBS.items()]
    return "\n".join(
        ["usage: raydeck VERB ...", "", *lines, "", "`raydeck VERB NAME --help` lists every flag of a workload."]
    )


def hint(verb: str) -> str:
    if verb == "cluster":
        return "\nup [--nodes N] [--cpus N] starts it, down ends it, status says where it is."
    if verb == "submit":
        from cluster._package import JOBS

        verbs = ", ".join(f"{name} {subject}" for name, subject in JOBS.items())
        return (
            f"\nVERB NAME is one of: {verbs}\nOf its own it takes --address http://HOST:8265, "
            "--no-wait, and --insecure\nfor a cluster that asks for no token; all else is the verb's own."
        )
    if VERBS[verb][0].startswith("RUN"):
        return "\nRUN is a run directory, such as `raydeck train` prints."
    return f"\nNAME is one of: {', '.join(workloads.names())}\n`raydeck {verb} NAME --help` lists its flags."


def list_workloads(arguments: list[str]) -> int:
    if arguments in (["-h"], ["--help"]):
        print(f"usage: raydeck list [--json]\n\n{VERBS['list'][1]}")
        return 0
    if arguments not in ([], ["--json"]):
        raise ValueError(f"list takes --json only, not {' '.join(arguments)}")
    rows = [workloads.describe(name) for name in workloads.names()]
    if arguments:
        print(json.dumps(rows, indent=1))
        return 0
    columns = ("name", "task", "architecture", "data", "metric", "result")
    console.table("workloads", columns, [[row[column] for column in columns] for row in rows])
    return 0


def show(arguments: list[str]) -> int:
    from cluster import show as showing
    from cluster.flags import Flags, read_flags
    from cluster.placement import Placement

    workload = workloads.load(arguments[0])
    flags = Flags("show", workload, {"": [Placement, showing.Shapes]})
    if wants_help(arguments):
        flags.parser.epilog = "--space prints the search space instead, with --space.KEY as `tune` takes it."
        return print_help(flags)
    if any(argument.partition(".")[0] == "--space" for argument in arguments):
        return show_space(workload, arguments[1:])
    config, namespace = flags.parse(arguments[1:])
    description = showing.describe(
        workload, config, read_flags(Placement, namespace), read_flags(showing.Shapes, namespace)
    )
    print(json.dumps(description, indent=1) if namespace["json"] else showing.as_text(workload, config, description))
    return 0


def show_space(workload: Any, arguments: list[str]) -> int:
    """``show NAME --space``: what a sweep would search."""
    from cluster import spaces

    changes, rest = spaces.change_flags(arguments)
    unknown = [argument for argument in rest if argument not in ("--space", "--json")]
    if unknown:
        raise ValueError(f"show --space takes --space.KEY and --json, not {unknown[0]}")
    told = spaces.load(workload, changes).told()
    if "--json" in rest:
        print(json.dumps(told, indent=1))
    else:
        console.table(f"search space of {workload.name}", ("key", "choice"), list(told.items()))
    return 0


def train(arguments: list[str]) -> int:
    from cluster.session import Stopped

    job, as_json = parse_train("train", arguments)
    if job is None:
        return 0
    if job.seeds > 1:
        from cluster import seeds

        return seeds.train(seeds.jobs_of(job), workloads.load(job.workload), as_json)
    from cluster.folder import Folder
    from cluster.runs import Run

    run = Run(Folder(job.directory))
    run.check(job.workload, job.config)
    if run.is_done(job.config):
        more = "more --trainer.max_epochs would go on with it"
        console.say(f"run {run.folder.short()} is finished; nothing to do ({more})")
        present(run, run.result(), as_json)
        return 0
    from cluster.train import train as launch

    console.say(f"run {run.folder.short()}")
    try:
        result = launch(job)
    except Stopped as stopped:
        console.say(f"stopped; the same command goes on from the last checkpoint in {run.folder.short()}")
        return 128 + stopped.signum
    present(run, result, as_json)
    return 0


def parse_train(verb: str, arguments: list[str]) -> Any:
    """The Job of ``train NAME [flags]``, and whether to answer in JSON; (None, False) after printing help."""
    from cluster.flags import Flags, read_flags
    from cluster.folder import Folder
    from cluster.placement import Placement, Repetition, RunFlags, Saving

    workload = workloads.load(arguments[0])
    flags = Flags(verb, workload, {"": [RunFlags, Repetition, Placement], "checkpoint.": [Saving]})
    if wants_help(arguments):
        print_help(flags)
        return None, False
    config, namespace = flags.parse(arguments[1:])
    placement, saving = read_flags(Placement, namespace), read_flags(Saving, namespace, "checkpoint.")
    where = read_flags(RunFlags, namespace)
    from cluster.runs import check_name, default_name
    from cluster.worker import Job
    from workloads._training import Training

    Training(**config["trainer"])
    name = check_name(where.name) if where.name is not None else default_name(workload.name, config)
    job = Job(
        workload=workload.name,
        config=config,
        directory=str(Folder(where.storage) / name),
        placement=placement,
        saving=saving,
        baselines=where.baselines,
        seeds=read_flags(Repetition, namespace).seeds,
    )
    return job, namespace["json"]


def present(run: Any, result: dict[str, Any], as_json: bool) -> None:
    """The result beside its baselines, and what to do next."""
    from workloads.data._base import Reader

    if as_json:
        print(json.dumps({"run": str(run.folder), **result}, indent=1))
        return
    metric = result["metric"]
    rows = [(result["workload"], console.number(result["test"].get(metric)))]
    rows += [(name, console.number(value)) for name, value in result.get("baselines", {}).items()]
    print()
    console.table("on the test split", ("", metric), rows)
    place = run.folder.short()
    monitor, rate = result["monitor"], result["examples_per_second"]
    elsewhere = ", or with --data.source on other data" if "source" in run.stored()[1]["data"] else ""
    workload = workloads.load(result["workload"])
    reader = workload.reader_type
    draws = f" --output made{reader.drawn_as}" if reader.picture is not Reader.picture else ""
    shows = " INPUT...      your own inputs" if reader.needs_inputs else draws
    print(
        f"\n{result['num_parameters']:,} parameters, {result['epochs']} epochs in "
        f"{console.duration(result['seconds'])}, {rate:,.0f} {workload.data.unit}/s; best {monitor['name']} "
        f"{console.number(monitor['best'])}\n\nnext:\n"
        f"  raydeck predict {place}{shows}\n"
        f"  raydeck evaluate {place}              test metrics again{elsewhere}\n"
        f"  raydeck tune {result['workload']} --trials 16            search for better settings"
    )


def tune(arguments: list[str]) -> int:
    from cluster.sweep import command

    return command(arguments)


def evaluate(arguments: list[str]) -> int:
    from cluster.using import evaluate as run_evaluate

    return run_evaluate(arguments)


def predict(arguments: list[str]) -> int:
    from cluster.using import predict as run_predict

    return run_predict(arguments)


def diagnose(arguments: list[str]) -> int:
    from cluster.diagnose import command

    return command(arguments)


def submit(arguments: list[str]) -> int:
    """``submit VERB NAME [flags]``: check the command here, then send it."""
    from cluster.dashboard import Where
    from cluster.submit import check, read
    from cluster.submit import submit as send

    options, sent = read(arguments)
    if wants_help(sent):
        return dispatch(sent if sent[0] in ("train", "tune") else [*sent[:1], "--help"])
    run = check(sent)
    return send(sent, where=Where(options.address, options.insecure), run=run, wait=options.wait)


def wants_help(arguments: Sequence[str]) -> bool:
    return any(argument in ("-h", "--help") for argument in arguments)


def print_help(flags: Any) -> int:
    flags.parser.print_help()
    return 0
