"""``raydeck cluster ...``: manifests for clusters, rendered and checked, and a throw-away cluster on this machine."""

import difflib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import console

VERBS = {
    "render": ("kuberay|slurm|ray-up [flags] -- train NAME [flags]", "the manifest that runs a command on a cluster"),
    "check": ("FILE [--crds DIR] [--gates NAME,NAME]", "what is wrong with a manifest, found without a cluster"),
    "up": ("--local [--nodes N] [--cpus N]", "a throw-away cluster on this machine, with a token"),
    "status": ("[--local]", "whether it is up, and what it takes to join it"),
    "down": ("[--local]", "end it, and nothing else"),
}

KINDS = {"kuberay": "a RayJob of KubeRay", "slurm": "a batch script of Slurm", "ray-up": "a cluster file of `ray up`"}


def command(arguments: list[str]) -> int:
    """``cluster VERB ...``; returns the exit code.

    Raises:
        ValueError: The command line is at fault.
    """
    verb, *rest = arguments or ["--help"]
    if verb in ("-h", "--help"):
        width = max(len(f"{name} {form}") for name, (form, _) in VERBS.items())
        lines = [f"  raydeck cluster {f'{name} {form}':{width}}  {words}" for name, (form, words) in VERBS.items()]
        print("\n".join(["usage: raydeck cluster VERB ...", "", *lines]))
        return 0
    _choose("cluster", "verb", verb, VERBS)
    if verb in ("up", "status", "down"):
        from cluster import local_cluster

        handlers: dict[str, Callable[[list[str]], int]]
        handlers = {"up": local_cluster.up, "status": local_cluster.status, "down": local_cluster.down}
    else:
        handlers = {"render": render, "check": check}
    return handlers[verb](rest)


def render(arguments: list[str]) -> int:
    """``cluster render KIND [flags] -- VERB NAME [flags]``: print a manifest, or write it."""
    if not arguments or arguments[0] in ("-h", "--help"):
        kinds = [
            f"  {kind:8} {words}; `raydeck cluster render {kind} --help` lists its flags"
            for kind, words in KINDS.items()
        ]
        print("\n".join([f"usage: raydeck cluster render {VERBS['render'][0]}", "", *kinds]))
        return 0
    kind, *rest = arguments
    _choose("cluster render", "kind of cluster", kind, KINDS)
    if "--" not in rest and not {"-h", "--help"} & set(rest):
        raise ValueError("cluster render: expected `-- train NAME [flags]` or `-- tune NAME [flags]` at the end")
    from cluster.manifests import command as commands
    from cluster.manifests import kuberay, options, ray_up, slurm

    module, flags = {
        "kuberay": (kuberay, options.KubeRay),
        "slurm": (slurm, options.Slurm),
        "ray-up": (ray_up, options.RayUp),
    }[kind]
    split = rest.index("--") if "--" in rest else len(rest)
    found = _read(f"render {kind}", rest[:split], [options.Common, flags])
    if found is None:
        return 0
    common, special = found
    made = commands.prepare(rest[split + 1 :], common)
    text = module.render(common, special, made, ["raydeck", "cluster", "render", *arguments])
    if common.output is None:
        print(text, end="")
        return 0
    _write(common.output, text)
    console.say(f"written: {common.output}; check it with: raydeck cluster check {shlex.quote(common.output)}")
    return 0


def check(arguments: list[str]) -> int:
    """``cluster check FILE``: print each fault on a line; returns 2 if there is any."""
    from cluster.manifests import check as checking

    if not arguments or any(argument in ("-h", "--help") for argument in arguments):
        print(f"usage: raydeck cluster check {VERBS['check'][0]}\n\n{VERBS['check'][1]}")
        _read("check FILE", ["--help"], [Check])
        return 0
    file, *rest = arguments
    if file.startswith("-"):
        raise ValueError(f"cluster check: expected the FILE first, got {file}")
    found = _read("check FILE", rest, [Check])
    assert found is not None
    report = checking.check(Path(file), **vars(found[0]))
    for finding in report.findings:
        print(f"{file}: {finding}")
    for left_out in report.unchecked:
        console.say(f"not checked: {left_out}")
    if report.findings:
        return 2
    print(f"{file}: no fault found")
    return 0


@dataclass(frozen=True, kw_only=True)
class Check:
    """What the check may go by.

    Args:
        crds: Folder of KubeRay's custom resource definitions (its config/crd/bases), for its strict schema.
        gates: Feature gates that KubeRay's operator has switched on, with commas.
    """

    crds: str | None = None
    gates: str = ""


def _read(verb: str, arguments: Sequence[str], classes: Sequence[type]) -> list[Any] | None:
    """The dataclasses that flags make; None after printing help.

    Raises:
        ValueError: A flag is unknown, or its value wrong.
    """
    from cluster.flags import parse_plain

    return parse_plain(f"raydeck cluster {verb}", arguments, *classes, json=False)[1] or None


def _choose(where: str, what: str, given: str, known: Sequence[str] | dict[str, Any]) -> None:
    """Raise ValueError for something that there is not, naming what comes nearest."""
    if given in known:
        return
    near = difflib.get_close_matches(given, list(known), n=1)
    raise ValueError(
        f"{where}: no {what} {given!r}" + (f"; did you mean {near[0]!r}?" if near else f"; one of {', '.join(known)}")
    )


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise ValueError(f"--output {path}: cannot be written ({error.strerror})") from None
