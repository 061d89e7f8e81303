"""Opening the Optuna storage a study lives in."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import optuna
import sqlalchemy.exc
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy.engine import make_url

from parefront.errors import StorageError, StorageVersionError

HOME = Path(".parefront")
"""Folder of the default storage, of artifacts and of baselines."""


def default_url() -> str:
    """The SQLite file under `.parefront/` in the current folder."""
    return f"sqlite:///{HOME / 'studies.db'}"


def home_of(url: str) -> Path:
    """The folder that holds the artifacts of the studies in a storage.

    It is the folder of a SQLite file, and `.parefront/` in the current folder for a server.
    """
    path = _sqlite_path(url)
    return path.parent if path is not None else HOME


def open_storage(url: str, *, create: bool = True) -> BaseStorage:
    """Opens a storage.

    SQLite files are used in WAL mode: readers and one writer do not block each other, and a
    transaction costs no `fsync`. A killed process loses nothing that was told; only a crash of the
    whole machine can lose the last moments (https://www.sqlite.org/wal.html).

    Args:
        url: Any URL that Optuna's `RDBStorage` takes.
        create: Whether a missing SQLite file is made.

    Raises:
        StorageError: If it cannot be opened.
        StorageVersionError: If an incompatible version of Optuna made it.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = _sqlite_path(url)
    try:
        if path is None:
            return get_storage(RDBStorage(url))
        if not create and not path.exists():
            raise StorageError(
                f"there is no storage {path}; launch a study first, or name it with --storage"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        rdb = RDBStorage(url, engine_kwargs={"creator": lambda: _connect(path)})
        # With a cache in front, as `optuna.load_study` has it, finished trials are read once.
        return get_storage(rdb)
    except RuntimeError as error:
        if isinstance(error, NotImplementedError) or "version" not in str(error):
            raise StorageError(f"cannot open storage {url}: {error}") from error
        raise StorageVersionError(
            f"the storage {url} was made by another version of Optuna: {error}"
        ) from error
    except (
        OSError,
        ImportError,
        sqlite3.Error,
        sqlalchemy.exc.SQLAlchemyError,
        optuna.exceptions.OptunaError,
    ) as error:
        reason = str(error).splitlines()[0]
        raise StorageError(f"cannot open storage {url}: {reason}") from error


def _sqlite_path(url: str) -> Path | None:
    try:
        parsed = make_url(url)
    except sqlalchemy.exc.ArgumentError as error:
        raise StorageError(
            f"expected a storage URL such as sqlite:///studies.db, got '{url}'"
        ) from error
    if not parsed.drivername.startswith("sqlite"):
        return None
    if not parsed.database or parsed.database == ":memory:":
        raise StorageError(f"a study needs a storage that outlives the process, got '{url}'")
    return Path(parsed.database)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection
