"""A batch script of Slurm: ``ray symmetric-run`` on whole nodes, put back into the queue when it is told to stop."""

import shlex
from collections.abc import Sequence

from cluster.manifests import command as commands
from cluster.manifests.command import Command
from cluster.manifests.options import Common, Slurm

PORT = 6379
"""Of Ray's control store; nodes are not shared, so nobody else has it."""

START_SECONDS = 300
"""How long nodes wait for each other; Ray's own 30 s are too short where images have to be loaded."""

STEP = "raydeck-step"

SETTINGS = """\
set -uo pipefail

scratch={scratch}/raydeck-$SLURM_JOB_ID-${{SLURM_RESTART_COUNT:-0}}
export RAYDECK_SCRATCH="$scratch"
export RAY_TMPDIR="$scratch"
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$scratch/auth_token"
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT={start_seconds}
export RAY_USAGE_STATS_ENABLED=0
{environment}command={command}
"""

PREPARE = """\
on_every_node=(srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1)

# A token for this start alone. It goes from node to node through srun's standard input, and is never printed; mkdir
# refuses a folder that somebody else has put there.
head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n' |
  "${on_every_node[@]}" bash -c 'umask 077; mkdir "$1" && cat > "$1/auth_token"' _ "$scratch" || exit 1
trap '"${on_every_node[@]}" rm -rf -- "$scratch"; rm -rf -- "$scratch"' EXIT

# The command's own exit code and process, as `ray symmetric-run` also ends with 0 when Ray did not start.
noted='"$@" & echo "$!" > "$RAYDECK_SCRATCH/pid"; wait "$!"; echo "$?" > "$RAYDECK_SCRATCH/code"'
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
"""

RUN = """\
# Slurm's notice comes to this shell alone: Ray has to live on while the command saves.
stopped=
stop() {
  stopped=1
  kill -TERM "$(cat "$scratch/pid" 2>/dev/null || echo "${step:-}")" 2>/dev/null
}
trap stop TERM
"${step_command[@]}" &
step=$!
while kill -0 "$step" 2>/dev/null; do wait "$step"; done
trap '' TERM
"""

FINISH = """\
code=$(cat "$scratch/code" 2>/dev/null || echo "${{stopped:+143}}")
code=${{code:-1}}
case "$code" in
  130 | 143) # stopped after saving: the same script goes on
    if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {requeues} ]; then
      scontrol requeue "$SLURM_JOB_ID"
    else
      echo "raydeck: stopped after {requeues} requeues; sbatch of this script goes on with the run" >&2
    fi ;;
  2) echo "raydeck: a mistake in the command or the data; not put back into the queue" >&2 ;;
esac
exit "$code"
"""


def render(common: Common, options: Slurm, command: Command, made_by: Sequence[str]) -> str:
    """The script.

    Args:
        common: What is asked of any cluster.
        options: What is asked of this one.
        command: To run.
        made_by: The words of the command line that asks for it.

    Raises:
        ValueError: Workers do not fill their nodes, the storage lies on one node, or the image is not pinned.
    """
    if common.workers % options.workers_per_node:
        raise ValueError(
            f"--workers {common.workers} is no multiple of --workers-per-node {options.workers_per_node}; change one"
        )
    _check_environment(common, options, command)
    file = shlex.quote(common.output or "FILE")
    use = [f"Start it with:   sbatch {file}", f"Follow it with:  tail -F {_log(command).replace('%j', 'JOBID')}"]
    use += [f"Stop it with:    scancel JOBID; sbatch {file} goes on from the last checkpoint."]
    settings = SETTINGS.format(
        scratch=options.scratch,
        start_seconds=START_SECONDS,
        environment=_environment(common, options, command),
        command=f"({command})",
    )
    parts = [
        "\n".join(["#!/bin/bash", *commands.header(made_by, use), *_directives(common, options, command)]) + "\n",
        settings,
        PREPARE + f"step_command=({_step(common, options, command)})\n",
        RUN,
        FINISH.format(requeues=options.requeues),
    ]
    return "\n".join(parts)


