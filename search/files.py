"""The files of a study: artifacts, weights of baselines, and what stages made."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from parefront.errors import ArtifactError, UsageError
from parefront.search.cache_key import check_own_key
from parefront.search.place import is_url
from parefront.search.remote import Remote
from parefront.search.stage_cache import StageCache
from parefront.search.storage import home_of
from parefront.search.store import ArtifactStore
from parefront.search.study_file import StudyFile

COPIES = "copies"
"""Folder of what is kept elsewhere and was used here."""


@dataclass(frozen=True)
class StudyFiles:
    """Where the files of a study are.

    Attributes:
        home: The folder beside the study's storage, which is this machine's.
        place: Folder or URL that the study names, `None` for `home`.
    """

    home: Path
    place: str | None = None

    @classmethod
    def of(cls, settings: StudyFile, url: str) -> Self:
        """The files of a study in a storage."""
        return cls(home_of(url), settings.study.files)

    @cached_property
    def remote(self) -> Remote | None:
        """The store they are in, `None` if that is a folder."""
        return Remote(self.place) if self.place is not None and is_url(self.place) else None

    @property
    def root(self) -> Path:
        """The folder they are in, or where copies of them are."""
        if self.place is None:
            return self.home
        return self.home / COPIES if self.remote is not None else Path(self.place)

    def artifacts(self) -> ArtifactStore:
        """The store of the artifacts."""
        return ArtifactStore(self.root / "artifacts", self._within("artifacts"))

    def cache(self, megabytes: int) -> StageCache | None:
        """Keeps what stages make, so many megabytes of it; `None` for 0."""
        if not megabytes:
            return None
        # On this machine all studies share a cache, wherever their files are kept.
        root = self.home if self.remote is not None else self.root
        remote = self._within("cache")
        if remote is not None:
            remote = replace(remote, waits=())  # what is not kept costs less than waiting may
        return StageCache(root / "cache", megabytes * 1_000_000, remote=remote)

    def weights(self, study_id: str) -> Path:
        """The file of a trained baseline, which is there if it was trained already.

        Raises:
            ArtifactError: If they are kept elsewhere and cannot be read.
        """
        path, remote = self._weights(study_id), self._within("baselines")
        if remote is not None and not path.exists():
            try:
                remote.fetch(path.name, path)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise ArtifactError(f"cannot read {remote.url}/{path.name}: {error}") from error
        return path

    def share_weights(self, study_id: str, *, fresh: bool) -> bool:
        """Keeps the weights of a trained baseline for launches on other machines.

        Args:
            study_id: Id of the study.
            fresh: Whether they were trained just now, so that another may have been first.

        Returns:
            Whether another was, and the file has its weights now: they are the study's.

        Raises:
            ArtifactError: If they cannot be written.
        """
        path, remote = self._weights(study_id), self._within("baselines")
        if remote is None:
            return False
        try:
            if not remote.has(path.name):
                remote.put(path, path.name)
                return False
            if fresh:
                remote.fetch(path.name, path)
        except OSError as error:
            raise ArtifactError(f"cannot share {remote.url}/{path.name}: {error}") from error
        return fresh

    def check(self) -> None:
        """Checks that files can be kept, before anything is searched.

        Raises:
            UsageError: If they cannot; the message says why and what to do.
        """
        check_own_key()
        if self.remote is not None:
            self.remote.check()
        elif self.place is not None:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=self.root) as file:
                    file.write(b"whether anything can be written")
            except OSError as error:
                raise UsageError(
                    f"cannot keep files in {self.root}: {error}; expected a folder that this "
                    "user may write to"
                ) from error

    def _weights(self, study_id: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]+", study_id):  # other names could lead out of the folder
            raise ArtifactError(f"expected an id in hexadecimal digits, got {study_id!r}")
        return self.root / "baselines" / f"{study_id}.pt"

    def _within(self, folder: str) -> Remote | None:
        return self.remote.within(folder) if self.remote is not None else None
