"""What a node of a cluster says of itself. It travels to the node by value, so that a node without raydeck answers too:
nothing but the standard library is imported before it is needed.
"""

import os
from collections.abc import Callable
from typing import Any

PACKAGES = ("cluster", "lightning_modules", "tune_spaces", "workloads")


def examine(node: str, storage: str | None) -> dict[str, Any]:
    """Versions, free disk, and what this node sees of the storage.

    Args:
        node: Its id; names the file that it writes.
        storage: URI of a folder in which the driver has written a file ``driver``; None to leave storage alone.

    Returns:
        ``host``; ``versions``; ``temp``: folder, free bytes and all bytes of the disk that Ray works on; ``storage``:
        what went wrong with it, empty if nothing did.
    """
    import platform

    return {
        "host": platform.node(),
        "versions": versions(),
        "temp": disk(temp_folder()),
        "storage": visit(node, storage) if storage else "",
    }


def versions() -> dict[str, str]:
    """Version of each package that has to be the same everywhere; that of raydeck tells its code apart, too."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("ray", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found | {"raydeck": code()}


def code() -> str:
    """A digest of raydeck's own code, for its version does not change with every commit."""
    import hashlib
    import importlib.util
    from pathlib import Path

    digest = hashlib.sha256()
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            return "missing"
        folder = Path(next(iter(spec.submodule_search_locations)))
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{package}/{file.relative_to(folder).as_posix()}".encode() + file.read_bytes())
    return f"code {digest.hexdigest()[:8]}"


def temp_folder() -> str:
    """Where Ray keeps sockets, logs and spilled objects on this node."""
    import tempfile

    import ray

    node = ray._private.worker._global_node
    return node.get_temp_dir_path() if node is not None else tempfile.gettempdir()


def disk(folder: str) -> tuple[str, int, int]:
    """Folder, free bytes, all bytes."""
    import shutil

    usage = shutil.disk_usage(folder)
    return folder, usage.free, usage.total


def visit(node: str, storage: str) -> str:
    """Read the driver's file, and leave one for it to read; returns what went wrong."""
    from fsspec.core import url_to_fs

    try:
        fs, path = url_to_fs(storage)
        if patiently(lambda: fs.cat_file(f"{path}/driver")).decode() != os.path.basename(path):
            return "holds another file than the driver wrote"
    except FileNotFoundError:
        return "does not see what the driver wrote"
    except Exception as error:  # whatever a filesystem raises is the answer
        return f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
    try:
        patiently(lambda: fs.pipe_file(f"{path}/{node}", node.encode()))
    except Exception as error:
        return f"cannot be written ({getattr(error, 'strerror', None) or ' '.join(str(error).split())[:120]})"
    return ""


def patiently(call: Callable[[], Any]) -> Any:
    """The answer of a storage that may fail for a moment, within some 8 s; `cluster.retrying` may not be there."""
    import time

    for pause in (0.5, 1, 2, 4):
        try:
            return call()
        except (FileNotFoundError, PermissionError):
            raise
        except Exception:
            time.sleep(pause)
    return call()
