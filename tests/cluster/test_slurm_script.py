"""The batch script, run by bash with stand-ins for Slurm and Ray that do on one machine what those do on many."""

import os
import signal
import subprocess
import time

import pytest

from cluster.cli import main

SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do shift; done
exec "$@"
"""

SCONTROL = """#!/bin/bash
case "$1" in
  show) echo node1; echo node2 ;;
  requeue) echo "$2" >> "$NOTES/requeued" ;;
esac
"""

RAY = """#!/bin/bash
echo "$*" > "$NOTES/ray"
stat -c '%a %s' "$RAY_AUTH_TOKEN_PATH" > "$NOTES/token"
stat -c %a "$RAYDECK_SCRATCH" >> "$NOTES/token"
[ -e "$NOTES/broken" ] && exit 0
[ -e "$NOTES/slow" ] && { touch "$NOTES/ready"; exec sleep 20; }
while [ "$1" != -- ]; do shift; done
shift
"$@"
"""

RAYDECK = """#!/bin/bash
echo "$@" > "$NOTES/raydeck"
trap 'kill $!; echo saved > "$NOTES/saved"; exit 143' TERM
[ -e "$NOTES/sleep" ] && { touch "$NOTES/ready"; sleep 20 > /dev/null 2>&1 & wait $!; }
exit "$(cat "$NOTES/ends")"
"""


@pytest.fixture
def job(tmp_path):
    """A script, and what it needs to find: stand-ins on its path, a folder of notes and a disk of its node."""
    notes, disk, programs = (tmp_path / name for name in ("notes", "disk", "bin"))
    for folder in (notes, disk, programs):
        folder.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "ray": RAY, "raydeck": RAYDECK}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    flags = ["--workers", "2", "--requeues", "3", "--output", str(tmp_path / "job.sh")]
    train = ["train", "mlp", "--storage", "s3://bucket/runs", "--model.hidden_dims", "[8, 8]"]
    assert main(["cluster", "render", "slurm", *flags, "--", *train]) == 0
    script = tmp_path / "job.sh"
    script.write_text(script.read_text().replace("scratch=/tmp/", f"scratch={disk}/"))
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "NOTES": str(notes), "SLURM_JOB_ID": "77"}
    environment |= {"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[1-2]"}
    return script, environment, notes


def run(job, ends=0, restarts=0, before=lambda process, notes: None):
    """Run the script with a command that ends so; returns its exit code and all that it printed."""
    script, environment, notes = job
    (notes / "ends").write_text(str(ends))
    environment = environment | {"SLURM_RESTART_COUNT": str(restarts)}
    process = subprocess.Popen(
        ["bash", str(script)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    before(process, notes)
    printed, _ = process.communicate(timeout=30)
    return process.returncode, printed


def test_a_run_starts_with_a_token_of_its_own_and_leaves_nothing(job):
    code, printed = run(job)
    _, _, notes = job
    assert code == 0 and not (notes / "requeued").exists()
    assert (notes / "token").read_text().split() == ["600", "64", "700"]
    assert "--address node1:6379 --min-nodes 2 --num-cpus=4 --num-gpus=0 --" in (notes / "ray").read_text()
    assert "train mlp --name=mlp-" in (notes / "raydeck").read_text()
    assert "--model.hidden_dims=[8, 8]" in (notes / "raydeck").read_text()
    assert printed == "" and list((notes.parent / "disk").iterdir()) == []


@pytest.mark.parametrize(("ends", "again"), [(0, False), (1, False), (2, False), (130, True), (143, True)])
def test_only_a_run_that_was_stopped_is_put_back(job, ends, again):
    code, printed = run(job, ends=ends)
    assert code == ends and (job[2] / "requeued").exists() == again
    assert ("a mistake in the command or the data" in printed) == (ends == 2)


def test_requeues_have_a_bound(job):
    code, printed = run(job, ends=143, restarts=3)
    assert code == 143 and not (job[2] / "requeued").exists() and "stopped after 3 requeues" in printed


def notice(process, notes):
    """Slurm's notice, once the stand-in says that it has come so far."""
    deadline = time.monotonic() + 10
    while not (notes / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)


def test_slurm_s_notice_reaches_the_command_which_saves(job):
    (job[2] / "sleep").touch()
    code, _ = run(job, before=notice)
    assert code == 143 and (job[2] / "saved").exists() and (job[2] / "requeued").read_text() == "77\n"


def test_a_notice_while_ray_is_starting_puts_the_job_back(job):
    (job[2] / "slow").touch()
    code, _ = run(job, before=notice)
    assert code == 143 and not (job[2] / "raydeck").exists() and (job[2] / "requeued").exists()


def test_ray_that_does_not_start_is_a_failure_though_it_ends_with_0(job):
    (job[2] / "broken").touch()
    code, _ = run(job)
    assert code == 1 and not (job[2] / "requeued").exists()


def test_a_folder_that_somebody_else_has_put_there_is_refused(job):
    planted = job[2].parent / "disk" / "raydeck-77-0"
    planted.mkdir()
    (planted / "theirs").touch()
    code, _ = run(job)
    assert code == 1 and not (job[2] / "ray").exists()
    assert [file.name for file in planted.iterdir()] == ["theirs"]
