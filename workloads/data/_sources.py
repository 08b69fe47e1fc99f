"""Where data comes from: embedded sets, local paths and the Hugging Face hub, and what becomes of bad rows."""

import difflib
import os
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datasets import DatasetDict

OnError = Literal["stop", "skip"]

HUB = "hf://"

LOOK_SECONDS = 3.0
"""How long the hub may take to answer before it counts as out of reach; ``datasets`` itself tries for 23 s."""

MOST_REJECTED = 0.05
"""Share of bad rows above which skipping them would hide that the source as a whole is wrong."""


def resolve(source: str, embedded: Sequence[str]) -> tuple[Literal["embedded", "path", "hub"], str]:
    """Tell what a ``--data.source`` names. Never asks the network.

    Args:
        source: Name of an embedded set, ``hf://owner/name``, or a local path; looked up in that order.
        embedded: Names of the embedded sets.

    Returns:
        The kind, and the set's name, the hub's ``owner/name``, or the path as given but for ``~``.

    Raises:
        ValueError: It is none of them, or a hub name that is not ``hf://owner/name``.
    """
    if source in embedded:
        return "embedded", source
    if source.startswith(HUB):
        name = source.removeprefix(HUB).strip("/")
        if name.count("/") != 1 or not all(name.split("/")):
            raise ValueError(f"data.source: {source!r} is not a hub name; expected hf://owner/name")
        return "hub", name
    path = Path(source).expanduser()
    if source and path.exists():
        return "path", str(path)
    near = difflib.get_close_matches(source, embedded, n=3, cutoff=0.4) or list(embedded)
    raise ValueError(
        f"data.source: no {source!r}: there is no file or folder {path.absolute()}, and no embedded set of that name "
        f"(nearest: {', '.join(near)}); a set of the hub is written hf://owner/name"
    )


def hugging_face() -> ModuleType:
    """Import ``datasets``, made quiet, and made to leave the network alone when data is local."""
    # It is read when datasets is first imported, possibly by somebody else: hence both.
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    import datasets

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    datasets.disable_progress_bars()
    return datasets


def load_hub(name: str, revision: str | None = None) -> "DatasetDict":
    """Load a set of the Hugging Face hub; from its cache on this machine when there is no network.

    Args:
        name: ``owner/name``.
        revision: Commit, tag or branch; None is the newest.

    Raises:
        ValueError: No such set or revision, no access, or no network and not in the cache.
    """
    reached = _reaches_hub()
    if not reached:
        _stay_offline()
    datasets = hugging_face()
    try:
        return datasets.load_dataset(name, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        if not reached:
            raise ValueError(
                f"data.source: {HUB}{name} is a hub name, but the hub cannot be reached and this machine's cache lacks "
                "the set; connect to the network, or give a local path"
            ) from None
        at = f" at revision {revision!r}" if revision else ""
        raise ValueError(f"data.source: {HUB}{name}{at} cannot be loaded ({' '.join(str(error).split())})") from None


def _reaches_hub() -> bool:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=LOOK_SECONDS).close()
    except urllib.error.HTTPError:
        return True  # it answered
    except OSError:
        return False
    return True


def _stay_offline() -> None:
    """Make the hub's client use its cache at once instead of retrying; it reads the flag when it is imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    for module in ("huggingface_hub.constants", "datasets.config"):
        if module in sys.modules:
            sys.modules[module].HF_HUB_OFFLINE = True


def default_cache() -> Path:
    """The platform's folder for what can be made again, e.g. ``~/.cache/raydeck``."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("raydeck"))


class Rejects:
    """Bad rows: the first stops the run, or they are counted.

    Args:
        on_error: ``stop`` raises at the first bad row; ``skip`` leaves it out and counts it.

    Attributes:
        reasons: ``file, row: reason`` of each row skipped.
    """

    def __init__(self, on_error: OnError) -> None:
        self.on_error = on_error
        self.reasons: list[str] = []

    @property
    def count(self) -> int:
        """Rows skipped."""
        return len(self.reasons)

    def reject(self, file: str | Path, row: int | None, reason: str) -> None:
        """Say that a row cannot be used.

        Args:
            file: Where it is.
            row: Its number in the file, counted from 1 after any header; None when the file is the row.
            reason: What is wrong with it.

        Raises:
            ValueError: ``on_error`` is ``stop``.
        """
        told = f"{file}, row {row}: {reason}" if row is not None else f"{file}: {reason}"
        if self.on_error == "stop":
            raise ValueError(f"{told}; mend or remove it, or use --data.on_error skip")
        self.reasons.append(told)

    def finish(self, total: int) -> None:
        """Warn of what was skipped.

        Args:
            total: Rows read, good and bad.

        Raises:
            ValueError: More than 5 % are bad.
        """
        if not self.reasons:
            return
        told = f"{self.count} of {total} rows cannot be used (first: {self.reasons[0]})"
        if self.count > MOST_REJECTED * total:
            raise ValueError(f"{told}; more than {MOST_REJECTED:.0%} are bad, so none is skipped: mend the source")
        warnings.warn(f"skipped: {told}", stacklevel=2)
