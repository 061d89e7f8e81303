"""The routes of an agent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import asdict
from typing import Annotated, Any, cast
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Send

from parefront.errors import MeasurementError, UsageError
from parefront.objectives.targets.agent.facts import facts
from parefront.objectives.targets.agent.formats import Formats
from parefront.objectives.targets.agent.gate import Gate
from parefront.objectives.targets.agent.measuring import Measurements, digest_of, outputs_path
from parefront.objectives.targets.agent.protocol import (
    CHUNK,
    ERROR_HEADER,
    FEEDS_FORMAT,
    FINGERPRINT,
    HEALTH,
    VERSION,
    Ask,
    FootprintAsk,
    Kind,
    ReferenceAsk,
    RunAsk,
    TimeAsk,
)
from parefront.objectives.targets.agent.refusal import Refusal
from parefront.objectives.targets.agent.settings import Settings
from parefront.objectives.targets.agent.store import Store
from parefront.objectives.targets.device import Effort
from parefront.objectives.targets.limits import Limits
from parefront.objectives.targets.local import LocalDevice
from parefront.objectives.targets.stored_feeds import StoredFeeds

_DIGEST = re.compile(r"[0-9a-f]{64}")
_ZIP = b"PK"
_UPLOAD_SILENCE = 60.0
"""Seconds without a byte after which an upload gives back its room."""


class _Lines(StreamingResponse):
    """Lines that end, with what makes them, as soon as nobody reads them."""

    def __init__(self, lines: AsyncGenerator[bytes, None]) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self._lines = lines

    async def stream_response(self, send: Send) -> None:
        async with contextlib.aclosing(self._lines):
            await super().stream_response(send)


class _Routes:
    """What an agent answers."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._formats = Formats(allow_native=settings.allow_native)
        limits = Limits(memory_bytes=settings.memory, file_bytes=settings.longest)
        self._measurements = Measurements(store, limits)
        self.router = APIRouter()
        add = self.router.add_api_route
        add(HEALTH, self.health, methods=["GET"])
        add(FINGERPRINT, self.fingerprint, methods=["GET"])
        add("/v1/{kind}/{sha256}", self.has, methods=["HEAD"])
        add("/v1/{kind}/{sha256}", self.take, methods=["PUT"])
        for name, route in (
            ("time", self.time),
            ("reference", self.reference),
            ("footprint", self.footprint),
            ("run", self.run),
        ):
            add(f"/v1/{name}", route, methods=["POST"], response_model=None)

    async def health(self) -> Mapping[str, str]:
        return {"status": "ok", "version": VERSION}

    async def fingerprint(
        self, runtime: str, threads: Annotated[int, Query(ge=1)]
    ) -> Mapping[str, Any]:
        self._formats.of(runtime)
        self._check_threads(threads)
        return await asyncio.to_thread(facts, runtime, threads)

    async def has(
        self,
        kind: Kind,
        sha256: str,
        format_: Annotated[str, Query(alias="format")] = FEEDS_FORMAT,
        length: Annotated[int, Query(alias="bytes", ge=0)] = 0,
    ) -> Response:
        if self._name(kind, sha256, format_) in self._store:
            return Response()
        self._store.check(length)
        return Response(status_code=404)

    async def take(
        self,
        request: Request,
        kind: Kind,
        sha256: str,
        format_: Annotated[str, Query(alias="format")] = FEEDS_FORMAT,
    ) -> Response:
        name = self._name(kind, sha256, format_)
        waiting = bytearray()
        with self._store.upload(name, int(request.headers["content-length"])) as upload:
            checked = kind != "feeds"
            chunks = request.stream()
            try:
                while True:
                    async with asyncio.timeout(_UPLOAD_SILENCE):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        break
                    waiting += chunk
                    if not checked and len(waiting) >= len(_ZIP):
                        checked = True
                        if not waiting.startswith(_ZIP):
                            raise Refusal(422, "expected inputs as an .npz file")
                    if len(waiting) >= CHUNK:
                        await asyncio.to_thread(upload.write, bytes(waiting))
                        waiting.clear()
            except ClientDisconnect as error:
                raise Refusal(400, "the upload was broken off") from error
            except TimeoutError as error:
                raise Refusal(408, f"nothing came for {_UPLOAD_SILENCE:g} s") from error
            if not checked:
                raise Refusal(422, "expected inputs as an .npz file")
            await asyncio.to_thread(upload.write, bytes(waiting))
            await asyncio.to_thread(upload.finish)
        return Response(status_code=201)

    async def time(self, ask: TimeAsk) -> Response:
        if ask.seconds > self._settings.time_limit:
            raise self._too_long("seconds", ask.seconds)
        candidate, baseline = (self._artifact(ask, one) for one in (ask.candidate, ask.baseline))
        feeds = self._feeds(ask)

        def work(device: LocalDevice) -> dict[str, Any]:
            timing = device.time(
                self._store.path(candidate),
                self._store.path(baseline),
                feeds,
                runtime=ask.runtime,
                threads=ask.threads,
                effort=Effort(ask.runs, ask.precision, ask.seconds),
            )
            return asdict(timing)

        names = [candidate, baseline, feeds.path.name]
        return _Lines(self._measurements.lines("time", names, ask.timeout, work))

    async def reference(self, ask: ReferenceAsk) -> Response:
        artifact, feeds = self._artifact(ask, ask.artifact), self._feeds(ask)

        def work(device: LocalDevice) -> float:
            return device.reference_ms(
                self._store.path(artifact),
                feeds,
                runtime=ask.runtime,
                threads=ask.threads,
                runs=ask.runs,
                sessions=ask.sessions,
            )

        names = [artifact, feeds.path.name]
        return _Lines(self._measurements.lines("reference", names, ask.timeout, work))

    async def footprint(self, ask: FootprintAsk) -> Response:
        artifact, feeds = self._artifact(ask, ask.artifact), self._feeds(ask)

        def work(device: LocalDevice) -> dict[str, Any]:
            found = device.footprint(
                self._store.path(artifact),
                feeds,
                runtime=ask.runtime,
                threads=ask.threads,
                sessions=ask.sessions,
            )
            return asdict(found)

        names = [artifact, feeds.path.name]
        return _Lines(self._measurements.lines("footprint", names, ask.timeout, work))

    async def run(self, ask: RunAsk) -> Response:
        artifact, feeds = self._artifact(ask, ask.artifact), self._feeds(ask)
        outputs = outputs_path(self._store.folder)

        def work(device: LocalDevice) -> dict[str, Any]:
            count = device.run_to_file(
                self._store.path(artifact),
                feeds,
                outputs,
                runtime=ask.runtime,
                threads=ask.threads,
                batch_size=ask.batch_size,
            )
            try:
                length, digest = outputs.stat().st_size, digest_of(outputs)
            except OSError as error:
                raise MeasurementError(f"the outputs cannot be read: {error}") from error
            return {"outputs": count, "bytes": length, "sha256": digest}

        names = [artifact, feeds.path.name]
        lines = self._measurements.lines("run", names, ask.timeout, work)
        return _Lines(self._measurements.send_file(lines, outputs))

    def _artifact(self, ask: Ask, digest: str) -> str:
        """Name of an artifact, after a look at what every measurement has."""
        self._check_threads(ask.threads)
        if ask.timeout > self._settings.time_limit:
            raise self._too_long("timeout", ask.timeout)
        return self._name("artifacts", digest, self._formats.of(ask.runtime))

    def _feeds(self, ask: Ask) -> StoredFeeds:
        return StoredFeeds(
            self._store.path(self._name("feeds", ask.feeds, FEEDS_FORMAT)), ask.names
        )

    def _name(self, kind: Kind, digest: str, format_: str) -> str:
        if not _DIGEST.fullmatch(digest):
            raise Refusal(400, f"expected a SHA-256 in hexadecimal, got {digest[:80]!r}")
        if kind == "feeds" and format_ != FEEDS_FORMAT:
            raise Refusal(415, f"expected inputs as {FEEDS_FORMAT}, got {format_[:20]!r}")
        if kind == "artifacts":
            self._formats.check(format_)
        return f"{digest}.{format_}"

    def _check_threads(self, threads: int) -> None:
        cores = len(os.sched_getaffinity(0))
        if threads > cores:
            raise Refusal(
                400,
                f"expected at most {cores} threads, one for each core of the device, got {threads}",
            )

    def _too_long(self, what: str, seconds: float) -> Refusal:
        return Refusal(
            400,
            f"expected a {what} of at most {self._settings.time_limit:g} s, got {seconds:g} s; the "
            "agent's --time-limit sets the limit",
        )


