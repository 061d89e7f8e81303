"""Locks that the launches of one study share, wherever they run.

One guards the choice of a trial, so that two launches do not choose the same. It has to hold among
all who write to a storage: a file does where the storage is a file, and a database or its proxy
keeps it for those who reach it over a network.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import sqlalchemy
from filelock import FileLock, Timeout

from parefront.errors import StorageError
from parefront.search.patience import Patience, failures
from parefront.search.storage import connecting, home_of, kind_of

_GONE_AFTER = {"tcp_keepalives_idle": 30, "tcp_keepalives_interval": 10, "tcp_keepalives_count": 3}
"""Lets a server see within a minute that a machine is gone which cannot say so any more."""


class Lock(Protocol):
    """Held by one at a time; given back when its holder dies. No fairness is promised."""

    def take(self) -> bool:
        """Takes it if it is free; whether it was.

        Raises:
            StorageError: If whoever keeps the lock cannot be asked.
        """
        ...

    def release(self) -> None:
        """Gives it back, or gives up waiting for it."""
        ...


def lock_of(url: str, study: str, what: str = "", patience: Patience | None = None) -> Lock:
    """A lock of a study.

    Args:
        url: The study's storage.
        study: Name of the study.
        what: What it guards, where it is not the choice of a trial.
        patience: How long to wait for a storage that does not answer.
    """
    patience = patience or Patience()
    kind = kind_of(url)
    if kind == "grpc":
        from parefront.search.leases import LeasedLock

        return LeasedLock(url, study, what, patience)
    if kind == "postgresql":
        return AdvisoryLock(url, f"{study}/{what}", patience)
    return LockFile(home_of(url) / "locks" / (f"{study}.lock" + (f".{what}" if what else "")))


class LockFile:
    """A locked file, for those on one machine.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(path, thread_local=False)

    def take(self) -> bool:
        """Takes it if it is free; whether it was."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        except OSError as error:
            raise StorageError(f"cannot write to {self._path.parent}: {error}") from error
        return True

    def release(self) -> None:
        """Gives it back."""
        self._lock.release()


class AdvisoryLock:
    """PostgreSQL's advisory lock of a session: it ends with the connection, however that ends.

    Args:
        url: The storage.
        name: Name of the lock within the database.
        patience: How long to wait for a database that does not answer.
    """

    def __init__(self, url: str, name: str, patience: Patience) -> None:
        parsed, options = connecting(url)
        self._engine = sqlalchemy.create_engine(
            parsed,
            connect_args=options,
            poolclass=sqlalchemy.pool.NullPool,
            isolation_level="AUTOCOMMIT",  # no transaction stays open while the lock is held
        )
        digest = hashlib.sha256(f"parefront/{name}".encode()).digest()
        self._key = {"key": int.from_bytes(digest[:8], "big", signed=True)}
        self._patience = patience
        self._connection: sqlalchemy.Connection | None = None

    def take(self) -> bool:
        """Takes it if it is free; whether it was."""
        return self._patience(self._take)

    def _take(self) -> bool:
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
                for name, value in _GONE_AFTER.items():
                    self._connection.exec_driver_sql(f"SET {name} = {value}")
            asked = sqlalchemy.text("SELECT pg_try_advisory_lock(:key)")
            return bool(self._connection.scalar(asked, self._key))
        except failures():
            self.release()
            raise

    def release(self) -> None:
        """Gives it back."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(*failures()):  # a connection that is lost holds no lock
            # All of the session's, as it is the only one; closing alone is heard some time later.
            connection.exec_driver_sql("SELECT pg_advisory_unlock_all()")
        with suppress(*failures()):
            connection.close()
