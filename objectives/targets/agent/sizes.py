"""Numbers of bytes as a person writes and reads them."""

from __future__ import annotations

import re

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def size_of(text: str) -> int:
    """Bytes of a size such as `512M` or `1.5 GiB`; units are powers of 1024.

    Example:
        >>> size_of("1.5K")
        1536

    Raises:
        ValueError: If it is no size, or not even one byte.
    """
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise ValueError(f"expected a size such as 512M or 4G, got {text!r}")
    return size


def size_text(size: int) -> str:
    """A number of bytes for a message.

    Example:
        >>> size_text(1536)
        '1.5 KiB'
    """
    for unit in ("T", "G", "M", "K"):
        if size >= _UNITS[unit]:
            return f"{size / _UNITS[unit]:.4g} {unit}iB"
    return f"{size} bytes"
