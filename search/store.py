"""The artifact store: files by the hash of what is in them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parefront.errors import ArtifactError
from parefront.objectives.artifact import Artifact, sha256_of


class ArtifactStore:
    """Content-addressed artifacts in a folder.

    Several processes may use one store: a file appears whole or not at all, and two writers of the
    same bytes write the same file.

    Args:
        root: Folder of the store; made when the first artifact comes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

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
        place = self._place(artifact.sha256, format)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
        except OSError as error:
            raise ArtifactError(f"cannot write {place}: {error}") from error
        return Artifact(place, format, artifact.size_bytes, artifact.sha256)

    def get(self, sha256: str, format: str) -> Artifact:  # noqa: A002
        """The artifact with a hash, read back and checked.

        Raises:
            ArtifactError: If it is missing or its bytes are not what the hash says.
        """
        place = self._place(sha256, format)
        if not place.is_file():
            raise ArtifactError(
                f"the artifact store has no {place}; was .parefront/ moved or cleaned? "
                "Launch the study from the folder it was made in"
            )
        found = sha256_of(place)
        if found != sha256:
            raise ArtifactError(f"{place} is damaged: expected sha256 {sha256}, got {found}")
        return Artifact(place, format, place.stat().st_size, sha256)

    def _place(self, sha256: str, format: str) -> Path:  # noqa: A002
        return self.root / sha256[:2] / f"{sha256}.{format}"
