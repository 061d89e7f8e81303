"""Files of a study in a store that several machines reach, such as a bucket of S3."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec

from parefront.errors import UsageError
from parefront.search.place import scrubbed

PART = ".part"
"""Ends the names of files in the making."""
_WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}
"""Where a file appears with its last byte; elsewhere it is written beside its place, and moved."""
_MARK = "parefront.txt"
_WORDS = b"Files of parefront studies; its docs/files.md says what may be removed.\n"
_CHANGED = ("LastModified", "last_modified", "modified", "mtime", "updated", "created")


@dataclass(frozen=True)
class Listed:
    """What a store says of a file.

    Attributes:
        size: Its bytes.
        changed: When it was written, in seconds since 1970; 0 if the store does not say.
    """

    size: int
    changed: float


@dataclass(frozen=True)
class Remote:
    """Files by name under a URL, by way of fsspec.

    A file appears whole or not at all, and a later one of the same name takes its place. What
    opens the store, such as credentials, is no part of this: each process takes it from its own
    environment. So it can be sent to other machines.

    Attributes:
        url: Where the files are.
        waits: Seconds before each further try of a `put`; stores try again by themselves too.
    """

    url: str
    waits: tuple[float, ...] = (2.0, 5.0)

    def within(self, folder: str) -> Remote:
        """The files of a folder."""
        return Remote(f"{self.url}/{folder}", self.waits)

    def put(self, path: Path, name: str) -> None:
        """Writes a copy of a local file.

        Raises:
            OSError: If it cannot be written, after some tries.
        """
        for wait in (*self.waits, None):
            try:
                with self._told():
                    self._put(path, name)
                return
            except (FileNotFoundError, PermissionError):  # another try would end the same
                raise
            except OSError:
                if wait is None:
                    raise
                time.sleep(wait)

    def fetch(self, name: str, path: Path) -> None:
        """Writes a file to a local one, which appears whole or not at all.

        Raises:
            FileNotFoundError: If there is none of that name.
            OSError: If it cannot be read, or not be written here.
        """
        draft = path.with_name(f"{path.name}.{uuid4().hex}{PART}")
        try:
            with self._told():
                path.parent.mkdir(parents=True, exist_ok=True)
                files, place = self._at(name)
                files.get_file(place, str(draft))
                draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        """Whether there is a file of that name.

        Raises:
            OSError: If the store cannot be asked.
        """
        with self._told():
            files, place = self._at(name)
            files.invalidate_cache()
            return bool(files.exists(place))

    def listed(self) -> dict[str, Listed]:
        """All files by name.

        Raises:
            OSError: If the store cannot be asked.
        """
        with self._told():
            files, root = self._at("")
            files.invalidate_cache()
            try:
                found: Mapping[str, Mapping[str, Any]] = files.find(root, detail=True)
            except FileNotFoundError:
                return {}
        start = root.strip("/") + "/"
        return {
            name.strip("/").removeprefix(start): Listed(int(facts["size"] or 0), _changed(facts))
            for name, facts in found.items()
            if not name.endswith(PART)
        }

    def remove(self, names: Sequence[str]) -> None:
        """Removes files; those that are gone are no matter.

        Raises:
            OSError: If one cannot be removed.
        """
        for name in names:
            try:
                with self._told():
                    files, place = self._at(name)
                    files.rm_file(place)
            except FileNotFoundError:
                continue

    def check(self) -> None:
        """Writes a file and reads it back.

        Raises:
            UsageError: If the store cannot be used; the message says why and what to do.
        """
        try:
            with tempfile.TemporaryDirectory() as folder:
                out, back = Path(folder, "out"), Path(folder, "back")
                out.write_bytes(_WORDS)
                with self._told():  # without further tries: somebody waits for the answer
                    self._put(out, _MARK)
                self.fetch(_MARK, back)
                if back.read_bytes() != _WORDS:
                    raise OSError("what was written is not what is read")
        except OSError as error:
            raise UsageError(
                f"cannot keep files at {self.url}: {error}; expected a store that is there, and "
                "that this user may write to and read from. Its address and credentials come "
                "from the environment or from ~/.aws, see docs/files.md"
            ) from error

    def _put(self, path: Path, name: str) -> None:
        files, place = self._at(name)
        if self.url.partition("://")[0] in _WHOLE:
            files.put_file(str(path), place)
            return
        draft = f"{place}.{uuid4().hex}{PART}"
        files.makedirs(place.rpartition("/")[0], exist_ok=True)
        files.put_file(str(path), draft)
        files.mv(draft, place)

    def _at(self, name: str) -> tuple[Any, str]:
        """The store, and the place of a file in it."""
        try:  # fsspec keeps one connection a process
            files, root = fsspec.url_to_fs(self.url)
        except ImportError as error:
            scheme = self.url.partition("://")[0]
            extra = "parefront[s3]" if scheme in {"s3", "s3a"} else f"fsspec[{scheme}]"
            raise UsageError(
                f"files at {self.url} need a package that is not installed ({error}); "
                f"try: pip install '{extra}'"
            ) from error
        return files, f"{root.rstrip('/')}/{name}".rstrip("/")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raises whatever a store raises as an `OSError` that tells no secrets."""
        try:
            yield
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 - every store has errors of its own
            kind = type(error)
            text = scrubbed(str(error).strip().partition("\n")[0]) or kind.__name__
            if isinstance(error, (FileNotFoundError, PermissionError)):
                # What it came from is not shown: it may tell what the text no longer does.
                raise kind(text) from None
            raise OSError(text if isinstance(error, OSError) else f"{kind.__name__}: {text}") from (
                None
            )


def _changed(facts: Mapping[str, Any]) -> float:
    for key in _CHANGED:
        found = facts.get(key)
        if isinstance(found, datetime):
            return found.timestamp()
        if isinstance(found, (int, float)):
            return float(found)
        if isinstance(found, str):
            try:
                return datetime.fromisoformat(found).timestamp()
            except ValueError:
                continue
    return 0.0
