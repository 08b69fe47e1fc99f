"""Storage that fails for a moment is asked again, within a bound; one that refuses is believed at once."""

import contextlib
import errno
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

ATTEMPTS = 6
"""Times that a storage operation is tried."""
SECONDS = 60.0
"""Seconds after which an operation is not tried again; the one under way may still take its own timeout."""
FIRST = 0.5
"""Seconds before the second attempt; doubled before each further one, and shortened by chance by up to a half."""

PASSING = frozenset(
    {errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT, errno.ESTALE, errno.EINTR, errno.EREMOTEIO}
    | {errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ECONNRESET, errno.ECONNREFUSED}
)
"""Error numbers of faults that may pass."""
PASSING_CLASSES = frozenset(
    {"HTTPClientError", "EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError"}
    | {"ClientConnectionError", "ClientPayloadError", "ServerTimeoutError", "TransportError", "IncompleteRead"}
)
"""Errors of botocore, aiohttp and google.auth, by name: their packages need not be installed."""
ABSENT = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
"""What callers ask about; no fault of the storage."""

T = TypeVar("T")
_count = 0
_counting = threading.Lock()


class StorageError(OSError):
    """Storage that failed for longer than the bound, or refused; says so in one line.

    Args:
        text: The line.
        refused: Whether it is the user's to mend (credentials, rights), not a fault that may pass.
    """

    def __init__(self, text: str, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


def retries() -> int:
    """Storage operations that this process has tried again so far."""
    return _count


def retried(what: str, call: Callable[[], T]) -> T:
    """The answer of ``call``, tried up to 6 times within 60 seconds, with growing random pauses, if its error may pass.

    Args:
        what: The operation and its place, for the error's line.
        call: May be called again after it failed in the middle.

    Raises:
        StorageError: It kept failing, or was refused.
        FileNotFoundError: There is no such file. So with the other errors about what is there.
    """
    began = time.monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except ABSENT:
            raise
        except Exception as error:
            if not is_storage_fault(error):
                raise
            pause = FIRST * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
            over = attempt == ATTEMPTS or time.monotonic() - began + pause > SECONDS
            if over or not may_pass(error):
                raise _told(what, error, attempt, time.monotonic() - began) from error
        _note_retry()
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def may_pass(error: BaseException) -> bool:
    """Whether a later attempt may succeed: connections, timeouts, throttling, 5xx, EIO."""
    for link in chain(error):
        status = http_status(link)
        if status is not None:
            return status in (408, 425, 429) or status >= 500
    if isinstance(error, PermissionError):
        return False
    for link in chain(error):
        names = {cls.__name__ for cls in type(link).__mro__}
        if isinstance(link, ConnectionError | TimeoutError) or names & PASSING_CLASSES:
            return True
    return isinstance(error, OSError) and error.errno in PASSING


def is_storage_fault(error: BaseException) -> bool:
    """Whether an error is the storage's: an OSError, or one of its client's own."""
    clients = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "fsspec", "s3fs")
    return isinstance(error, OSError) or any(type(link).__module__.split(".")[0] in clients for link in chain(error))


def http_status(error: BaseException) -> int | None:
    """The HTTP status that an error of botocore, aiohttp or gcsfs carries."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = getattr(error, "status", None) or getattr(error, "code", None)
    return code if isinstance(code, int) and 400 <= code < 600 else None


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _told(what: str, error: BaseException, attempts: int, seconds: float) -> StorageError:
    if isinstance(error, StorageError):
        return error
    reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    if may_pass(error):
        tried = f"tried {attempts} times in {seconds:.0f} s; the same command goes on once the storage answers"
        return StorageError(f"storage: cannot {what}: {reason} ({tried})")
    denied = isinstance(error, PermissionError) or "Credentials" in type(error).__name__
    mend = "; check its rights, and the credentials in the environment" if denied else ""
    return StorageError(f"storage: cannot {what}: {reason}{mend}", refused=denied)


def _note_retry() -> None:
    global _count
    with _counting:
        _count += 1


class Storage:
    """A filesystem of fsspec whose operations are retried; those that a :class:`~cluster.folder.Folder` needs.

    Args:
        fs: The filesystem.
    """

    def __init__(self, fs: Any) -> None:
        self.fs = fs

    def exists(self, path: str) -> bool:
        """Unlike fsspec's own, which takes any error for absence."""
        try:
            self._do("look for", path, self.fs.info)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def cat_file(self, path: str) -> bytes:
        return self._do("read", path, self.fs.cat_file)

    def pipe_file(self, path: str, content: bytes) -> None:
        self._do("write", path, self.fs.pipe_file, content)

    def put_file(self, source: str, path: str) -> None:
        self._do("write", path, lambda goal: self.fs.put_file(source, goal))

    def get_file(self, path: str, target: str) -> None:
        self._do("read", path, self.fs.get_file, target)

    def cp_file(self, path: str, target: str) -> None:
        self._do("copy", path, self.fs.cp_file, target)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._do("make", path, self.fs.makedirs, exist_ok)

    def ls(self, path: str) -> list[dict[str, Any]]:
        """What is in a folder; nothing if there is no such folder."""
        try:
            return self._do("list", path, lambda place: self.fs.ls(place, detail=True))
        except FileNotFoundError:
            return []

    def find(self, path: str) -> list[str]:
        return self._do("list", path, self.fs.find)

    def rm_file(self, path: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):  # or was removed by an attempt whose answer was lost
            self._do("remove", path, self.fs.rm_file)

    def rm(self, path: str, recursive: bool = False) -> None:
        """Remove a file or a folder, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._do("remove", path, lambda place: self.fs.rm(place, recursive=recursive))

    def _do(self, verb: str, path: str, call: Callable[..., T], *arguments: Any) -> T:
        def attempt() -> T:
            self.fs.invalidate_cache()  # other processes write here too
            return call(path, *arguments)

        return retried(f"{verb} {self.fs.unstrip_protocol(path)}", attempt)
