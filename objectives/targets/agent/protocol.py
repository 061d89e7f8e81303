"""What agent and device say to each other over HTTP.

`GET /v1/health` is open; everything else needs `Authorization: Bearer TOKEN`. Files are named by
their SHA-256: `HEAD` and `PUT /v1/artifacts/{sha256}?format=onnx`, and the same for
`/v1/feeds/{sha256}`, which are `.npz` files with `arr_0`, `arr_1`, ... A `HEAD` with `bytes=N` also
says whether so many bytes would be taken. `GET /v1/fingerprint` has `runtime` and `threads`.

`POST /v1/time`, `/v1/reference`, `/v1/footprint` and `/v1/run` make measurements. The answer
is lines of JSON: `{"state": "waiting"}` or `{"state": "measuring"}` every second, so that each side
notices when the other is gone, and one last line: `{"missing": [...]}` with the files to upload,
`{"error": "reason"}`, or `{"ok": ...}`. After the last line of `/v1/run`, `{"ok": {"outputs":
count, "bytes": N, "sha256": ...}}`, N bytes of an `.npz` file follow.

A refusal has a status from 400 and its reason in the body, `{"error": "reason"}`, and in the header
`Parefront-Error`, percent-encoded, for an answer to `HEAD` has no body.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

HEALTH = "/v1/health"
FINGERPRINT = "/v1/fingerprint"
ERROR_HEADER = "Parefront-Error"
VERSION_HEADER = "Parefront-Version"
"""Both sides must measure in the same way, so an agent refuses another version of parefront."""
VERSION = version("parefront")
BEAT_SECONDS = 1.0
"""Time between two lines of an answer that is still to come."""
LONGEST_REQUEST = 1 << 20
"""Bytes of a request that is not an upload."""
CHUNK = 1 << 20
"""Bytes that are read and written at once."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Kind = Literal["artifacts", "feeds"]
FEEDS_FORMAT = "npz"

_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=10**6)]


class Ask(BaseModel):
    """What every measurement needs.

    Attributes:
        runtime: Name of the runtime.
        threads: Threads the runtime may use.
        timeout: Seconds after which a process of the measurement counts as hanging.
        feeds: SHA-256 of the inputs' file.
        names: The inputs' names, in the order of the arrays.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    runtime: str
    threads: _Count
    timeout: _Seconds
    feeds: Digest
    names: tuple[str, ...]


class TimeAsk(Ask):
    """What timing a candidate needs; `runs`, `precision` and `seconds` are its effort."""

    candidate: Digest
    baseline: Digest
    runs: _Count
    precision: _Seconds
    seconds: _Seconds


class ReferenceAsk(Ask):
    """What an absolute latency needs."""

    artifact: Digest
    runs: _Count
    sessions: Annotated[int, Field(ge=1, le=100)]


class FootprintAsk(Ask):
    """What a footprint needs."""

    artifact: Digest
    sessions: Annotated[int, Field(ge=1, le=100)]


class RunAsk(Ask):
    """What running an artifact on many examples needs."""

    artifact: Digest
    batch_size: _Count


def line(answer: dict[str, Any]) -> bytes:
    """One line of an answer."""
    return json.dumps(answer).encode() + b"\n"
