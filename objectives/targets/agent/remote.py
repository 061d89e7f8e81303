"""Another machine as a device: asks the agent on it for every measurement."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import httpx
import numpy as np
from pydantic import TypeAdapter, ValidationError

from parefront.errors import DeviceAwayError, MeasurementError
from parefront.objectives.targets.agent.answers import last_line, save
from parefront.objectives.targets.agent.connection import Connection, Interruption, answer_of
from parefront.objectives.targets.agent.protocol import (
    BEAT_SECONDS,
    CHUNK,
    FEEDS_FORMAT,
    FINGERPRINT,
    Ask,
    FootprintAsk,
    Kind,
    ReferenceAsk,
    RunAsk,
    TimeAsk,
)
from parefront.objectives.targets.catalog import runtime as runtime_of
from parefront.objectives.targets.device import Effort, Footprint, Timing
from parefront.objectives.targets.runtime import Array, Feeds
from parefront.objectives.targets.stored_feeds import stored

T = TypeVar("T")

_SILENCE = 15 * BEAT_SECONDS
"""Seconds without a line after which an answer will not come: the agent, or the way, is gone."""
_ATTEMPTS = 5
"""How often a measurement is begun before the blame is on the measurement."""


@dataclass(frozen=True)
class _File:
    """A file that the agent needs."""

    kind: Kind
    path: Path
    format: str
    digest: str
    length: int

    @property
    def url(self) -> str:
        return f"/v1/{self.kind}/{self.digest}"


class RemoteDevice:
    """Measures on the machine of an agent, which makes one measurement at a time.

    Files that the agent does not have are uploaded first. When the agent cannot be reached, it is
    asked again, until there was no progress for as long as the patience lasts; a measurement that
    was broken off is asked for again from its beginning.
    """

    def __init__(
        self,
        url: str,
        token: str,
        timeout: float = 120.0,
        patience: float = 60.0,
        certificate: Path | None = None,
    ) -> None:
        """Names an agent; nothing is asked yet.

        Args:
            url: Address of the agent, such as `http://raspberrypi:8765`.
            token: Its token.
            timeout: Seconds after which a process of a measurement counts as hanging; waiting
                for the measurements of others does not count.
            patience: Seconds without any progress after which the agent counts as away.
            certificate: Certificates to trust, in PEM, instead of the system's; for a
                self-signed one, the agent's own.

        Raises:
            AgentError: If the address is none, or the token or certificate cannot be used.
        """
        self.timeout = timeout
        self._connection = Connection(url, token, patience=patience, certificate=certificate)

    def close(self) -> None:
        """Closes the connections; nothing can be asked any more."""
        self._connection.close()

    def fingerprint(self, runtime: str, threads: int) -> Mapping[str, Any]:
        """What makes measurements on the agent's machine comparable."""
        runtime_of(runtime)

        def ask(_: Callable[[], None]) -> Mapping[str, Any]:
            wanted = {"runtime": runtime, "threads": threads}
            with self._connection.send("GET", FINGERPRINT, params=wanted) as response:
                response.read()
                return answer_of(response)

        return self._connection.persist(ask)

    def time(
        self,
        candidate: Path,
        baseline: Path,
        feeds: Feeds,
        *,
        runtime: str,
        threads: int,
        effort: Effort,
    ) -> Timing:
        """Times a candidate against the baseline there."""
        with self._files(runtime, feeds, candidate, baseline) as (mine, other, inputs):
            ask = TimeAsk(
                **self._common(runtime, threads, feeds, inputs),
                candidate=mine.digest,
                baseline=other.digest,
                runs=effort.runs,
                precision=effort.precision,
                seconds=effort.seconds,
            )
            return self._measure("time", ask, (mine, other, inputs), Timing)

    def reference_ms(
        self,
        artifact: Path,
        feeds: Feeds,
        *,
        runtime: str,
        threads: int,
        runs: int = 200,
        sessions: int = 5,
    ) -> float:
        """Absolute latency of an artifact there."""
        with self._files(runtime, feeds, artifact) as (mine, inputs):
            ask = ReferenceAsk(
                **self._common(runtime, threads, feeds, inputs),
                artifact=mine.digest,
                runs=runs,
                sessions=sessions,
            )
            return self._measure("reference", ask, (mine, inputs), float)

    def footprint(
        self, artifact: Path, feeds: Feeds, *, runtime: str, threads: int, sessions: int = 5
    ) -> Footprint:
        """What an artifact takes there besides time."""
        with self._files(runtime, feeds, artifact) as (mine, inputs):
            ask = FootprintAsk(
                **self._common(runtime, threads, feeds, inputs),
                artifact=mine.digest,
                sessions=sessions,
            )
            return self._measure("footprint", ask, (mine, inputs), Footprint)

    def run(
        self, artifact: Path, feeds: Feeds, *, runtime: str, threads: int, batch_size: int
    ) -> Sequence[Array]:
        """Runs an artifact on many examples there."""
        with self._files(runtime, feeds, artifact) as (mine, inputs), _temporary() as file:
            ask = RunAsk(
                **self._common(runtime, threads, feeds, inputs),
                artifact=mine.digest,
                batch_size=batch_size,
            )
            answer = self._measure("run", ask, (mine, inputs), dict[str, int | str], file)
            try:
                with np.load(file, allow_pickle=False) as arrays:
                    return [arrays[f"arr_{index}"] for index in range(int(answer["outputs"]))]
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise MeasurementError(f"the outputs cannot be read: {error}") from error

    def _common(self, runtime: str, threads: int, feeds: Feeds, inputs: _File) -> dict[str, Any]:
        return {
            "runtime": runtime,
            "threads": threads,
            "timeout": self.timeout,
            "feeds": inputs.digest,
            "names": tuple(feeds),
        }

    @contextlib.contextmanager
    def _files(self, runtime: str, feeds: Feeds, *artifacts: Path) -> Iterator[tuple[_File, ...]]:
        """What a measurement needs at the agent: artifacts, then inputs."""
        format_ = runtime_of(runtime).format
        try:
            with tempfile.TemporaryDirectory(prefix="parefront-") as folder:
                inputs = stored(feeds, Path(folder) / "feeds.npz")
                found = [_file("artifacts", path, format_) for path in artifacts]
                yield (*found, _file("feeds", inputs, FEEDS_FORMAT))
        except (OSError, ValueError) as error:
            raise MeasurementError(f"the measurement cannot be started: {error}") from error

    def _measure(
        self,
        kind: str,
        ask: Ask,
        files: tuple[_File, ...],
        shape: type[T],
        output: IO[bytes] | None = None,
    ) -> T:
        """Uploads what is missing, asks, and reads the answer."""
        begun = 0
        lacking = 0

        def attempt(progress: Callable[[], None]) -> dict[str, Any]:
            nonlocal begun, lacking
            measuring = False

            def heard(state: str) -> None:
                nonlocal measuring, begun
                progress()
                begun += state == "measuring" and not measuring
                measuring = measuring or state == "measuring"

            for file in files:
                self._offer(file, progress)
            try:
                with self._connection.send(
                    "POST", f"/v1/{kind}", json=ask.model_dump(mode="json"), silence=_SILENCE
                ) as response:
                    answer, rest = last_line(response.iter_bytes(CHUNK >> 4), heard)
                    progress()
                    if output is not None and "ok" in answer:
                        output.seek(0)
                        output.truncate()
                        save(rest, output, answer["ok"]["bytes"], answer["ok"]["sha256"])
            except (httpx.TransportError, EOFError) as error:
                if begun >= _ATTEMPTS:
                    raise MeasurementError(
                        f"the agent at {self._connection.url} was lost {begun} times in the middle "
                        f"of this measurement: {error}"
                    ) from error
                raise Interruption(str(error)) from error
            if "missing" in answer:
                lacking += 1
                if lacking >= _ATTEMPTS:
                    raise MeasurementError(
                        f"the agent at {self._connection.url} cannot keep the files of one "
                        f"measurement together, {sum(file.length for file in files)} bytes; give "
                        "it more with --disk"
                    )
                raise Interruption("it has lost a file")
            return answer

        try:
            answer = self._connection.persist(attempt)
        except DeviceAwayError as error:
            error.begun = begun > 0
            raise
        if "error" in answer:
            raise MeasurementError(_with_names(str(answer["error"]), files))
        try:
            return TypeAdapter(shape).validate_python(answer.get("ok"))
        except ValidationError as error:
            raise MeasurementError(f"expected a measurement, got {str(answer)[:200]}") from error

    def _offer(self, file: _File, progress: Callable[[], None]) -> None:
        """Uploads a file if the agent does not have it."""
        wanted: dict[str, str | int] = {"format": file.format}
        with self._connection.send(
            "HEAD",
            file.url,
            params=wanted | {"bytes": file.length},
            absent=True,
            silence=_SILENCE,
        ) as response:
            there = response.is_success
        progress()
        if there:
            return
        with self._connection.send(
            "PUT",
            file.url,
            params=wanted,
            content=_chunks(file.path, progress),
            headers={"Content-Length": str(file.length)},
        ):
            progress()


def _file(kind: Kind, path: Path, format_: str) -> _File:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return _File(kind, path, format_, digest, path.stat().st_size)


def _chunks(path: Path, progress: Callable[[], None]) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
            progress()  # it was taken


@contextlib.contextmanager
def _temporary() -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as file:
        yield file


def _with_names(reason: str, files: tuple[_File, ...]) -> str:
    """A reason with the files' names here instead of those at the agent."""
    for file in files:
        reason = reason.replace(f"{file.digest}.{file.format}", file.path.name)
    return reason
