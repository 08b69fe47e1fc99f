"""What is wrong with a batch script of Slurm: bash's own grammar, and what a script that starts Ray has to say."""

import re
import shutil
import subprocess
from collections.abc import Iterator

from cluster.manifests.command import image_fault
from cluster.manifests.findings import SECRET, Finding, Parsed, Report, read_command
from cluster.manifests.slurm import is_node_local

SHORTEST_WAIT = 60
"""Seconds in which the nodes of a job have mostly come; Ray's own default is 30."""


def check(text: str) -> Report:
    """Check a script's text; bash reads it and runs none of it."""
    lines = text.splitlines()
    code = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    report = Report(_grammar(text), ["whether partition, account, image and folders exist; the site's own limits"])
    found = re.search(r"^command=\((.*)\)$", code, re.MULTILINE) or re.search(
        r"(?<=-- )(raydeck .*)$", code, re.MULTILINE
    )
    parsed, faults = read_command("command", found[1] if found else None)
    report.findings += faults
    report.findings += [*_directives(lines, parsed), *_ray(code, parsed), *_token(code), *_ending(code)]
    return report


def _grammar(text: str) -> list[Finding]:
    if not text.startswith(("#!/bin/bash\n", "#!/usr/bin/env bash\n", "#!/usr/bin/bash\n")):
        return [Finding("line 1", "sbatch takes no script without a first line", "write #!/bin/bash")]
    bash = shutil.which("bash")
    if bash is None:
        raise ValueError("cluster check: no bash here to read a batch script with; install it")
    done = subprocess.run([bash, "-n"], input=text, capture_output=True, text=True, timeout=30)
    if done.returncode == 0:
        return []
    first = done.stderr.strip().partition("\n")[0]
    return [Finding("file", f"bash cannot read it ({first})", "mend that line")]


