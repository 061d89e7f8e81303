"""The secret that an agent and those who may ask it share, in a file."""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from parefront.errors import TokenError

_SHORTEST = 20
_SECRET = re.compile(rf"[!-~]{{{_SHORTEST},}}")


def read_token(path: Path) -> str:
    """Reads a token from a file that only its user can read.

    Raises:
        TokenError: If the file cannot be read, is not the user's, can be read by others, or
            holds no token.
    """
    try:
        with path.open(encoding="ascii") as file:
            facts = os.fstat(file.fileno())
            text = file.read(4096).strip()
    except FileNotFoundError as error:
        raise TokenError(
            f"there is no token file {path}; `parefront agent --token-file {path} --new-token` "
            "writes one on the device, and a search needs a copy of it"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise TokenError(f"cannot read the token file {path}: {error}") from error
    if facts.st_uid not in {os.geteuid(), 0}:
        raise TokenError(f"expected the token file {path} to be yours, got one of another user")
    if stat.S_IMODE(facts.st_mode) & 0o077:
        raise TokenError(
            f"expected a token file that only you can read, got {path} with mode "
            f"{stat.S_IMODE(facts.st_mode):o}; try: chmod 600 {path}"
        )
    if not _SECRET.fullmatch(text):
        raise TokenError(
            f"expected at least {_SHORTEST} visible ASCII characters in the token file {path}, "
            f"got {len(text)} characters"
        )
    return text


def write_token(path: Path) -> None:
    """Writes a new random token to a new file that only its user can read.

    Raises:
        TokenError: If the file is there already or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    except FileExistsError as error:
        raise TokenError(
            f"the token file {path} is there already; leave out --new-token to use it, or remove it"
        ) from error
    except OSError as error:
        raise TokenError(f"cannot write the token file {path}: {error}") from error
