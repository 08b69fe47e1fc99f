"""Checkpoints that count only once complete: committed with a manifest of sizes and SHA-256, verified before use."""

import hashlib
import json
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from cluster import console
from cluster.folder import Folder

WEIGHTS = "model.ckpt"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint.

    Args:
        name: Its folder, ``step-`` and the step.
        epoch: Epochs completed.
        step: Optimizer steps taken.
        score: Value of the monitored metric, if it was measured at this step.
        files: File name to size in bytes and SHA-256.
    """

    name: str
    epoch: int
    step: int
    score: float | None
    files: dict[str, tuple[int, str]]


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: Their folder.
        mode: Whether a lower or a higher score is better.
        keep: Best checkpoints to keep, besides the last two.
        span: Epochs back from the newest of which all checkpoints are kept: others may yet go on from them.
    """

    def __init__(self, folder: Folder, mode: Literal["min", "max"], keep: int = 1, span: int = 0) -> None:
        self.folder, self.mode, self.keep, self.span = folder, mode, keep, span
        self.known: dict[str, Checkpoint] = {}  # spares pruning a look at each manifest after each save

    @staticmethod
    def name_of(step: int) -> str:
        """The folder of the checkpoint at an optimizer step."""
        return f"step-{step:09d}"

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A local folder to write a checkpoint's files into; on the run's own disk if that is local."""
        if self.folder.is_local:
            parent = self.folder.local
            parent.mkdir(parents=True, exist_ok=True)
            for left in parent.glob(".staging-*"):  # of a run that was killed; its lock is ours now
                shutil.rmtree(left)
            staged = parent / f".staging-{uuid.uuid4().hex[:8]}"
            staged.mkdir()
        else:
            staged = Path(tempfile.mkdtemp(prefix="raydeck-"))
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def commit(self, staged: Path, *, epoch: int, step: int, score: float | None) -> Checkpoint:
        """Commit the files in ``staged``, then drop what need not be kept."""
        checkpoint = self._commit(staged, epoch, step, score)
        self.prune()
        return checkpoint

    def deferred(self, staged: Path, *, epoch: int, step: int, score: float | None) -> Callable[[], None]:
        """Something that commits the files in ``staged`` when it is called, again if it failed.

        The files are its own: they go when it does.
        """
        held = staged.with_name(f"{staged.name}-held")
        staged.rename(held)

        def commit() -> None:
            self._commit(held, epoch, step, score)

        weakref.finalize(commit, shutil.rmtree, held, ignore_errors=True)
        return commit

    def _commit(self, staged: Path, epoch: int, step: int, score: float | None) -> Checkpoint:
        names = sorted(file.name for file in staged.iterdir() if file.name != MANIFEST)
        files = {name: ((staged / name).stat().st_size, sha256(staged / name)) for name in names}
        checkpoint = Checkpoint(self.name_of(step), epoch, step, score, files)
        (staged / MANIFEST).write_text(json.dumps(asdict(checkpoint), indent=1))
        self.known.pop(checkpoint.name, None)
        self.folder.commit(staged, checkpoint.name, last=MANIFEST)
        self.known[checkpoint.name] = checkpoint
        return checkpoint

    def take_over(self, other: "Checkpoints", step: int) -> None:
        """Replace all by those of another run up to an optimizer step, which it has."""
        names = [c.name for c in other.committed() if c.step <= step]
        assert names and names[-1] == self.name_of(step), f"{other.folder} has no checkpoint of step {step}"
        taken = Folder(f"{self.folder}.taken")
        taken.create()
        for name in names:
            other.folder.copy(name, taken, last=MANIFEST)
        self.folder.replace_by(taken, last=MANIFEST)

    def committed(self) -> list[Checkpoint]:
        """All with a readable manifest, oldest first. Their files are not looked at: see :meth:`open`."""
        found = (self._manifest(name) for name in self.folder.folders() if name.startswith("step-"))
        return sorted((c for c in found if isinstance(c, Checkpoint)), key=lambda c: c.step)

    def ranked(self) -> list[Checkpoint]:
        """Those with a score, best first; the earlier of two equals."""
        return self._ranked(self.committed())

    def _ranked(self, committed: list[Checkpoint]) -> list[Checkpoint]:
        scored = [c for c in committed if c.score is not None]
        return sorted(scored, key=lambda c: c.score if self.mode == "min" else -c.score)

    @contextmanager
    def latest(self) -> Iterator[tuple[Checkpoint, Path] | None]:
        """The newest whole checkpoint and its local folder; torn or altered ones are warned of and passed over."""
        names = sorted((n for n in self.folder.folders() if n.startswith("step-")), reverse=True)
        with self._first_whole(names) as found:
            yield found

    @contextmanager
    def best(self) -> Iterator[tuple[Checkpoint, Path] | None]:
        """The best whole checkpoint and its local folder; the last one if none has a score."""
        ranked = self.ranked()
        names = [c.name for c in ranked] or [c.name for c in reversed(self.committed())]
        with self._first_whole(names) as found:
            yield found

    def prune(self) -> None:
        """Drop all but the best ``keep``, the last two and those of the last ``span`` epochs, and whatever is torn."""
        names = [name for name in self.folder.folders() if name.startswith("step-")]
        found = {name: self.known.get(name) or self._manifest(name) for name in names}
        self.known = {name: c for name, c in found.items() if isinstance(c, Checkpoint)}
        committed = sorted(self.known.values(), key=lambda c: c.step)
        kept = {c.name for c in committed[-2:]} | {c.name for c in self._ranked(committed)[: self.keep]}
        kept |= {c.name for c in committed if self.span and c.epoch >= committed[-1].epoch - self.span}
        for name in names:
            if name not in kept:
                self.folder.remove(name, first=MANIFEST)

    def _manifest(self, name: str) -> Checkpoint | str:
        """The manifest of a checkpoint, or what is wrong with it."""
        try:
            values = json.loads((self.folder / name).read(MANIFEST))
            files = {file: (int(size), str(digest)) for file, (size, digest) in values.pop("files").items()}
            return Checkpoint(**values, files=files)
        except FileNotFoundError:
            return "it has no manifest"
        except (ValueError, TypeError, KeyError, AttributeError):
            return "its manifest cannot be read"

    @contextmanager
    def _first_whole(self, names: list[str]) -> Iterator[tuple[Checkpoint, Path] | None]:
        with tempfile.TemporaryDirectory(prefix="raydeck-") as scratch:
            for name in names:
                checkpoint = self._manifest(name)
                if isinstance(checkpoint, str):
                    fault = checkpoint
                else:
                    if self.folder.is_local:
                        path = self.folder.local / name
                    else:
                        path = Path(scratch) / name
                        with suppress(FileNotFoundError):  # dropped just now by a run that goes on; then it is damaged
                            self.folder.fetch(name, path)
                    fault = damage(checkpoint, path)
                    if fault is None:
                        yield checkpoint, path
                        return
                console.warn(f"checkpoint {self.folder}/{name} is not used: {fault}")
            yield None


def damage(checkpoint: Checkpoint, path: Path) -> str | None:
    """What is wrong with the files of a checkpoint at ``path``, if anything."""
    for file, (size, digest) in checkpoint.files.items():
        if not (path / file).is_file():
            return f"{file} is missing"
        if (path / file).stat().st_size != size:
            return f"{file} has {(path / file).stat().st_size} bytes instead of {size}"
        if sha256(path / file) != digest:
            return f"{file} was altered (its SHA-256 differs)"
    return None


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
