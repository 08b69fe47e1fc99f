"""``raydeck doctor``: everything that a run on a cluster needs, looked at without running one."""

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import _package, _probe, console, preflight
from cluster.access import address_of, asks_for_token, control_store
from cluster.flags import parse_plain
from cluster.folder import Folder
from cluster.placement import Placement
from cluster.preflight import Finding, Probe

COLUMNS = ("check", "where", "result", "mend")


@dataclass(frozen=True, kw_only=True)
class DoctorFlags:
    """What is looked at besides the cluster.

    Args:
        storage: Folder or URI that is to hold runs.
    """

    storage: str = "runs"


def command(arguments: list[str]) -> int:
    """``doctor [flags]``; returns 0 if all is well, 2 with faults.

    Raises:
        ValueError: A flag is at fault.
    """
    namespace, options = parse_plain("raydeck doctor", arguments, Placement, DoctorFlags)
    if namespace is None:
        return 0
    placement, flags = options
    findings = diagnose(placement, flags.storage)
    faults = sum(bool(finding.mend) for finding in findings)
    rows = [[getattr(finding, column) for column in COLUMNS] for finding in findings]
    if namespace["json"]:
        told = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        print(json.dumps({"well": not faults, "findings": told}, indent=1))
    else:
        console.table("doctor", COLUMNS, rows)
        console.say(f"{faults} fault{'s' if faults > 1 else ''}" if faults else "all is well")
    return 2 if faults else 0


def diagnose(placement: Placement, storage: str, probe: Probe = _probe.examine) -> list[Finding]:
    """All findings, faults among them; what cannot be looked at because of an earlier fault is left out.

    Args:
        placement: What a run would ask for.
        storage: Folder or URI that is to hold it.
        probe: What each node answers with.
    """
    findings = [package(Path(__file__).resolve().parent.parent), *token()]
    try:
        with_cluster = _on_cluster(placement, storage, probe)
    except ValueError as error:
        findings.append(_fault("cluster", address_of(placement), error))
        return findings
    return [*with_cluster, *findings]


def _on_cluster(placement: Placement, storage: str, probe: Probe) -> list[Finding]:
    from cluster.train import connected

    address = address_of(placement)
    with connected(placement) as resources:
        found = preflight.nodes()
        what = ", ".join(f"{resources.get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU") if resources.get(kind))
        held = f"{len(found)} node{'s' if len(found) > 1 else ''}, {what or 'without CPUs'}"
        findings = [Finding("cluster", address, held), *_access(address), _workers(placement, resources)]
        try:
            folder = Folder(storage)
        except ValueError as error:
            findings.append(_fault("storage", storage, error))
            folder = None
        seen, answers = preflight.ask(found, folder, probe)
        findings += [*seen, *preflight.compare_versions(found, answers)]
    if folder is not None and folder.is_local:
        findings.append(room_on("disk of storage", "this machine", _probe.disk(_existing(folder.local))))
    labels = {node.id: node.label for node in found}
    return findings + [room_on("disk of Ray", labels[node], answer["temp"]) for node, answer in answers.items()]


def _access(address: str) -> list[Finding]:
    """Whether a cluster that has been joined asks for a token."""
    if address == "local":
        return []
    guarded = "://" not in address and asks_for_token(control_store(address))
    result = "asks for a token" if guarded else "is open to everybody who reaches it, which --insecure accepts"
    return [Finding("access", address, result)]


def _workers(placement: Placement, resources: dict[str, float]) -> Finding:
    """Whether the cluster holds the workers when idle, and whether it does now."""
    from cluster.train import place

    try:
        fitted = preflight.fit(placement, place(placement, resources), preflight.nodes())
    except ValueError as error:
        return _fault("workers", "cluster", error)
    return Finding("workers", "cluster", f"room for {preflight.wanted(fitted)}; {preflight.available()}")


def package(project: Path) -> Finding:
    """What ``submit`` would send."""
    try:
        files = _package.collect(project, {}).files
    except ValueError as error:
        return _fault("package", "this machine", error)
    size = sum(os.stat(file).st_size for file in files.values())
    return Finding("package", "this machine", f"{len(files)} files, {size / 2**20:.1f} MB of at most 100 MB")


def token() -> list[Finding]:
    """The token that is used from here, and who else may read its file."""
    from cluster.dashboard import find_token

    try:
        if find_token() is None:
            return [Finding("token", "this machine", "none is set")]
    except ValueError as error:
        return [_fault("token", "this machine", error)]
    if os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return [Finding("token", "this machine", "from RAY_AUTH_TOKEN")]
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        return [Finding("token", "this machine", f"{file} can be read by others ({mode:04o})", f"chmod 600 {file}")]
    return [Finding("token", "this machine", f"{file} ({mode:04o})")]


def room_on(check: str, where: str, disk: Sequence[Any]) -> Finding:
    """Whether a disk has room.

    Args:
        check: What is kept there.
        where: On which machine.
        disk: Folder, free bytes, all bytes.
    """
    folder, free, whole = disk
    told = f"{folder}: {free / 2**30:.1f} of {whole / 2**30:.1f} GB free"
    if free < preflight.LEAST_FREE_BYTES or free < preflight.LEAST_FREE_PART * whole:
        return Finding(check, where, told, "free some: at least 1 GB and 5 % are needed, or name another disk")
    return Finding(check, where, told)


def _existing(folder: Path) -> str:
    """The folder, or the nearest above it that there is."""
    return str(next(path for path in (folder, *folder.parents) if path.exists()))


def _fault(check: str, where: str, error: ValueError) -> Finding:
    """A finding from one of our errors, whose mend follows the first semicolon."""
    fault, _, mend = str(error).partition("; ")
    return Finding(check, where, fault, mend or "see the message")
