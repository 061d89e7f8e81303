"""What the code of a stage is, as a hash that changes with it."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
from functools import cache
from importlib.metadata import version
from pathlib import Path

_FAMILY = "parefront.spaces."
_SHARED = frozenset({"parefront.spaces.catalog", "parefront.spaces.space"})
"""Modules that know every stage and are part of none."""


_LIBRARIES = ("torch", "torch-pruning", "onnx", "onnxruntime", "numpy")
"""What changes what a stage makes when it changes."""


def versions() -> list[str]:
    """The libraries that stages are made with, each with its version."""
    return [f"{name} {version(name)}" for name in _LIBRARIES]


def code_digest(kind: type) -> str:
    """Hash of the source of a class's module and of all of parefront's spaces that it imports.

    What a stage uses of libraries is told by their versions.

    Args:
        kind: The class.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(_closure(kind.__module__)):
        digest.update(name.encode())
        digest.update(_source(name))
    return digest.hexdigest()


def object_digest(thing: object) -> str:
    """Hash of the source that an object's class or a function was written in.

    What has no source, such as a function typed in at a prompt, is told by its name alone.
    """
    kind = thing if inspect.isroutine(thing) or inspect.isclass(thing) else type(thing)
    try:
        text = inspect.getsource(kind)
    except (OSError, TypeError):
        text = ""
    name = f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', repr(kind))}"
    return hashlib.sha256(f"{name}\n{text}".encode()).hexdigest()


def _closure(name: str) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _imports(_source(module))
    return found


def _imports(source: bytes) -> list[str]:
    """The modules of parefront's spaces that a source imports."""
    found = []
    for node in ast.walk(ast.parse(source or b"")):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [
        name
        for name in dict.fromkeys(found)
        if name.startswith(_FAMILY) and name not in _SHARED and _is_module(name)
    ]


@cache
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a class of a module looks like a module of a package
        return False


def _source(name: str) -> bytes:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).read_bytes() if spec is not None and spec.origin else b""
