"""Folders of a launch for what Ray writes, and the end of those that a killed launch has left."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "parefront-ray-"
YOUNG = 60.0
"""Seconds in which a folder is left alone, for its owner may not have locked it yet."""
_LOCK = "owner.lock"
_SHORT = 24
"""Paths of Ray's sockets begin with the folder's, and may have 107 bytes at most."""


class Scratch:
    """A folder with a short path that is locked as long as this process has it.

    The lock ends with its process, however that ends, so that a later one knows what is left over.

    Attributes:
        path: The folder.
    """

    def __init__(self) -> None:
        sweep(place())
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place()))
        self._lock = FileLock(self.path / _LOCK)
        self._lock.acquire(timeout=0)

    def close(self) -> None:
        """Removes it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


def place() -> Path:
    """Where such folders are."""
    usual = tempfile.gettempdir()
    return Path(usual if len(usual) < _SHORT else "/tmp")  # noqa: S108


def sweep(folder: Path) -> None:
    """Removes what killed processes of this user have left in a folder."""
    for left in folder.glob(f"{PREFIX}*"):
        try:
            if time.time() - left.stat().st_mtime < YOUNG or not (left / _LOCK).is_file():
                continue
            with FileLock(left / _LOCK, timeout=0):
                shutil.rmtree(left, ignore_errors=True)
        except (Timeout, OSError):  # somebody's who is at work, or of another user
            continue
