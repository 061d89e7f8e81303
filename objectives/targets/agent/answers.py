"""Reading the answer to a measurement: lines of JSON, then perhaps a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import IO, Any

from parefront.errors import MeasurementError

_LONGEST_LINE = 1 << 22


def last_line(
    chunks: Iterator[bytes], heard: Callable[[str], None]
) -> tuple[dict[str, Any], Iterator[bytes]]:
    """Reads up to the line that decides.

    Args:
        chunks: The answer, in any pieces.
        heard: Gets the state of each line before it.

    Returns:
        The line, and what follows it.

    Raises:
        EOFError: If the answer ends before it.
        MeasurementError: If it is not an agent's answer.
    """
    buffer = b""
    for chunk in chunks:
        buffer += chunk
        while b"\n" in buffer:
            text, buffer = buffer.split(b"\n", 1)
            answer = _parsed(text)
            if "state" not in answer:
                return answer, _from(buffer, chunks)
            heard(str(answer["state"]))
        if len(buffer) > _LONGEST_LINE:
            raise MeasurementError(f"expected a line of JSON, got {buffer[:80]!r}")
    raise EOFError("the answer ended before the result")


def save(chunks: Iterator[bytes], file: IO[bytes], length: int, digest: str) -> None:
    """Writes what follows the last line to a file.

    Raises:
        EOFError: If it is not what was announced.
        OSError: If it cannot be written.
    """
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
        file.write(chunk)
    if file.tell() != length or found.hexdigest() != digest:
        raise EOFError(f"expected outputs of {length} bytes, got {file.tell()} or others")
    file.seek(0)


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise MeasurementError(f"expected a line of JSON, got {text[:80]!r}") from error
    if not isinstance(answer, dict) or not answer.keys() & {"state", "ok", "error", "missing"}:
        raise MeasurementError(f"expected an agent's answer, got {text[:80]!r}")
    return answer


def _from(rest: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    if rest:
        yield rest
    yield from chunks