def _check_environment(common: Common, options: Slurm, command: Command) -> None:
    """Raise ValueError for an image that moves, or a storage that only one node has."""
    if common.image and options.activate:
        raise ValueError("--image and --activate: the command runs in a container or in an environment; drop one")
    if common.image and not common.image.startswith("/"):  # a file on shared disk is what it is
        commands.check_image(common.image)
    if command.path is not None and is_node_local(command.path):
        raise ValueError(f"--storage {command.storage} lies on one node's own disk; name a folder that all nodes share")


def _environment(common: Common, options: Slurm, command: Command) -> str:
    """Lines that make what the step needs to find."""
    lines = [f"source {shlex.quote(options.activate)}"] if options.activate else []
    if common.image and command.path is not None:  # a container cannot be given a folder that is not there
        lines.append(f"mkdir -p -- {shlex.quote(command.path)}")
    return "".join(f"{line}\n" for line in lines)


def is_node_local(path: str) -> bool:
    """Whether a path lies where each node has a disk, or memory, of its own."""
    return path == "/tmp" or path.startswith(("/tmp/", "/var/tmp/", "/dev/shm/", "/local/", "/scratch-local/"))


def _log(command: Command) -> str:
    return f"{commands.object_name(command.name, 60)}-%j.log"


def _directives(common: Common, options: Slurm, command: Command) -> list[str]:
    """The lines that sbatch reads, up to the first that is no comment."""
    each = options.workers_per_node
    values: dict[str, object] = {
        "job-name": commands.object_name(command.name, 60),
        "nodes": common.workers // each,
        "ntasks-per-node": 1,
        "cpus-per-task": common.cpus_per_worker * each,
        "mem": f"{_megabytes(common.memory) * each}M",
        "time": options.time,
        "signal": f"B:TERM@{options.grace}",
        "output": _log(command),
        "open-mode": "append",
    }
    if common.gpus_per_worker:
        values["gpus-per-node"] = common.gpus_per_worker * each
    values |= {
        key: value
        for key, value in (("partition", options.partition), ("account", options.account), ("qos", options.qos))
        if value
    }
    # Whole nodes: `ray symmetric-run` refuses one with another Ray on it, and its end stops every Ray of the user.
    return [
        "#",
        *(f"#SBATCH --{key}={value}" for key, value in values.items()),
        "#SBATCH --exclusive",
        "#SBATCH --requeue",
    ]


def _megabytes(memory: str) -> int:
    return int(memory[:-2]) * {"Mi": 1, "Gi": 1024, "Ti": 1024**2}[memory[-2:]]


def _step(common: Common, options: Slurm, command: Command) -> str:
    """The words of one srun over all nodes; those that the script knows are its variables."""
    each = options.workers_per_node
    words = ['"${on_every_node[@]}"', f"--cpus-per-task={common.cpus_per_worker * each}", "--kill-on-bad-exit=1"]
    mounts = [("$scratch", "$scratch")] + ([(command.path, command.path)] if command.path else [])
    if common.image and options.container == "pyxis":
        shown = ",".join(f"{source}:{target}" for source, target in mounts)
        words += [f"--container-image={shlex.quote(common.image)}", f'--container-mounts="{shown}"']
    elif common.image:
        gpu = ["--nv"] if common.gpus_per_worker else []
        binds = [f'--bind "{source}:{target}"' for source, target in mounts]
        words += ["apptainer", "exec", *gpu, *binds, shlex.quote(_apptainer(common.image))]
    words += ["ray", "symmetric-run", f'--address "$head_node:{PORT}"', '--min-nodes "$SLURM_JOB_NUM_NODES"']
    words += [f"--num-cpus={common.cpus_per_worker * each}", f"--num-gpus={common.gpus_per_worker * each}", "--"]
    words += ["bash", "-c", '"$noted"', "raydeck", '"${command[@]}"']
    return "\n  " + "\n  ".join(words) + "\n"


def _apptainer(image: str) -> str:
    return image if image.startswith(("/", "docker://")) else f"docker://{image}"
