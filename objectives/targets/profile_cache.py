"""Profiles on disk: one file a device fingerprint, under `profiles/` in the project's folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from parefront.errors import StorageError
from parefront.objectives.targets.fingerprint import fingerprint_id
from parefront.objectives.targets.profile import Profile, channel_multiple

MOST_BYTES = 1_000_000
"""A profile has a few kilobytes; a longer file is something else and is not read."""


def profile_path(home: Path, fingerprint: Mapping[str, Any]) -> Path:
    """Where the profile of a fingerprint is kept.

    Args:
        home: Folder of the studies, such as `.parefront`.
        fingerprint: What `Device.fingerprint` says.
    """
    return home / "profiles" / f"{fingerprint_id(fingerprint)}.json"


def load_profile(home: Path, fingerprint: Mapping[str, Any]) -> Profile | None:
    """The kept profile of a fingerprint, `None` if there is none.

    Args:
        home: Folder of the studies.
        fingerprint: What `Device.fingerprint` says.

    Raises:
        StorageError: If there is a file that cannot be read, is no profile of this version, or
            is the profile of another device.
    """
    path = profile_path(home, fingerprint)
    hint = "'parefront profile' measures it again"
    try:
        if path.stat().st_size > MOST_BYTES:
            raise StorageError(f"{path} is too long for a profile; {hint}")
        profile = Profile.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read the profile {path}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        reason = f"{place}: {first['msg']}" if place else first["msg"]
        raise StorageError(f"{path} is no profile of this version ({reason}); {hint}") from error
    expected = fingerprint_id(fingerprint)
    if profile.fingerprint_id != expected:
        raise StorageError(
            f"expected {path} to be the profile of {expected}, got that of "
            f"{profile.fingerprint_id}; {hint}"
        )
    return profile


def save_profile(home: Path, profile: Profile) -> Path:
    """Keeps a profile; the file appears whole or not at all.

    Returns:
        The file.

    Raises:
        StorageError: If it cannot be written.
    """
    path = profile_path(home, profile.fingerprint)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".part")
        draft = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(profile.model_dump_json(indent=1) + "\n")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write the profile {path}: {error.strerror or error}") from error
    return path


def profiled_multiple(home: Path, fingerprint: Mapping[str, Any]) -> int | None:
    """What widths are rounded to on a device, as its profile says.

    Args:
        home: Folder of the studies.
        fingerprint: What `Device.fingerprint` says.

    Returns:
        `channel_multiple` of the kept profile; `None` if there is none that can be read.
    """
    try:
        profile = load_profile(home, fingerprint)
    except StorageError:
        return None  # `parefront profile` says what is wrong with it
    return None if profile is None else channel_multiple(profile)
