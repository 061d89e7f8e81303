"""Finding the task and the functions that a study names."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from parefront.errors import TaskError
from parefront.search.task import Task


def load_task(reference: str, base: Path) -> Task:
    """Imports a task.

    Args:
        reference: `path/to/file.py:name` or `package.module:name`.
        base: Folder against which a relative path is resolved; the current folder comes second.

    Raises:
        TaskError: If there is no such file, module or name, importing fails, or the object is not
            a task.
    """
    task = _named(reference, base, Task)
    if not isinstance(task, Task):
        raise TaskError(
            f"{reference} is of type {type(task).__name__}, expected a parefront.Task; "
            f"write {reference.rpartition(':')[2]} = pf.Task(...)"
        )
    return task


def load_function(reference: str, base: Path) -> Callable[..., Any]:
    """Imports a function of the user's.

    Args:
        reference: `path/to/file.py:name` or `package.module:name`.
        base: Folder against which a relative path is resolved; the current folder comes second.

    Raises:
        TaskError: If there is no such file, module or name, importing fails, or the object cannot
            be called.
    """
    function = _named(reference, base, FunctionType)
    if not callable(function):
        raise TaskError(f"{reference} is of type {type(function).__name__}, expected a function")
    return function


def _named(reference: str, base: Path, kind: type) -> object:
    where, colon, name = reference.rpartition(":")
    if not colon or not where or not name:
        raise TaskError(
            "a task or function is named as path/to/file.py:name or package.module:name, "
            f"got '{reference}'"
        )
    module = _from_file(where, base) if where.endswith(".py") else _from_module(where)
    if not hasattr(module, name):
        found = [key for key, value in vars(module).items() if isinstance(value, kind)]
        near = get_close_matches(name, vars(module), 1)
        hint = f"did you mean '{near[0]}'?" if near else f"it has {found or 'none'}"
        raise TaskError(f"{where} has no '{name}'; {hint}")
    found_object: object = getattr(module, name)
    return found_object


def _from_file(where: str, base: Path) -> ModuleType:
    places = [base / where, Path.cwd() / where]
    path = next((place.resolve() for place in places if place.is_file()), None)
    if path is None:
        raise TaskError(f"there is no task file {' or '.join(dict.fromkeys(map(str, places)))}")
    # Tasks in files of one name in two folders are two modules.
    name = f"_parefront_task_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # A task file may import its neighbours, as it could when run as a script.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except TaskError:
        del sys.modules[name]
        raise
    except Exception as error:  # user code: whatever it raises is the task's fault
        del sys.modules[name]
        raise TaskError(f"importing {path} failed: {type(error).__name__}: {error}") from error
    return module


def _from_module(where: str) -> ModuleType:
    try:
        return importlib.import_module(where)
    except TaskError:
        raise
    except Exception as error:  # user code: whatever it raises is the task's fault
        raise TaskError(
            f"importing module {where} failed: {type(error).__name__}: {error}"
        ) from error
