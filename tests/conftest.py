"""What tests share: the command line as a user has it, in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Two processes and what they start share two cores: threads that wait for each other there, spinning, cost up to ten
# times what they compute. raydeck sets the number of a run's threads itself.
os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"] = "1", "PASSIVE"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes share the tests: all that start Ray go to one, so that none meets another's cluster.

    The others go by file, so that what a module's tests share is made once.
    """
    for item in items:
        lasting = {"head", "local_cluster"} & set(getattr(item, "fixturenames", ()))
        starts_ray = lasting or item.get_closest_marker("ray")
        item.add_marker(pytest.mark.xdist_group("ray" if starts_ray else str(item.path)))


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What a run in this process sets, of its environment and of its threads, does not reach the next test."""
    before = dict(os.environ)
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without a cluster in it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return kept | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]), **extra}


class Raydeck:
    """``raydeck`` in a folder of its own.

    Args:
        folder: Its working directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen:
        """Start a command in its own session, so that a signal to it reaches nobody else."""
        return subprocess.Popen(
            [sys.executable, "-m", "cluster", *map(str, arguments)], cwd=self.folder, env=environment(**environ),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def __call__(self, *arguments: str, code: int = 0, timeout: float = 240, **environ: str) -> tuple[str, str]:
        """Run a command to its end and check its exit code; returns stdout and stderr."""
        process = self.start(*arguments, **environ)
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        return out, err

    def json(self, *arguments: str, timeout: float = 240, **environ: str) -> dict:
        return json.loads(self(*arguments, "--json", timeout=timeout, **environ)[0])


@pytest.fixture(scope="session")
def raydeck_in() -> type[Raydeck]:
    """Makes a ``raydeck`` that works in a given folder."""
    return Raydeck


@pytest.fixture
def raydeck(tmp_path: Path) -> Raydeck:
    return Raydeck(tmp_path)


@pytest.fixture(scope="session")
def sample_inputs() -> Callable[[str, Path], list[str]]:
    """Two or more real inputs of a reader's kind, as files or as words."""

    def make(kind: str, folder: Path) -> list[str]:
        if kind in ("Samples", "Lines", "Replay", "Rollouts"):  # what is made of noise, or played, takes none
            return []
        if kind in ("Images", "Codes"):
            from PIL import Image
            from sklearn.datasets import load_digits

            digits = load_digits().images[:3]
            paths = [folder / f"digit-{k}.png" for k in range(3)]
            for digit, path in zip(digits, paths, strict=True):
                Image.fromarray((digit * 15).astype("uint8")).resize((28, 28)).save(path)
            return [str(path) for path in paths]
        if kind == "LabelledText":
            (folder / "reviews.txt").write_text("A moving, funny and wonderful film.\n\nWhat a waste of two hours!\n")
            return [str(folder / "reviews.txt"), "the rest is silence"]
        if kind == "Pairs":
            return ["Sunday, December 4, 1977", "in 3 days"]
        if kind == "PlainText":
            for name in ("JULIET", "HAMLET"):
                (folder / f"{name}.txt").write_text(f"{name}\nO ")
            return [str(folder / "JULIET.txt"), str(folder / "HAMLET.txt")]
        if kind == "LongDependency":
            return ["Param , student of Yong who reads books , is a", "Meera , student of Wei who sorts keys , is a"]
        assert kind == "Tables", f"no sample inputs of {kind}: add them here"
        from sklearn.datasets import load_iris

        table = load_iris(as_frame=True).data.iloc[[0, 75, 149]]
        table.to_csv(folder / "flowers.csv", index=False)
        return [str(folder / "flowers.csv")]

    return make
