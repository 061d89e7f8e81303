"""The artifact store: files by the hash of what is in them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parefront.errors import ArtifactError
from parefront.objectives.artifact import Artifact, sha256_of
from parefront.search.remote import Remote

_NAME = re.compile(r"[0-9a-f]{64}\.[a-z0-9]+")


class ArtifactStore:
    """Content-addressed artifacts in a folder, and in a store that several machines reach.

    Several processes may use one store: a file appears whole or not at all, and two writers of the
    same bytes write the same file. With a store elsewhere the folder holds copies, because
    artifacts are run from local files; a copy that is gone or damaged is fetched again.

    Args:
        root: Folder of the artifacts; made when the first comes.
        remote: Where they are kept, if that is not the folder.
    """

    def __init__(self, root: Path, remote: Remote | None = None) -> None:
        self.root = root
        self.remote = remote

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder on the same file system for files in the making; gone afterwards.

        Raises:
            ArtifactError: If the folder cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(dir=self.root, prefix="scratch-")
        except OSError as error:
            raise ArtifactError(f"cannot write to {self.root}: {error}") from error
        with folder as name:
            yield Path(name)

    def add(self, path: Path, format: str) -> Artifact:  # noqa: A002
        """Moves a file of `scratch` into the store.

        Raises:
            ArtifactError: If it cannot be moved.
        """
        artifact = Artifact.of(path, format)
        name = _name(artifact.sha256, format)
        place = self.root / name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
        except OSError as error:
            raise ArtifactError(f"cannot write {place}: {error}") from error
        if self.remote is not None:
            try:
                self.remote.put(place, name)
            except OSError as error:
                raise ArtifactError(f"cannot write {self.remote.url}/{name}: {error}") from error
        return Artifact(place, format, artifact.size_bytes, artifact.sha256)

    def get(self, sha256: str, format: str) -> Artifact:  # noqa: A002
        """The artifact with a hash, read back and checked.

        Raises:
            ArtifactError: If it is missing or its bytes are not what the hash says.
        """
        name = _name(sha256, format)
        place = self.root / name
        found = sha256_of(place) if place.is_file() else None
        if found != sha256 and self.remote is not None:
            try:
                self.remote.fetch(name, place)
            except FileNotFoundError as error:
                raise ArtifactError(
                    f"there is no {self.remote.url}/{name}; were files moved or removed there?"
                ) from error
            except OSError as error:
                raise ArtifactError(f"cannot read {self.remote.url}/{name}: {error}") from error
            found = sha256_of(place)
        if found is None:
            raise ArtifactError(
                f"the artifact store has no {place}; was {self.root.parent}/ moved or cleaned? "
                "Launch the study from the folder it was made in"
            )
        if found != sha256:
            damaged = f"{self.remote.url}/{name}" if self.remote is not None else place
            raise ArtifactError(f"{damaged} is damaged: expected sha256 {sha256}, got {found}")
        return Artifact(place, format, place.stat().st_size, sha256)


def _name(sha256: str, format: str) -> str:  # noqa: A002
    """The name of an artifact in a store.

    Raises:
        ArtifactError: If it is no hash, as in a storage that somebody else has written to, for
            other names could lead out of the store.
    """
    name = f"{sha256}.{format}"
    if not _NAME.fullmatch(name):
        raise ArtifactError(f"expected a sha256 in hexadecimal digits and a format, got {name!r}")
    return f"{sha256[:2]}/{name}"
