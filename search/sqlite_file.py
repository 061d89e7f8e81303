"""Looking into an SQLite file without making or changing one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from parefront.errors import StorageError

_TABLES = {"studies", "version_info", "alembic_version"}
"""Tables without which Optuna would make a file a storage; the last of them comes last."""


def check_storage(path: Path) -> None:
    """Checks that an SQLite file is a storage of studies; opening another would make it one.

    Raises:
        StorageError: If there is no such file, or it is something else.
    """
    if not path.exists():
        raise StorageError(
            f"there is no storage {path}; launch a study first, or name it with --storage"
        )
    try:
        # Even a read-only connection makes files beside a database whose log is kept apart,
        # unless it is told that nobody writes; and what is only in such a log, it does not see.
        missing = _missing(path, "mode=ro&immutable=1")
        if missing and path.with_name(f"{path.name}-wal").exists():
            missing = _missing(path, "mode=ro")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise StorageError(
                f"{path} is not a database; name a storage of studies with --storage"
            ) from error
        return  # whatever it is, opening it tells
    if missing:
        raise StorageError(
            f"{path} is no storage of studies, or none yet; launch a study first, or name another "
            "with --storage"
        )


def _missing(path: Path, how: str) -> set[str]:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", timeout=60, uri=True)
    try:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return _TABLES - {name for (name,) in rows}
    finally:
        connection.close()
