"""A folder on any filesystem that fsspec knows: a local path, s3://, gs://, memory://."""

import os
import shutil
import uuid
from pathlib import Path
from typing import Self


class Folder:
    """A folder, named by a local path or a URI.

    Args:
        uri: Local path (made absolute) or URI.

    Raises:
        ValueError: The URI's protocol is unknown, or its package is not installed.
    """

    def __init__(self, uri: str) -> None:
        from fsspec.core import url_to_fs

        try:
            self.fs, self.path = url_to_fs(uri)
        except (ValueError, ImportError) as error:
            raise ValueError(f"--storage {uri}: {' '.join(str(error).split())}") from None
        self.is_local = self.fs.protocol == "file" or "file" in self.fs.protocol
        self.uri = self.path if self.is_local else self.fs.unstrip_protocol(self.path)

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> Self:
        return type(self)(f"{self.uri.rstrip('/')}/{name}")

    def short(self) -> str:
        """The folder as people would type it from here."""
        return min(os.path.relpath(self.path), self.uri, key=len) if self.is_local else self.uri

    @property
    def local(self) -> Path:
        assert self.is_local, f"{self.uri} is not a local folder"
        return Path(self.path)

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rpartition("/")[2]

    def make(self) -> None:
        """Create the folder, and check that it can be written to.

        Raises:
            ValueError: It cannot.
        """
        probe = f".probe-{uuid.uuid4().hex[:8]}"
        try:
            self.fs.makedirs(self.path, exist_ok=True)
            self.write(probe, b"")
            self.fs.rm_file(f"{self.path}/{probe}")
        except OSError as error:
            reason = error.strerror or " ".join(str(error).split())
            raise ValueError(f"--storage: {self.uri} cannot be written ({reason}); name a folder that can") from None

    def exists(self, name: str = "") -> bool:
        return self.fs.exists(f"{self.path}/{name}" if name else self.path)

    def read(self, name: str) -> bytes:
        self.fs.invalidate_cache()
        return self.fs.cat_file(f"{self.path}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """Write a file so that a reader, or a crash, sees all of it or none."""
        if not self.is_local:
            self.fs.pipe_file(f"{self.path}/{name}", content)  # an object store's PUT is atomic
            return
        target = self.local / name
        staged = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        with staged.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(target)

    def folders(self) -> list[str]:
        """Names of the folders in this one; none if it does not exist."""
        self.fs.invalidate_cache()
        if not self.fs.exists(self.path):
            return []
        found = self.fs.ls(self.path, detail=True)
        return sorted(e["name"].rstrip("/").rpartition("/")[2] for e in found if e["type"] == "directory")

    def remove(self, name: str) -> None:
        """Remove the folder ``name`` in this one, if it is there."""
        if self.fs.exists(f"{self.path}/{name}"):
            self.fs.rm(f"{self.path}/{name}", recursive=True)

    def fetch(self, name: str, target: Path) -> None:
        """Copy the folder ``name`` in this one to the local folder ``target``."""
        self.fs.get(f"{self.path}/{name}/", f"{target}/", recursive=True)

    def copy(self, name: str, target: Self, last: str) -> None:
        """Copy the folder ``name`` in this one into the folder ``target``, its file ``last`` after all others."""
        source, goal = f"{self.path}/{name}", f"{target.path}/{name}"
        target.remove(name)
        target.fs.makedirs(goal, exist_ok=True)
        files = [path.rpartition("/")[2] for path in self.fs.find(source)]
        for file in sorted(files, key=lambda file: file == last):
            self.fs.cp_file(f"{source}/{file}", f"{goal}/{file}")

    def replace_by(self, other: Self) -> None:
        """Put another folder of the same filesystem in this one's place."""
        if self.exists():
            self.fs.rm(self.path, recursive=True)
        self.fs.mv(other.path, self.path, recursive=True)

    def commit(self, staged: Path, name: str, last: str) -> None:
        """Move the local folder ``staged`` to ``name`` in this one, so that the file ``last`` vouches for all others.

        On a local filesystem the folder appears in one rename; elsewhere ``last`` is written after all others.
        """
        if self.is_local:
            for file in [*staged.iterdir(), staged]:
                descriptor = os.open(file, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
            target = self.local / name
            if target.exists():  # a torn checkpoint of the same step
                shutil.rmtree(target)
            staged.rename(target)
            return
        self.remove(name)
        files = sorted(staged.iterdir(), key=lambda file: file.name == last)
        for file in files:
            self.fs.put_file(str(file), f"{self.path}/{name}/{file.name}")
        shutil.rmtree(staged)
