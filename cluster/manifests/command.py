"""The command that a manifest runs: checked as ``raydeck`` itself would, and made to mean the same on a cluster."""

import contextlib
import io
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from cluster.manifests.options import Common
from workloads._spec import flatten, is_key

VERBS = ("train", "tune")

ISSUED = ("workers", "gpus-per-worker", "cpus-per-worker", "address")
"""Flags that a manifest decides, as it asks for the machines too."""

IMAGE = re.compile(
    r"(?P<name>[a-z0-9][a-zA-Z0-9./_:-]*?)(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(@sha256:(?P<digest>[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class Command:
    """A command to run on a cluster.

    Args:
        words: From ``raydeck`` on.
        name: Of the run.
        storage: Absolute path or URI that holds it.
    """

    words: tuple[str, ...]
    name: str
    storage: str

    def __str__(self) -> str:
        return shlex.join(self.words)

    @property
    def verb(self) -> str:
        return self.words[1]

    @property
    def path(self) -> str | None:
        """The storage where it is a path, without its ``file://``; None for an object store."""
        storage = self.storage.removeprefix("file://")
        return storage if storage.startswith("/") else None


def prepare(arguments: Sequence[str], common: Common) -> Command:
    """Check ``VERB NAME [flags]``, and say in it what the manifest decides.

    Raises:
        ValueError: As ``raydeck`` itself refuses it; or it names a place that only this machine has, a password, or
            other numbers than the manifest's.
    """
    if len(arguments) < 2 or arguments[0] not in VERBS:
        raise ValueError("cluster render: expected `-- train NAME [flags]` or `-- tune NAME [flags]` at the end")
    verb, workload, *rest = arguments
    flags = flags_of(rest)
    job = parse(verb, [workload, *rest])
    check_places(flags)
    issued = decide(verb, common, flags)
    name = PurePosixPath(job.directory).name
    kept = [argument for argument in joined(rest) if _flag(argument) not in {"config", "name", "storage", *ISSUED}]
    if "config" in flags:
        kept = [argument for argument in kept if not is_key(_flag(argument))] + unrolled(job, flags)
    words = ["raydeck", verb, workload, f"--name={name}", f"--storage={flags['storage']}"]
    return Command((*words, *(f"--{flag}={value}" for flag, value in issued.items()), *kept), name, flags["storage"])


def decide(verb: str, common: Common, flags: Mapping[str, str]) -> dict[str, str]:
    """The flags that a manifest decides.

    Raises:
        ValueError: The command says otherwise.
    """
    decided = {
        "workers": str(common.workers),
        "gpus-per-worker": str(common.gpus_per_worker),
        "cpus-per-worker": str(common.cpus_per_worker),
        "address": "auto",
    }
    for flag, value in decided.items():
        given = flags.get(flag, value)
        if given not in (value, "auto") and not (verb == "tune" and flag == "workers"):
            where = "is auto in a manifest" if flag == "address" else f"is {value} before it; give it once, before --"
            raise ValueError(f"--{flag} is {given} after -- and {where}")
    if verb == "tune":
        del decided["workers"]  # a trial has one; as many run at a time as the manifest's workers hold
    return decided


def parse(verb: str, arguments: Sequence[str]) -> Any:
    """The Job of ``NAME [flags]``, without looking at its storage, which only the cluster need be able to reach.

    Raises:
        ValueError: The command line would refuse it.
    """
    from cluster.cli import parse_train, wants_help
    from cluster.sweep import parse as parse_tune

    if wants_help(arguments):
        raise ValueError(f"--help: `raydeck {verb} NAME --help` lists the flags; a manifest runs a command")
    elsewhere = [argument for argument in joined(arguments) if not argument.startswith("--storage=")]
    with contextlib.redirect_stdout(io.StringIO()):
        if verb == "train":
            return parse_train("train", elsewhere)[0]
        return parse_tune(elsewhere)[0].job


def unrolled(job: Any, flags: dict[str, str]) -> list[str]:
    """What ``--config`` and the flags set, as flags alone: the cluster does not see this machine's files."""
    import workloads

    workload = workloads.load(job.workload)
    known = workload.keys()
    plain = flatten(workload.config(*([workload.smoke] if "smoke" in flags else [])), known)
    wanted = flatten(job.config, known)
    changed = {key: value for key, value in wanted.items() if value != plain.get(key)}
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in changed.items()]


