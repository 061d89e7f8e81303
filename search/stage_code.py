"""What the code of a stage is, as a hash that changes with it."""

from __future__ import annotations

import ast
import enum
import functools
import hashlib
import importlib.util
import inspect
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import nn

_FAMILY = "parefront.spaces."
_SHARED = frozenset({"parefront.spaces.catalog", "parefront.spaces.space"})
"""Modules that know every stage and are part of none."""


_LIBRARIES = ("torch", "torch-pruning", "onnx", "onnxruntime", "numpy")
"""What changes what a stage makes when it changes."""


def versions() -> list[str]:
    """The libraries that stages are made with, each with its version."""
    return [f"{name} {version(name)}" for name in _LIBRARIES]


def code_digest(kind: Any) -> str:  # noqa: ANN401 - a class or a function
    """Hash of the source of a stage: its module, and all of parefront's spaces that it imports.

    What a stage uses of libraries is told by their versions.

    Args:
        kind: The class, or a function.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(_closure(kind.__module__)):
        digest.update(name.encode())
        digest.update(_source(name))
    return digest.hexdigest()


class Undescribed(Exception):  # noqa: N818 - says that there is no answer, which is no error
    """Something has state that cannot be told by its content."""


def object_digest(thing: object) -> str:
    """Hash of everything that an object, a function or a module does its work with.

    That is the source file of its class or function, and its state: attributes, arguments that
    are bound, closures, tensors, and the same of what these refer to. What a library brings is
    told by its name, and by the library's version elsewhere.

    Args:
        thing: A function, a `functools.partial`, an instance or a `torch.nn.Module`.

    Returns:
        64 hexadecimal digits.

    Raises:
        Undescribed: If some of its state has no content to tell it by, such as an open file.
    """
    return hashlib.sha256(repr(_described(thing, ())).encode()).hexdigest()


def _described(thing: object, above: tuple[int, ...]) -> object:
    if thing is None or isinstance(thing, bool | int | float | str | bytes | complex):
        return (type(thing).__name__, thing)
    if isinstance(thing, torch.dtype | torch.device | enum.Enum | Path | slice | range):
        return repr(thing)
    if id(thing) in above:
        return "itself"
    inside = (*above, id(thing))

    def each(things: Iterable[object]) -> list[object]:
        return [_described(one, inside) for one in things]

    if isinstance(thing, tuple | list):
        return (type(thing).__name__, each(thing))
    if isinstance(thing, set | frozenset):
        return ("set", sorted(map(repr, each(thing))))
    if isinstance(thing, Mapping):
        return ("mapping", each(thing.keys()), each(thing.values()))
    if isinstance(thing, torch.Tensor):
        flat = thing.detach().cpu().contiguous().reshape(-1)
        content = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        return (str(thing.dtype), tuple(thing.shape), hashlib.sha256(content).hexdigest())
    if isinstance(thing, np.ndarray) and thing.dtype != object:
        return (str(thing.dtype), thing.shape, hashlib.sha256(thing.tobytes()).hexdigest())
    if isinstance(thing, functools.partial):
        return ("partial", each((thing.func, thing.args, thing.keywords)))
    if inspect.ismethod(thing):
        return ("method", each((thing.__self__, thing.__func__)))
    if inspect.isfunction(thing):
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        bound = each((thing.__defaults__, thing.__kwdefaults__, cells))
        return (_written(thing), _code(thing.__code__), bound)
    if inspect.isclass(thing) or inspect.isbuiltin(thing):
        return _written(thing)
    if inspect.ismodule(thing):
        return thing.__name__
    state = getattr(thing, "__dict__", None)
    if state is None:
        raise Undescribed(f"a {type(thing).__name__} has no state that can be told")
    if isinstance(thing, nn.Module):
        state = {name: value for name, value in state.items() if name not in _UNIMPORTANT}
    return (_written(type(thing)), each((dict(state),)))


def _code(code: CodeType) -> object:
    """What a function does, apart from others in the same file."""
    inner = [_code(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return (code.co_code, inner, code.co_names)


_UNIMPORTANT = frozenset({"training"})
"""Attributes of modules that say how they are used and not what they are."""
_LIBRARY_ROOTS = frozenset({"torch", "numpy", "builtins", "collections", "functools"})


def _written(thing: Any) -> tuple[str, str]:  # noqa: ANN401 - a class or a function of any kind
    """Name of a class or function, and a hash of the file it is in."""
    module = getattr(thing, "__module__", None) or ""
    name = f"{module}.{getattr(thing, '__qualname__', repr(thing))}"
    if module.partition(".")[0] in _LIBRARY_ROOTS:
        return name, ""
    try:
        file = inspect.getsourcefile(thing)
        source = Path(file).read_bytes() if file else b""
    except (OSError, TypeError):
        source = b""
    if not source and not inspect.isfunction(thing):  # typed in at a prompt
        raise Undescribed(f"{name} has no source")
    return name, hashlib.sha256(source).hexdigest()


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
