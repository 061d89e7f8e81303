"""Where the files of a study are, as a user names it: a folder, or the URL of a store."""

from __future__ import annotations

import re
from pathlib import Path

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)(.*)", re.DOTALL)
_ALMOST = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_PASSWORD = re.compile(r":.*@", re.DOTALL)
"""Holds wherever it is, for a password may have '/' and '@' in it."""
_HOST = re.compile(r"([^:]*|[^:\[]*\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", re.DOTALL)
"""A host with a user and a port; what else is behind a ':' may be a password."""
_NOT_KEPT = {"http": "cannot be written to", "https": "cannot be written to"} | {
    "memory": "is gone with its process"
}
_EXPECTED = "expected a folder, or a URL such as s3://bucket/folder"


class SecretPlaceError(ValueError):
    """A place that may hold a secret, which must not be shown."""


def is_url(place: str) -> bool:
    """Whether a place is the URL of a store; else it is a folder."""
    return _URL.fullmatch(place) is not None


def scrubbed(text: str) -> str:
    """A text without the passwords and signatures that are in its URLs."""
    text = re.sub(r"//(?:[^\s:]*:\S*|[^/@\s]+)@", "//***@", text)
    text = re.sub(r"//[^/\s:@\[\"']+:(?![0-9]{1,5}(?![\w+=%-]))[^/\s]+", "//***", text)
    return re.sub(r"(://[^\s?\"']+)\?[^\s\"']+", r"\1?***", text)


def check_place(place: str) -> None:
    """Checks what a user named.

    Raises:
        SecretPlaceError: If it may hold a secret, which would be kept with the study.
        ValueError: If no files can be kept there.
    """
    found = _URL.fullmatch(place)
    if found is None and not _ALMOST.match(place):
        if not place.strip() or "\0" in place:
            raise ValueError(_EXPECTED)
        return
    scheme, host, path = found.groups() if found is not None else ("", "", place)
    if _PASSWORD.search(host + path) or not _HOST.fullmatch(host) or "?" in place:
        raise SecretPlaceError(
            "expected a URL without a password and without '?', for it is kept with the study; "
            "give credentials in the environment or in ~/.aws, see docs/files.md"
        )
    if scheme in _NOT_KEPT:
        raise ValueError(f"{_EXPECTED}; what is at {scheme}:// {_NOT_KEPT[scheme]}")
    if ".." in path.split("/") or not (host or (scheme == "file" and path)):
        raise ValueError(_EXPECTED)


def resolved(place: str, base: Path) -> str:
    """The place with a folder made absolute, so that it means the same from anywhere."""
    found = _URL.fullmatch(place)
    if found is not None and found[1] != "file":
        return place.rstrip("/")
    folder = Path(place if found is None else found[2] + found[3])
    return str((base / folder.expanduser()).resolve())