def _directives(lines: list[str], parsed: Parsed | None) -> Iterator[Finding]:
    """What sbatch itself is told."""
    begin = next((k for k, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    late = [k for k, line in enumerate(lines) if line.startswith("#SBATCH") and k > begin]
    for k in late:
        yield Finding(f"line {k + 1}", "sbatch reads no #SBATCH after the first command", "move it up")
    told: dict[str, str] = {}
    for line in lines[:begin]:
        if line.startswith("#SBATCH --"):
            key, _, value = line.removeprefix("#SBATCH --").strip().partition("=")
            told[key] = value
    needed = {
        "nodes": "how many machines",
        "time": "a time limit, without which the site's default ends the job",
        "mem": "memory, without which the site's default, mostly little, kills the job",
        "exclusive": "whole nodes: `ray symmetric-run` stops every Ray of the user on them",
        "requeue": "that Slurm may put it back into the queue",
    }
    for key, why in needed.items():
        if key not in told:
            yield Finding(f"#SBATCH --{key}", f"is missing: {why}", "add it")
    if told.get("ntasks-per-node") != "1":
        yield Finding("#SBATCH --ntasks-per-node", "Ray is started once on each node", "write 1")
    if not re.fullmatch(r"B:(SIG)?TERM@([3-9]\d|\d{3,})", told.get("signal", "")):
        fault = f"{told.get('signal') or 'missing'}: the run is not told, 30 s before its end or earlier, to save"
        yield Finding("#SBATCH --signal", fault, "write B:TERM@300, for this shell alone, as Ray must live on")
    if not re.search(r"%[jJA]", told.get("output", "%j")):
        yield Finding("#SBATCH --output", "one log for all jobs of the name", "put %j into it")
    yield from _sizes(told, parsed)


def _sizes(told: dict[str, str], parsed: Parsed | None) -> Iterator[Finding]:
    """Whether the machines are those that the command counts on."""
    workers = None if parsed is None else parsed.number("workers")
    nodes = int(told["nodes"]) if told.get("nodes", "").isdigit() else None
    if parsed is None or workers is None or not nodes:
        return
    if workers % nodes:
        yield Finding("#SBATCH --nodes", f"{nodes} nodes for --workers {workers}", "write a number that divides them")
        return
    each = workers // nodes
    gpus, cpus = parsed.number("gpus-per-worker"), parsed.number("cpus-per-worker")
    for key, wanted in (("gpus-per-node", gpus), ("cpus-per-task", cpus)):
        found = re.sub(r"^\w+:", "", told.get(key, "0"))
        if wanted is not None and found != str(wanted * each):
            fault = f"{found}, and the command's {each} workers on a node need {wanted * each}"
            yield Finding(f"#SBATCH --{key}", fault, "make them equal")


def _ray(code: str, parsed: Parsed | None) -> Iterator[Finding]:
    if not re.search(r"\bsymmetric-run\b", code):
        fault = "no `ray symmetric-run`, which starts Ray on all nodes and stops it"
        yield Finding("step", fault, "run srun ray symmetric-run --address HEAD:6379 --min-nodes N -- COMMAND")
    elif "--min-nodes" not in code:
        yield Finding("step", "no --min-nodes: the command starts before its nodes are there", "add it")
    wait = re.search(r"RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=(\d+)", code)
    if wait is None or int(wait[1]) < SHORTEST_WAIT:
        found = "Ray's 30 s" if wait is None else f"{wait[1]} s"
        fault = f"nodes wait for each other for {found}, less than an image takes to load"
        yield Finding("RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT", fault, "export it as 300")
    if not re.search(r"^\s*export (RAY_TMPDIR=|.* RAY_TMPDIR=)", code, re.MULTILINE):
        fault = "Ray's files of all jobs lie in one folder, /tmp/ray"
        yield Finding("RAY_TMPDIR", fault, "export a folder of this job on the node's own disk")
    if parsed is not None and parsed.path is not None and is_node_local(parsed.path):
        fault = f"--storage {parsed.path} lies on one node's own disk"
        yield Finding("command", fault, "name a folder that all nodes share")
    image = re.search(r"--container-image=(\S+)", code) or re.search(r"^\s*'?(docker://[^\s']+)", code, re.MULTILINE)
    if image and not image[1].strip("'\"").startswith("/") and (fault := image_fault(image[1].strip("'\""))):
        yield Finding("image", f"{image[1]} {fault}", "pin an exact tag, or a digest")


def _token(code: str) -> Iterator[Finding]:
    if not re.search(r"^\s*export RAY_AUTH_MODE=token\b", code, re.MULTILINE):
        yield Finding("RAY_AUTH_MODE", "no token: anybody on the network runs code on the nodes", "export it as token")
    if "RAY_AUTH_TOKEN_PATH=" not in code:
        yield Finding("RAY_AUTH_TOKEN_PATH", "nodes would not find one token", "export the path of its file")
    elif "auth_token" in code and not re.search(r"chmod 0?600|umask 0?77", code):
        yield Finding("RAY_AUTH_TOKEN_PATH", "others may read the token's file", "make it under umask 077")
    if not re.search(r"/dev/u?random|openssl rand|get-auth-token --generate|secrets\.token|uuidgen", code):
        yield Finding("auth_token", "nothing makes a token for this start", "make one from /dev/urandom")
    for number, line in enumerate(code.splitlines(), start=1):
        for name, value in re.findall(r"\b(\w+)=['\"]?([^\s'\"$]+)", line):
            if SECRET.search(name) and not value.startswith("("):
                yield Finding(name, "holds a secret that everybody can read here", "make it when the job starts")
        shows = re.search(r"^\s*(echo|printf|cat)\b[^|>]*(RAY_AUTH_TOKEN\b|auth_token)[^|>]*$", line)
        if shows or re.search(r"^\s*set -\w*x", line):
            yield Finding(f"command {number}", f"{line.strip()!r} prints the token, or may", "remove it")


def _ending(code: str) -> Iterator[Finding]:
    """Whether a run that was told to stop saves, and goes on."""
    if not re.search(r"^\s*trap\s+(?!-|'')\S+.*\b(SIG)?TERM\b", code, re.MULTILINE):
        yield Finding("trap", "Slurm's notice ends the script before the run has saved", "trap TERM and pass it on")
    requeue = re.search(r"scontrol requeue", code)
    if not requeue:
        yield Finding("requeue", "a stopped run stays stopped", "scontrol requeue on the exit codes 130 and 143")
        return
    before = code[: requeue.start()]
    labels = re.findall(r"^\s*([\d*][\d |*]*)\)", before, re.MULTILINE)
    codes = set(re.findall(r"\d+|\*", labels[-1])) if labels else {"*"}
    if not {"130", "143"} <= codes:
        yield Finding("requeue", "not on both exit codes of a run that saved, 130 and 143", "write 130 | 143)")
    if extra := codes - {"130", "143"}:
        fault = f"also on {', '.join(sorted(extra))}: a fault that stays would be tried again and again"
        yield Finding("requeue", fault, "write 130 | 143) alone")
    if not re.search(r"^exit\b", code, re.MULTILINE):
        yield Finding("exit", "the job does not end with the run's exit code", "end with exit and that code")
