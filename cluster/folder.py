"""A folder on any filesystem that fsspec knows: a local path, s3://, gs://, memory://."""

import os
import shutil
import uuid
from pathlib import Path
from typing import Any, Self

from cluster.retrying import Storage, StorageError, retried
from workloads._extras import need

PACKAGES = {"s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "gcs": ("gcsfs", "gcs")}
"""Protocol of an object store to its package and the extra that brings it."""
ONE_ATTEMPT = {"config_kwargs": {"retries": {"max_attempts": 0}}}
"""What s3fs is told: attempts are made in :mod:`cluster.retrying`, and would multiply with the client's own."""


class Folder:
    """A folder, named by a local path or a URI. Its operations are retried: see :mod:`cluster.retrying`.

    Credentials and endpoints are those of the environment and of the client's standard files; none is kept here.

    Args:
        uri: Local path (made absolute) or URI.

    Raises:
        ValueError: The URI's protocol is unknown, or its package is not installed.
    """

    def __init__(self, uri: str) -> None:
        from fsspec.core import url_to_fs

        protocol = uri.partition("://")[0] if "://" in uri else ""
        package, extra = PACKAGES.get(protocol, ("", ""))
        self.is_object_store = bool(package)
        if package:
            need(package, extra)
        try:
            fs, self.path = url_to_fs(uri, **(ONE_ATTEMPT if package == "s3fs" else {}))
        except (ValueError, ImportError) as error:
            raise ValueError(f"--storage {uri}: {' '.join(str(error).split())}") from None
        if package == "s3fs":
            fs.retries = 1
        self.fs = Storage(fs)
        self.is_local = fs.protocol == "file" or "file" in fs.protocol
        self.uri = self.path if self.is_local else fs.unstrip_protocol(self.path)

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

    def for_ray(self) -> dict[str, Any]:
        """The folder as arguments of Ray's: through fsspec, so that Ray reaches it just as we do."""
        if self.is_local:
            return {"storage_path": self.path}
        from fsspec.core import url_to_fs
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        fs, path = url_to_fs(self.uri)  # with the client's own retries: Ray makes none
        return {"storage_path": path, "storage_filesystem": PyFileSystem(FSSpecHandler(fs))}

    def make(self) -> None:
        """Create the folder, and check that it can be written to.

        Raises:
            ValueError: It cannot.
            StorageError: The storage does not answer.
        """
        probe = f".probe-{uuid.uuid4().hex[:8]}"
        try:
            self.create()
            self.write(probe, b"")
            self.fs.rm_file(f"{self.path}/{probe}")
        except OSError as error:
            if isinstance(error, StorageError) and not error.refused and not self.is_local:
                raise
            reason = error.strerror or " ".join(str(error).split())
            raise ValueError(f"--storage: {self.uri} cannot be written ({reason}); name a folder that can") from None

    def create(self) -> None:
        """Create the folder where folders are a thing: an object store has none, and its client would make a bucket."""
        if not self.is_object_store:
            self.fs.makedirs(self.path, exist_ok=True)

    def exists(self, name: str = "") -> bool:
        return self.fs.exists(f"{self.path}/{name}" if name else self.path)

    def read(self, name: str) -> bytes:
        return self.fs.cat_file(f"{self.path}/{name}")

    def write(self, name: str, content: bytes, durable: bool = True) -> None:
        """Write a file so that a reader, or a crash, sees all of it or none.

        Args:
            name: The file in this folder.
            content: What it holds from now on.
            durable: Whether it must outlast a loss of power, which takes the disk a moment, or of the process alone.
        """
        if not self.is_local:
            self.fs.pipe_file(f"{self.path}/{name}", content)  # an object store's PUT is atomic
            return
        target = self.local / name

        def put() -> None:
            staged = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
            try:
                with staged.open("wb") as file:
                    file.write(content)
                    if durable:
                        file.flush()
                        os.fsync(file.fileno())
                staged.replace(target)
            finally:
                staged.unlink(missing_ok=True)

        retried(f"write {target}", put)

    def folders(self) -> list[str]:
        """Names of the folders in this one; none if it does not exist."""
        found = self.fs.ls(self.path)
        return sorted(e["name"].rstrip("/").rpartition("/")[2] for e in found if e["type"] == "directory")

    def remove(self, name: str, first: str | None = None) -> None:
        """Remove the folder or file ``name`` in this one, if it is there; of a folder its file ``first`` at first."""
        if first:
            self.fs.rm_file(f"{self.path}/{name}/{first}")
        self.fs.rm(f"{self.path}/{name}", recursive=True)

    def fetch(self, name: str, target: Path) -> None:
        """Copy the files of the folder ``name`` in this one to the local folder ``target``."""
        target.mkdir(parents=True, exist_ok=True)
        for path in self.fs.find(f"{self.path}/{name}"):
            self.fs.get_file(path, str(target / path.rpartition("/")[2]))

    def copy(self, name: str, target: Self, last: str) -> None:
        """Copy the folder ``name`` in this one into the folder ``target``, its file ``last`` after all others."""
        source, goal = f"{self.path}/{name}", f"{target.path}/{name}"
        target.remove(name, first=last)
        (target / name).create()
        files = [path.rpartition("/")[2] for path in self.fs.find(source)]
        for file in sorted(files, key=lambda file: file == last):
            self.fs.cp_file(f"{source}/{file}", f"{goal}/{file}")

    def replace_by(self, other: Self, last: str) -> None:
        """Put another folder of the same filesystem, which holds folders alone, in this one's place.

        Where a folder cannot be renamed its folders are copied, the file ``last`` of each after all others.
        """
        if self.is_local:
            self.fs.rm(self.path, recursive=True)
            retried(f"replace {self.uri}", lambda: other.local.rename(self.local))
            return
        for name in self.folders():
            self.remove(name, first=last)
        for name in other.folders():
            other.copy(name, self, last)
        other.fs.rm(other.path, recursive=True)

    def commit(self, staged: Path, name: str, last: str) -> None:
        """Move the local folder ``staged`` to ``name`` in this one, so that the file ``last`` vouches for all others.

        On a local filesystem the folder appears in one rename; elsewhere ``last`` is written after all others.
        """
        if self.is_local:
            retried(f"write {self.uri}/{name}", lambda: self._move(staged, name))
            return
        self.fs.rm_file(f"{self.path}/{name}/{last}")  # of an earlier checkpoint of the same step
        (self / name).create()
        for file in sorted(staged.iterdir(), key=lambda file: file.name == last):
            self.fs.put_file(str(file), f"{self.path}/{name}/{file.name}")

    def _move(self, staged: Path, name: str) -> None:
        for file in [*staged.iterdir(), staged]:
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        target = self.local / name
        if target.exists():  # a torn checkpoint of the same step
            shutil.rmtree(target)
        staged.rename(target)
