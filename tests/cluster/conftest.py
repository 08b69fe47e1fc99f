"""Clusters that tests share: one head node for those that submit jobs, and a throw-away cluster of two nodes."""

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray_head

from cluster import local_cluster as verbs
from cluster._package import PACKAGES

RAY_VARIABLES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")

JOB = """
import os, pathlib, sys, time

import workloads
from cluster import __file__ as here

print("arguments", sys.argv[1:], "folder", pathlib.Path(here).parents[1] == pathlib.Path.cwd())
print("address", os.environ["RAY_ADDRESS"], "package", workloads.NAME)
print("config", pathlib.Path(sys.argv[-1].partition("=")[2]).read_text())
while "--wait" in sys.argv:
    print("tick")
    time.sleep(0.1)
sys.exit(2)
"""


def pytest_collection_modifyitems(items):
    """Tests of clusters that last come last, so that each starts once and no other test meets two Ray instances."""
    lasting = ("local_cluster", "head")
    items.sort(key=lambda item: [name in getattr(item, "fixturenames", ()) for name in reversed(lasting)])


@pytest.fixture(scope="session")
def head():
    """A head node that asks for a token: (address of its dashboard, file of its token)."""
    with ray_head.running() as found:
        yield found


@pytest.fixture
def no_cluster(monkeypatch, tmp_path):
    """What the environment says of a cluster does not reach a test; nor does a token in the home folder."""
    for name in RAY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def project(tmp_path):
    """A project whose ``python -m cluster`` tells how it was started."""
    folder = tmp_path / "project"
    for package in PACKAGES:
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("NAME = 'sent'\n")
    (folder / "cluster" / "__main__.py").write_text(JOB)
    (folder / "cluster" / ".env").write_text("SECRET=1")
    return folder


@pytest.fixture(scope="session")
def local_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    """What ``cluster up --local --json`` says; the folder of its state is ``state``."""
    folder = tmp_path_factory.mktemp("state")
    before = os.environ.get(verbs.STATE_VARIABLE)
    os.environ[verbs.STATE_VARIABLE] = str(folder)
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told):
            assert verbs.up(["--local", "--nodes", "2", "--cpus", "2", "--json"]) == 0
        yield json.loads(told.getvalue()) | {"state": folder}
    finally:
        os.environ[verbs.STATE_VARIABLE] = str(folder)
        verbs.down([])
        os.environ.pop(verbs.STATE_VARIABLE)
        if before is not None:
            os.environ[verbs.STATE_VARIABLE] = before


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of state for one test alone."""
    monkeypatch.setenv(verbs.STATE_VARIABLE, str(tmp_path / "state"))
    return tmp_path / "state" / "local-cluster"
