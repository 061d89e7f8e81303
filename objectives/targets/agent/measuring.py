"""Measurements of an agent: one at a time, and none that nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parefront.errors import ParefrontError
from parefront.objectives.targets.agent.protocol import BEAT_SECONDS, CHUNK, line
from parefront.objectives.targets.agent.store import PART, Store
from parefront.objectives.targets.limits import Limits
from parefront.objectives.targets.local import LocalDevice

_log = logging.getLogger("parefront.agent")

Work = Callable[[LocalDevice], Any]


@dataclass
class _Job:
    kind: str
    device: LocalDevice
    work: Work
    names: Sequence[str]
    started: bool = False


class Measurements:
    """Makes measurements in the order in which they were asked for."""

    def __init__(self, store: Store, limits: Limits) -> None:
        """Measures files of a store within limits."""
        self._store = store
        self._limits = limits
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[dict[str, Any]]] = set()

    async def lines(
        self, kind: str, names: Sequence[str], timeout: float, work: Work
    ) -> AsyncGenerator[bytes, None]:
        """Makes a measurement, and tells how it goes; closing the generator calls it off.

        Args:
            kind: What to call it in the log.
            names: Files of the store that it needs.
            timeout: Seconds for each of its processes.
            work: Measures with a device and returns what goes into the last line.
        """
        missing = self._store.missing(names)
        if missing:
            yield line({"missing": missing})
            return
        job = _Job(kind, LocalDevice(timeout, self._limits), work, names)
        task = asyncio.create_task(self._measure(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while not task.done():
                yield line({"state": "measuring" if job.started else "waiting"})
                await asyncio.wait({task}, timeout=BEAT_SECONDS)
            yield line(task.result())
        finally:
            job.device.cancel()
            if not job.started:
                task.cancel()

    async def _measure(self, job: _Job) -> dict[str, Any]:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self._store.hold(job.names))
            except KeyError as error:  # removed between the two lines
                return {"missing": [error.args[0]]}
            async with self._turn:
                job.started = True
                return await asyncio.to_thread(_answer, job)

    async def send_file(
        self, lines: AsyncGenerator[bytes, None], path: Path
    ) -> AsyncGenerator[bytes, None]:
        """The lines, then the file that the work has written, which is removed in the end."""
        try:
            async with contextlib.aclosing(lines):
                async for part in lines:
                    yield part
            if path.exists():
                with path.open("rb") as file:
                    while chunk := await asyncio.to_thread(file.read, CHUNK):
                        yield chunk
        finally:
            # A measurement that was called off may still be writing it.
            path.unlink(missing_ok=True)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def outputs_path(folder: Path) -> Path:
    """A new name for a file with outputs."""
    return folder / f"{os.urandom(8).hex()}{PART}.npz"


def _answer(job: _Job) -> dict[str, Any]:
    began = time.monotonic()
    try:
        answer = {"ok": job.work(job.device)}
        outcome = "measured"
    except ParefrontError as error:
        answer = {"error": str(error)}
        outcome = str(error)
    except Exception as error:  # noqa: BLE001 (the one who asked must hear of it; the agent goes on)
        _log.exception("a measurement failed for want of care")
        answer = {"error": f"the agent failed: {type(error).__name__}: {error}"}
        outcome = "failed"
    _log.info("%s in %.1f s: %s", job.kind, time.monotonic() - began, outcome)
    return answer
