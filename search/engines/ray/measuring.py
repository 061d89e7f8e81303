"""A device whose measurements are made by an actor, apart from whoever trains."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from parefront.errors import DeviceAwayError, MeasurementError
from parefront.objectives.targets.catalog import runtime as runtime_of
from parefront.objectives.targets.device import Effort, Footprint, Timing
from parefront.objectives.targets.runtime import Array, Feeds
from parefront.objectives.targets.stored_feeds import stored
from parefront.search.engines.ray.measurer import Answer, Ask

T = TypeVar("T")

_BEAT = 10.0
"""Seconds between looks at whether the device is still there, while it measures."""
_SHORTEST = 1.0
"""Seconds that an answer may take even where nothing is waited for."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_ATTEMPTS = 3
"""How often a measurement is begun before the blame is on the measurement."""


@dataclass(frozen=True)
class MeasuringDevice:
    """Measures where an actor runs, which makes one measurement at a time.

    It can be handed to any worker of the cluster. Files go there by their content, once; a
    measurement whose actor died is begun again. An actor that cannot be reached, because it or
    its node is gone, is waited for.

    Attributes:
        name: Name of the target.
        actor: Ray's handle of the actor, a `Measurer`.
        patience: Seconds for which it is waited for.
        node: Ray's id of the node on which it was started.
        threads: Cores that measurements take there; 0 if they are made elsewhere, by an agent.
    """

    name: str
    actor: Any
    patience: float
    node: str
    threads: int

    def fingerprint(self, runtime: str, threads: int) -> Mapping[str, Any]:
        """What makes measurements there comparable."""
        found: Mapping[str, Any] = self._measure(
            Ask("fingerprint", {"runtime": runtime, "threads": threads}), {}
        )
        return found

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
        options = {"runtime": runtime, "threads": threads, "effort": effort}
        found: Timing = self._with_files("time", (candidate, baseline), feeds, options)
        return found

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
        options = {"runtime": runtime, "threads": threads, "runs": runs, "sessions": sessions}
        return float(self._with_files("reference_ms", (artifact,), feeds, options))

    def footprint(
        self, artifact: Path, feeds: Feeds, *, runtime: str, threads: int, sessions: int = 5
    ) -> Footprint:
        """What an artifact takes there besides time."""
        options = {"runtime": runtime, "threads": threads, "sessions": sessions}
        found: Footprint = self._with_files("footprint", (artifact,), feeds, options)
        return found

    def run(
        self, artifact: Path, feeds: Feeds, *, runtime: str, threads: int, batch_size: int
    ) -> Sequence[Array]:
        """Runs an artifact on many examples there."""
        options = {"runtime": runtime, "threads": threads, "batch_size": batch_size}
        found = self._with_files("run", (artifact,), feeds, options)
        return [np.array(output) for output in found]  # Ray's own cannot be written to

    def _with_files(
        self, method: str, artifacts: Sequence[Path], feeds: Feeds, options: Mapping[str, Any]
    ) -> Any:  # noqa: ANN401 (as the method says)
        form = runtime_of(options["runtime"]).format
        with ExitStack() as open_:
            try:
                folder = open_.enter_context(tempfile.TemporaryDirectory(prefix="parefront-"))
                inputs = stored(feeds, Path(folder) / "feeds.npz")
                names = [_name(path, form) for path in artifacts]
                ask = Ask(method, options, tuple(names), _name(inputs, "npz"), tuple(feeds))
            except (OSError, ValueError) as error:
                raise MeasurementError(f"the measurement cannot be started: {error}") from error
            paths = dict(zip(names, artifacts, strict=True)) | {str(ask.feeds): inputs}
            return self._measure(ask, paths)

    def _measure(self, ask: Ask, paths: Mapping[str, Path]) -> Any:  # noqa: ANN401 (as above)
        """Asks until there is an answer, and sends what is missing for it."""
        waiting = _Waiting(self)
        begun = lacking = 0
        while True:
            try:
                missing = waiting.answer(lambda: self.actor.missing.remote(ask.files)).missing
            except DeviceAwayError as error:
                error.begun = begun > 0
                raise
            sent = {name: [_put(paths[name])] for name in missing}
            begun += 1
            try:
                answer = waiting.result(self.actor.measure.remote(ask, sent))
            except _LostError as error:
                if begun >= _ATTEMPTS:
                    raise MeasurementError(
                        f"the process that measures on {self.name} died {begun} times in the "
                        f"middle of this measurement: {error}"
                    ) from error
                continue
            if not answer.missing:
                if answer.error is not None:
                    raise _with_names(answer.error, paths)
                return answer.value
            lacking += 1
            if lacking >= _ATTEMPTS:
                total = sum(path.stat().st_size for path in paths.values())
                raise MeasurementError(
                    f"the files of one measurement cannot be kept together for {self.name}, "
                    f"{total} bytes"
                )


