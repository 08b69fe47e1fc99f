"""The README's commands are commands: each is parsed as it stands, and the flags exist."""

import re
import shlex
from pathlib import Path

import pytest

import workloads
from cluster import cluster_verbs, diagnose, jobs, spaces, submit, sweep
from cluster.cli import VERBS
from cluster.doctor import DoctorFlags
from cluster.flags import Flags, parse_plain
from cluster.local_cluster import LocalFlag
from cluster.placement import Placement, Repetition, RunFlags, Saving
from cluster.show import Shapes

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line.partition("  #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
OPTIONS = {"show": [Placement, Shapes], "train": [RunFlags, Repetition, Placement]}


def test_there_are_commands_for_every_verb_that_runs():
    assert len(COMMANDS) > 8
    said = re.findall(r"raydeck (\w+)", README)
    assert set(VERBS) <= set(said)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("raydeck ")])
def test_a_command_of_the_readme_is_taken(command, tmp_path, monkeypatch):
    _, verb, *arguments = shlex.split(command)
    if verb == "cluster" and arguments[0] == "render":
        monkeypatch.chdir(tmp_path)
        assert cluster_verbs.command(arguments) == 0
        assert (tmp_path / arguments[arguments.index("--output") + 1]).read_text()
        return
    if verb == "cluster" and arguments[0] == "check":
        return  # of a file that the command before has written
    if verb in ("doctor", "cluster"):
        options = [Placement, DoctorFlags] if verb == "doctor" else [LocalFlag]
        assert parse_plain(verb, arguments if verb == "doctor" else arguments[1:], *options)
        return
    if verb == "jobs":
        assert jobs.read(arguments[0], arguments[1:])
        return
    if verb == "submit":
        verb, *arguments = submit.read(arguments)[1]
    name, *flags = arguments
    if verb == "show" and "--space" in flags:
        assert spaces.load(workloads.load(name), spaces.change_flags(flags)[0])
        return
    if verb == "tune":
        assert sweep.parse(arguments)[0]
        return
    if verb == "diagnose":
        assert diagnose.parse(arguments)[0]
        return
    saving = {"checkpoint.": [Saving]} if verb != "show" else {}
    parser = Flags(verb, workloads.load(name), {"": OPTIONS[verb], **saving}).parser
    flags = [flag for flag in flags if flag not in ("--config", "mine.yaml")]
    assert parser.parse_args(flags)


def test_make_targets_of_the_readme_exist():
    targets = {command.split()[1] for command in COMMANDS if command.startswith("make ")}
    makefile = (ROOT / "Makefile").read_text()
    assert targets == {"demo", "test", "slow"}
    assert all(f"\n{target}:" in makefile for target in targets)
