"""A throw-away cluster of two nodes that tests share."""

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import local_cluster as verbs


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
