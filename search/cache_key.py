"""The key that seals what stages have made: the user's own, and never beside what it seals."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from pathlib import Path

from parefront.errors import UsageError

KEY_FILE = "PAREFRONT_CACHE_KEY_FILE"
"""Environment variable that names the file of the key."""
_LEAST = 32
"""Bytes of a key; a shorter one could be guessed."""


def own_key(folder: Path | None = None) -> bytes:
    """The user's key.

    Args:
        folder: Folder of the key, made with a new key when it is first needed. By default the file
            that `PAREFRONT_CACHE_KEY_FILE` names, which is never made here: a key that was made
            up would fit nothing. Without that the user's folder `$XDG_STATE_HOME/parefront`.

    Raises:
        OSError: If it cannot be read or made, others could have read or written it, or it is too
            short.
    """
    named = os.environ.get(KEY_FILE) if folder is None else None
    path = Path(named).expanduser() if named else (folder or _state_folder()) / "cache.key"
    if not named and not path.exists():
        _make(path)
    facts = path.stat()
    if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o077:
        raise PermissionError(f"{path} is not this user's alone")
    key = path.read_bytes()
    if len(key) < _LEAST:
        raise OSError(f"{path} has {len(key)} bytes, and a key has {_LEAST} or more")
    return key


def check_own_key() -> None:
    """Checks the key that the environment names, if it names one.

    Raises:
        UsageError: If it cannot be used.
    """
    if not os.environ.get(KEY_FILE):
        return
    try:
        own_key()
    except OSError as error:
        raise UsageError(
            f"{KEY_FILE} names a key that cannot be used: {error}; expected a file of {_LEAST} "
            "random bytes or more that only its owner can read, such as a copy of another "
            "machine's ~/.local/state/parefront/cache.key with mode 600"
        ) from error


def _state_folder() -> Path:
    """Where the user's programs keep what is theirs alone, by the XDG specification."""
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local/state") / "parefront"


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, suffix=".part")  # for its owner alone
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_LEAST))
        os.link(draft, path)  # fails when another process was first, whose key is then used
    except FileExistsError:
        pass
    finally:
        Path(draft).unlink(missing_ok=True)
