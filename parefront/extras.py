"""Parts of parefront whose packages are installed only when they are asked for."""

from __future__ import annotations

import importlib.metadata
import re

PACKAGES = {"grpc": "grpcio", "torch_pruning": "torch-pruning"}
"""Names under which packages are installed, where they are not those of their modules."""


def extra_of(error: ModuleNotFoundError) -> str | None:
    """The extra of parefront that installs a module that was not found, if there is one."""
    module = (error.name or "").split(".")[0]
    package = PACKAGES.get(module, module).lower()
    for requirement in importlib.metadata.requires("parefront") or []:
        found = re.match(r"([\w.-]+).*\bextra == ['\"]([\w-]+)['\"]", requirement)
        if found and found[1].lower() == package and found[2] in {"search", "agent", "grpc"}:
            return found[2]
    return None
