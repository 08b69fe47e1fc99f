"""What a check finds, and what manifests of all kinds have in common: a command, an image, places, secrets."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.manifests import command as commands

SECRET = re.compile(
    r"(TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIAL|API_?KEY|ACCESS_KEY|PRIVATE_KEY)(?!.*_(PATH|FILE|NAME)$)", re.IGNORECASE
)
"""In the name of a variable: its value is a secret. One that ends in PATH, FILE or NAME says where one lies."""


@dataclass(frozen=True)
class Finding:
    """A fault.

    Args:
        where: Dotted path, or line.
        fault: What is wrong there.
        mend: What to write instead.
    """

    where: str
    fault: str
    mend: str

    def __str__(self) -> str:
        return " ".join(f"{self.where}: {self.fault}; {self.mend}".split())


@dataclass
class Report:
    """What a check found.

    Args:
        findings: Faults.
        unchecked: What was not looked at.
    """

    findings: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Parsed:
    """The command that a manifest runs.

    Args:
        verb: train or tune.
        flags: Flag, without dashes, to its value.
    """

    verb: str
    flags: Mapping[str, str]

    def number(self, flag: str) -> int | None:
        """A flag's whole number; None if it is not given, or is none."""
        value = self.flags.get(flag, "")
        return int(value) if value.isdigit() else None

    @property
    def path(self) -> str | None:
        """The storage, if it is a path."""
        storage = self.flags.get("storage", "").removeprefix("file://")
        return storage if storage.startswith("/") else None


def read_command(where: str, text: Any) -> tuple[Parsed | None, list[Finding]]:
    """The command in ``text``, and what is wrong with it as one of a cluster."""
    fault = "is no raydeck command"
    mend = "write raydeck train NAME --name RUN --storage PATH --address auto"
    try:
        words = shlex.split(text) if isinstance(text, str) else []
    except ValueError as error:
        words, fault = [], f"cannot be split into words ({error})"
    if words[:3] == ["python", "-m", "cluster"]:
        words = ["raydeck", *words[3:]]
    if len(words) < 3 or words[0] != "raydeck" or words[1] not in commands.VERBS:
        return None, [Finding(where, fault, mend)]
    verb, *arguments = words[1:]
    parsed = Parsed(verb, commands.flags_of(arguments[1:]))
    findings = []
    try:
        commands.parse(verb, arguments)
        commands.check_places(dict(parsed.flags))
    except ValueError as error:
        findings.append(Finding(where, str(error), "`raydeck VERB NAME --help` lists the flags"))
    if "name" not in parsed.flags:
        again = Finding(where, "has no --name, so that a retry may not find its run", "add --name RUN")
        findings.append(again)
    if parsed.flags.get("address") != "auto":
        findings.append(Finding(where, "has no --address auto and would not join the cluster", "add --address auto"))
    if "config" in parsed.flags:
        findings.append(Finding(where, "--config names a file that no node has", "give its keys as flags"))
    return parsed, findings


def check_image(where: str, image: Any) -> Iterator[Finding]:
    """Whether an image is pinned, and whether one of Ray's own is of our version."""
    import ray

    fault = commands.image_fault(image) if isinstance(image, str) and image else "is missing"
    if fault:
        yield Finding(where, f"{image!r} {fault}" if image else fault, "pin an exact tag, or NAME@sha256:...")
        return
    found = re.search(r"rayproject/ray(?:-ml|-llm)?:([0-9]+\.[0-9]+\.[0-9]+)", image)
    if found and found[1] != ray.__version__:
        yield Finding(where, f"Ray {found[1]}, and the one here is {ray.__version__}", "use the same on both sides")


def check_same(where: str, what: str, found: Any, wanted: int | None, flag: str) -> Iterator[Finding]:
    """Whether a manifest's number is what its command counts on."""
    if wanted is not None and found != wanted:
        yield Finding(where, f"{found} {what}, and the command has {flag} {wanted}", "make them equal")


def check_variable(where: str, name: str, value: Any) -> Iterator[Finding]:
    """Whether an environment variable gives away a secret, or opens the cluster."""
    if SECRET.search(name) and value not in (None, "") and not str(value).startswith("$"):
        yield Finding(where, f"{name} holds a secret that everybody reads here", "refer to a secret's store instead")
    if name == "RAY_AUTH_MODE" and value != "token":
        yield Finding(where, f"RAY_AUTH_MODE={value}: anybody who reaches it runs code on it", "set it to token")


def at(value: Any, *path: str | int) -> Any:
    """What lies at a path of nested mappings and lists; None if there is nothing."""
    for key in path:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping; an empty one where there is none, as a schema complains about that."""
    return value if isinstance(value, Mapping) else {}


def dicts(value: Any) -> list[Mapping[str, Any]]:
    """The mappings of a list; none where there is no list, as a schema complains about that."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def dotted(path: Sequence[str | int]) -> str:
    """A path as people write it: ``spec.containers[0].image``."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".") or "file"