def create_app(settings: Settings, token: str, store: Store) -> ASGIApp:
    """The application of an agent.

    Args:
        settings: How it is run.
        token: What those who ask must know.
        store: Where it keeps files.
    """
    # It tells nobody but the one who asks: no pages of documentation, no telemetry. Versions of
    # FastAPI without telemetry ignore the argument.
    quiet: Any = dict.fromkeys(("tracing", "metrics", "logs", "operation_spans"), False)
    app = FastAPI(
        openapi_url=None, docs_url=None, redoc_url=None, telemetry=quiet | {"auto_configure": False}
    )
    app.include_router(_Routes(settings, store).router)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(UsageError, _refused)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _refused)
    return Gate(app, token, refusal_response)


def refusal_response(refusal: Refusal) -> Response:
    """A refusal, with its reason in the body and in a header."""
    headers = {ERROR_HEADER: quote(refusal.reason[:1000])}
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": refusal.reason}, refusal.status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, Refusal):
        refusal = error
    elif isinstance(error, RequestValidationError):
        first = cast("Mapping[str, Any]", error.errors()[0])
        where = ".".join(map(str, first["loc"]))
        refusal = Refusal(422, f"{where}: {first['msg']}, got {str(first.get('input'))[:80]!r}")
    elif isinstance(error, HTTPException):
        what = f"{request.method} {request.url.path[:80]}"
        refusal = Refusal(error.status_code, f"{what}: {error.detail}")
    else:
        refusal = Refusal(400, str(error))
    return refusal_response(refusal)
