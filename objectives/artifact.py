"""The file that would ship."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A file in the format of some runtime.

    Attributes:
        path: Where the file is.
        format: Format of the file, such as `"onnx"`.
        size_bytes: Length of the file.
        sha256: SHA-256 of the file, as 64 hexadecimal digits.
    """

    path: Path
    format: str
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path, format: str) -> Artifact:  # noqa: A002
        """The artifact that a file is."""
        return cls(path, format, path.stat().st_size, sha256_of(path))