def joined(arguments: Sequence[str]) -> list[str]:
    """``--flag value`` as ``--flag=value``; a flag without a value stands alone."""
    found: list[str] = []
    for argument in arguments:
        if found and not argument.startswith("--") and found[-1].startswith("--") and "=" not in found[-1]:
            found[-1] += f"={argument}"
        else:
            found.append(argument)
    return found


def _flag(argument: str) -> str:
    return argument[2:].partition("=")[0]


def flags_of(arguments: Sequence[str]) -> dict[str, str]:
    """Flag, without dashes, to its value; the last one stands, as for the parser."""
    pairs = [argument[2:].partition("=") for argument in joined(arguments) if argument.startswith("--")]
    return {flag: value for flag, _, value in pairs}


def check_places(flags: dict[str, str]) -> None:
    """Raise ValueError for a storage or data that no node of a cluster would find, or a password."""
    for flag, value in flags.items():
        if re.search(r"://[^/@\s]*:[^/@\s]*@", value):
            raise ValueError(f"--{flag}: a password in it would stand in the manifest; give nodes an identity instead")
    storage = flags.get("storage", "")
    if not is_shared(storage):
        raise ValueError(
            f"--storage {storage or 'is missing'}: the run would vanish with its node; give an absolute path that all "
            "nodes share, or a URI such as s3://bucket/runs"
        )
    source = flags.get("data.source", "")
    if re.search(r"[/\\~]|^\.", source) and not is_shared(source):
        raise ValueError(
            f"--data.source {source}: nodes do not see this machine's files; give an absolute path that all nodes "
            "share, or hf://owner/name"
        )


def is_shared(place: str) -> bool:
    """Whether a place means the same on every node: an absolute path, or a URI."""
    if place.startswith("memory:"):  # of one process
        return False
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://.", place)) or PurePosixPath(place).is_absolute()


def image_fault(image: str) -> str | None:
    """Why an image is not the same one tomorrow; None if it is."""
    found = IMAGE.fullmatch(image.removeprefix("docker://"))
    if not found:
        return "is no image reference"
    if found["digest"]:
        return None
    if not found["tag"]:
        return "has neither tag nor digest, which means latest"
    if found["tag"] in ("latest", "nightly", "main", "master", "dev", "stable"):
        return f"has a tag that moves, {found['tag']}"
    return None


def check_image(image: str | None) -> str:
    """Return an image that is pinned.

    Raises:
        ValueError: It is missing, or its tag moves.
    """
    if not image:
        raise ValueError("--image: expected one that holds Ray and raydeck, e.g. --image HOST/raydeck:0.1.0")
    if fault := image_fault(image):
        raise ValueError(f"--image {image}: {fault}; pin an exact tag, or a digest as NAME@sha256:...")
    return image


def header(made_by: Sequence[str], use: Sequence[str]) -> list[str]:
    """Comment lines: the command that made a manifest, and what to do with it."""
    return [f"# Made by: {shlex.join(made_by)}", *(f"# {line}".rstrip() for line in use)]


def object_name(name: str, longest: int) -> str:
    """A run's name as Kubernetes and clouds take one: lower case, digits and dashes, beginning with a letter.

    Args:
        name: Of the run.
        longest: Characters that it may have; at least 20.
    """
    import hashlib

    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    plain = plain if plain[:1].isalpha() else f"run-{plain}".rstrip("-")
    if plain == name and len(plain) <= longest:
        return plain
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]  # names that differ in case or dots stay different
    return f"{plain[: longest - 7].rstrip('-')}-{digest}"
