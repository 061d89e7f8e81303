"""Imports the library of a runtime, or says how to install it."""

from __future__ import annotations

import importlib
from typing import Any

from parefront.errors import RuntimeMissingError


def library(module: str, runtime: str, requirement: str) -> Any:  # noqa: ANN401 (a module)
    """Imports a module of a runtime's library.

    Args:
        module: Full name of the module.
        runtime: Name of the runtime, for the message.
        requirement: What pip installs to get it.

    Raises:
        RuntimeMissingError: If it is not installed, or something it imports is not.
    """
    try:
        importlib.import_module(module.partition(".")[0])
        return importlib.import_module(module)
    except ImportError as error:
        top = module.partition(".")[0]
        absent = isinstance(error, ModuleNotFoundError) and error.name == top
        what = "is not installed" if absent else f"cannot be imported ({error})"
        raise RuntimeMissingError(
            f"runtime {runtime!r} {what}; pip install '{requirement}'"
        ) from error