class _LostError(Exception):
    """The actor died before it answered."""


class _Waiting:
    """Waits for an actor, as long as there is hope."""

    def __init__(self, device: MeasuringDevice) -> None:
        self._device = device
        self._heard = time.monotonic()
        self._pause = _FIRST_PAUSE

    def answer(self, ask: Callable[[], Any]) -> Answer:
        """The answer to something that is answered at once, asked again while there is none.

        Raises:
            DeviceAwayError: If there is none for as long as the patience lasts.
            ParefrontError: If the answer is an error.
        """
        while True:
            left = self._heard + self._device.patience - time.monotonic()
            try:
                answer: Answer = ray.get(ask(), timeout=max(_SHORTEST, left))
            except (RayActorError, GetTimeoutError) as error:
                if self._heard + self._device.patience <= time.monotonic():
                    raise DeviceAwayError(
                        f"the device {self._device.name} did not answer for "
                        f"{self._device.patience:g} s: {reason(error)}"
                    ) from error
                time.sleep(max(0.0, min(self._pause, left)))
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
                continue
            except RayError as error:
                raise MeasurementError(f"the measurement failed: {reason(error)}") from error
            self._heard, self._pause = time.monotonic(), _FIRST_PAUSE
            if answer.error is not None:
                raise answer.error
            return answer

    def result(self, pending: Any) -> Answer:  # noqa: ANN401 (Ray's reference)
        """The answer to a measurement, for which others may have to be made first.

        Raises:
            _LostError: If the actor died.
            DeviceAwayError: If it is there no more.
            MeasurementError: If Ray fails otherwise.
        """
        self._heard = time.monotonic()
        try:
            while not ray.wait([pending], timeout=_BEAT)[0]:
                self.answer(lambda: self._device.actor.missing.remote(()))
            answer: Answer = ray.get(pending)
        except RayActorError as error:
            raise _LostError(reason(error)) from error
        except RayError as error:
            raise MeasurementError(f"the measurement failed: {reason(error)}") from error
        except DeviceAwayError as error:
            error.begun = True
            with suppress(RayError):
                ray.cancel(pending)
            raise
        return answer


def reason(error: Exception) -> str:
    """What Ray says, in a line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # The first line says what happened, but of an actor that could not be made, the last says why.
    return lines[-1 if "creation task" in lines[0] else 0].strip()[:300]


def _name(path: Path, form: str) -> str:
    with path.open("rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}.{form}"


def _put(path: Path) -> Any:  # noqa: ANN401 (Ray's reference)
    try:
        return ray.put(path.read_bytes())
    except (OSError, RayError) as error:
        raise MeasurementError(f"{path.name} cannot be sent to the device: {error}") from error


def _with_names(error: Exception, paths: Mapping[str, Path]) -> Exception:
    """The error with the files' names here instead of those on the device's node."""
    text = str(error)
    for name, path in paths.items():
        text = text.replace(name, path.name)
    error.args = (text,)
    return error
