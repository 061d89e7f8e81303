"""Waiting for a storage that does not answer for a while, such as a database that restarts."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import optuna
import sqlalchemy.exc

from parefront.errors import StorageError

SECONDS = 120.0
"""How long a launch waits for a storage that does not answer."""
_PAUSES = (0.1, 2.0)
"""Seconds between the first tries, and at most."""
_DATABASE = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)
_UNANSWERED = {"UNAVAILABLE", "UNKNOWN", "DEADLINE_EXCEEDED"}
"""gRPC's names for a server that is gone, and for one whose own database is."""

T = TypeVar("T")


def _unheard(text: str) -> None:
    """Nobody is told."""


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Repeats operations on a storage while it does not answer.

    Attributes:
        seconds: For how long; by default not at all, as somebody who looks at a study wants it.
        phase: Told that it waits.
        stopped: Whether to give up waiting.
    """

    seconds: float = 0.0
    phase: Callable[[str], None] = _unheard
    stopped: Callable[[], bool] = _never

    def __call__(self, operation: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """The value of an operation.

        Args:
            operation: What is done. When its answer is lost it may have happened all the same, so
                that it is repeated: it has to be one that may be.
            again: Done in place of it when it is repeated, for one that may not be.

        Raises:
            StorageError: If it fails, or if there is no answer for as long as this waits.
        """
        until, waiting, (pause, longest) = time.monotonic() + self.seconds, False, _PAUSES
        while True:
            try:
                value = operation()
            except failures() as error:
                left = until - time.monotonic()
                if left <= 0 or not lost(error) or self.stopped():
                    raise failed(error) from error
                if not waiting:
                    self.phase(f"the storage does not answer; trying for {left:.0f} s")
                waiting, operation = True, again or operation
                time.sleep(min(pause, left))
                pause = min(pause * 1.5, longest)
            else:
                if waiting:
                    self.phase("the storage answers again")
                return value


def failures() -> tuple[type[Exception], ...]:
    """What a storage raises when the database is gone, locked for too long, or full."""
    grpc = sys.modules.get("grpc")  # whoever has a storage behind gRPC has loaded it
    return _DATABASE if grpc is None else (*_DATABASE, grpc.RpcError)


def lost(error: BaseException) -> bool:
    """Whether a failure is a connection that was lost, which may come back.

    A SQLite file is no server: what fails there fails again.
    """
    grpc, each = sys.modules.get("grpc"), error
    while True:
        if isinstance(each, sqlalchemy.exc.DBAPIError):
            if isinstance(each.orig, sqlite3.Error):
                return False
            connected = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)
            if each.connection_invalidated or isinstance(each, connected):
                return True
        if grpc is not None and isinstance(each, grpc.RpcError):
            return each.code().name in _UNANSWERED
        # Optuna wraps what SQLAlchemy raises, and tries on within a transaction that is gone.
        further = each.__cause__ or each.__context__
        if further is None:
            return False
        each = further


def failed(error: Exception) -> StorageError:
    """Our own error for one of `failures`."""
    grpc = sys.modules.get("grpc")
    told = error.__cause__ or error
    text = told.details() if grpc is not None and isinstance(told, grpc.RpcError) else str(told)
    reason = text.splitlines()[0] if text else type(told).__name__
    return StorageError(
        f"the storage failed: {reason}; what was told is safe, launch again to go on"
    )
