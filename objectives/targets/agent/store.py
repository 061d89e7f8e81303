"""The files an agent keeps: named by their content, within a quota, safe against a crash."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from parefront.errors import AgentError
from parefront.objectives.targets.agent.refusal import Refusal
from parefront.objectives.targets.agent.sizes import size_text

PART = ".part"
"""In the names of files that are not complete."""
_FLUSH = 8 << 20
"""Bytes after which an upload waits for the disk, so that it is quiet when timing begins."""
_SPARE = 16 << 20
"""Bytes of the disk that are left to the rest of the system."""


class Store:
    """Files in a folder of their own, named `{sha256}.{format}`.

    The longest unused go when room is needed, but never one in use. Safe for threads.
    """

    def __init__(self, folder: Path, *, quota: int, longest: int) -> None:
        """Opens a store, and removes what a crash left half-written.

        Args:
            folder: Folder of the store, made if it is not there.
            quota: Bytes of all files together.
            longest: Bytes of one file.

        Raises:
            AgentError: If the folder cannot be used, or another agent uses it.
        """
        self.folder = folder
        self._quota = quota
        self._longest = longest
        self._mutex = threading.Lock()
        self._used: Counter[str] = Counter()
        self._reserved = 0
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = FileLock(folder / ".lock")
            self._lock.acquire(timeout=0)
            for path in folder.glob(f"*{PART}*"):
                path.unlink()
            found = sorted(self._paths(), key=lambda path: path.stat().st_mtime_ns)
            self._sizes = {path.name: path.stat().st_size for path in found}
        except Timeout as error:
            raise AgentError(
                f"another agent uses the folder {folder}; stop it, or name another with --folder"
            ) from error
        except OSError as error:
            raise AgentError(f"cannot use the folder {folder}: {error}") from error

    def _paths(self) -> Iterator[Path]:
        return (
            path
            for path in self.folder.iterdir()
            if path.is_file() and not path.is_symlink() and len(path.stem) == 64
        )

    def __contains__(self, name: str) -> bool:
        """Whether a file is there; one that was asked for counts as used."""
        with self._mutex:
            if name not in self._sizes:
                return False
            try:
                self._touch(name)
            except FileNotFoundError:  # someone tidied up
                del self._sizes[name]
                return False
            return True

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of the files that are not there."""
        return [name for name in dict.fromkeys(names) if name not in self]

    @contextmanager
    def hold(self, names: Sequence[str]) -> Iterator[None]:
        """Keeps files from being removed.

        Raises:
            KeyError: If one is not there.
        """
        with self._mutex:
            for name in names:
                self._sizes[name]
            self._used.update(names)
        try:
            yield
        finally:
            with self._mutex:
                self._used.subtract(names)

    def path(self, name: str) -> Path:
        """Where a file is, or would be."""
        return self.folder / name

    def check(self, length: int) -> None:
        """Says whether a file of this length would be taken now.

        Raises:
            Refusal: If it would not; the message gives the reason.
        """
        with self._mutex:
            self._make_room(length, dry=True)

    @contextmanager
    def upload(self, name: str, length: int) -> Iterator[Upload]:
        """Takes a file in; what was not finished is removed.

        Args:
            name: Name of the file; begins with its SHA-256.
            length: Its bytes.

        Raises:
            Refusal: If there is no room.
        """
        with self._mutex:
            self._make_room(length)
            self._reserved += length
        path = self.folder / f"{name}.{os.urandom(8).hex()}{PART}"
        upload = None
        try:
            upload = Upload(path, name.split(".")[0], length)
            yield upload
            if upload.finished:
                with self._mutex:
                    path.replace(self.path(name))
                    self._sizes[name] = length
                    self._touch(name)
        except OSError as error:
            raise Refusal(507, f"the agent could not keep the file: {error.strerror}") from error
        finally:
            if upload is not None:
                upload.close()
            path.unlink(missing_ok=True)
            with self._mutex:
                self._reserved -= length

    def close(self) -> None:
        """Lets another agent use the folder."""
        self._lock.release()

    def _touch(self, name: str) -> None:
        self._sizes[name] = self._sizes.pop(name)  # the last to go
        os.utime(self.path(name))

    def _make_room(self, length: int, *, dry: bool = False) -> None:
        if length > self._longest:
            raise Refusal(
                413,
                f"expected a file of at most {size_text(self._longest)}, got {size_text(length)}; "
                "the agent's --longest sets the limit",
            )
        idle = [name for name in self._sizes if not self._used[name]]
        total = sum(self._sizes.values()) + self._reserved
        free = shutil.disk_usage(self.folder).free - self._reserved - _spare(self.folder)
        gone = []
        while total + length > self._quota or free < length:
            if not idle:
                why = (
                    f"the agent may keep {size_text(self._quota)}, {size_text(total)} of it is in "
                    f"use, and the file has {size_text(length)}; its --disk sets the limit"
                    if total + length > self._quota
                    else f"no space left on the agent's disk for {size_text(length)}: "
                    f"{size_text(max(0, free))} can be used in {self.folder}"
                )
                raise Refusal(507, why)
            name = idle.pop(0)
            gone.append(name)
            total -= self._sizes[name]
            free += self._sizes[name]
        for name in [] if dry else gone:
            self.path(name).unlink(missing_ok=True)
            del self._sizes[name]


def _spare(folder: Path) -> int:
    """Bytes to leave free: less on a disk that is tiny itself."""
    return min(_SPARE, shutil.disk_usage(folder).total // 20)


class Upload:
    """A file on its way in.

    Attributes:
        finished: Whether it is complete and what it should be.
    """

    def __init__(self, path: Path, digest: str, length: int) -> None:
        """Opens the temporary file."""
        self._path = path
        self._digest = digest
        self._length = length
        self._hash = hashlib.sha256()
        self._written = 0
        self._flushed = 0
        self._file = path.open("xb", buffering=0)
        self.finished = False

    def write(self, chunk: bytes) -> None:
        """Adds bytes.

        Raises:
            Refusal: If there are more than were announced.
            OSError: If the disk takes no more.
        """
        self._written += len(chunk)
        if self._written > self._length:
            raise Refusal(400, f"expected {self._length} bytes, got more")
        view = memoryview(chunk)
        while view:
            view = view[self._file.write(view) :]
        self._hash.update(chunk)
        if self._written - self._flushed >= _FLUSH:
            os.fdatasync(self._file.fileno())
            self._flushed = self._written

    def finish(self) -> None:
        """Checks the file and brings it to the disk.

        Raises:
            Refusal: If it is too short or another than was announced.
            OSError: If the disk fails.
        """
        if self._written < self._length:
            raise Refusal(400, f"expected {self._length} bytes, got {self._written}")
        found = self._hash.hexdigest()
        if found != self._digest:
            raise Refusal(422, f"expected a file with SHA-256 {self._digest}, got {found}")
        os.fsync(self._file.fileno())
        self.finished = True

    def close(self) -> None:
        """Closes the temporary file."""
        self._file.close()
