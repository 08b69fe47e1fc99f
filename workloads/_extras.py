"""Optional packages: imported where used, and asked for by the extra that brings them."""

import importlib
from types import ModuleType


def need(module: str, extra: str) -> ModuleType:
    """Import an optional module.

    Raises:
        ValueError: It is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise
        raise ValueError(f"{error.name} is not installed: pip install 'raydeck[{extra}]'") from None
