"""This machine as a device: every measurement in a fresh, pinned process of its own."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from parefront.errors import MeasurementError
from parefront.objectives.targets.catalog import runtime as runtime_of
from parefront.objectives.targets.device import Timing
from parefront.objectives.targets.fingerprint import fingerprint
from parefront.objectives.targets.runtime import Array, Feeds

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def lock_path() -> Path:
    """The file whose lock a measurement of this user on this machine holds."""
    return Path(tempfile.gettempdir()) / f"parefront-{os.getuid()}-{os.uname().nodename}.lock"


class LocalDevice:
    """Measures on this machine, one measurement at a time among all of the user's processes.

    A measurement runs on the last cores this process may use, in a session of its own, so that
    an interrupt from the terminal does not reach it; it dies with this process.
    """

    def __init__(self, timeout: float = 120.0) -> None:
        """Sets the limit of one measurement.

        Args:
            timeout: Seconds after which a measurement counts as hanging; waiting for the
                measurements of others does not count.
        """
        self.timeout = timeout

    def fingerprint(self, runtime: str, threads: int) -> Mapping[str, Any]:
        """What makes measurements on this machine comparable."""
        return fingerprint(runtime, threads)

    def time(
        self,
        candidate: Path,
        baseline: Path,
        feeds: Feeds,
        *,
        runtime: str,
        threads: int,
        runs: int,
    ) -> Timing:
        """Times a candidate against the baseline in a fresh process of their own."""
        answer = self._ask(
            {
                "kind": "time",
                "candidate": str(candidate.absolute()),
                "baseline": str(baseline.absolute()),
                "runs": runs,
            },
            feeds,
            runtime,
            threads,
        )
        return Timing(**answer)

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
        """Absolute latency of an artifact: CPU time for one thread, wall time for more."""
        request = {"kind": "reference", "artifact": str(artifact.absolute()), "runs": runs}
        found = [float(self._ask(request, feeds, runtime, threads)) for _ in range(sessions)]
        return statistics.median(found)

    def run(
        self, artifact: Path, feeds: Feeds, *, runtime: str, threads: int, batch_size: int
    ) -> Sequence[Array]:
        """Runs an artifact on many examples in a process of its own."""
        with _scratch() as folder:
            outputs = folder / "outputs.npz"
            request = {
                "kind": "run",
                "artifact": str(artifact.absolute()),
                "batch_size": batch_size,
                "outputs": str(outputs),
            }
            count = self._ask(request, feeds, runtime, threads)
            try:
                with np.load(outputs, allow_pickle=False) as file:
                    return [file[f"arr_{index}"] for index in range(count)]
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise MeasurementError(f"the outputs cannot be read: {error}") from error

    def _ask(self, request: dict[str, Any], feeds: Feeds, runtime: str, threads: int) -> Any:  # noqa: ANN401 (JSON)
        """Has a worker process answer a request, when no other measurement is running."""
        runtime_of(runtime)  # an unknown name is the user's mistake, not a failed measurement
        with _scratch() as folder:
            arrays = folder / "feeds.npz"
            np.savez(arrays, *feeds.values(), allow_pickle=False)
            full = request | {
                "parent": os.getpid(),
                "cores": sorted(os.sched_getaffinity(0))[-threads:],
                "runtime": runtime,
                "threads": threads,
                "names": list(feeds),
                "feeds": str(arrays),
            }
            with FileLock(lock_path()):
                output = self._work(json.dumps(full), threads)
        return _read(output)

    def _work(self, request: str, threads: int) -> str:
        """Runs a worker process to its end and returns what it wrote."""
        environment = os.environ | dict.fromkeys(_THREAD_VARIABLES, str(threads))
        # The worker finds parefront where this process found it, and nothing else in the
        # current directory (-P).
        environment["PYTHONPATH"] = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "parefront.objectives.targets.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        try:
            output, complaints = process.communicate(request, self.timeout)
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(
                f"the measurement did not end within {self.timeout:g} s and was stopped; if the "
                "model is that slow, raise the target's timeout"
            ) from error
        finally:
            _stop(process)
        code = process.returncode
        if code < 0:
            name = signal.Signals(-code).name
            hint = ", perhaps for want of memory" if name == "SIGKILL" else ""
            raise MeasurementError(
                f"the measuring process was killed by signal {-code} ({name}){hint}"
            )
        if code > 0:
            lines = complaints.strip().splitlines() or ["no message"]
            raise MeasurementError(
                f"the measuring process failed with exit code {code}: {lines[-1][:400]}"
            )
        return output


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for a measurement's files; what fails on the way to it is its failure."""
    try:
        with tempfile.TemporaryDirectory(prefix="parefront-") as folder:
            yield Path(folder)
    except (OSError, ValueError) as error:
        raise MeasurementError(f"the measurement cannot be started: {error}") from error


def _stop(process: subprocess.Popen[str]) -> None:
    """Kills a process and everything it started, if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _read(output: str) -> Any:  # noqa: ANN401 (JSON)
    """What a worker answered.

    Raises:
        MeasurementError: If it reports a failure, or what it wrote is no answer.
    """
    try:
        answer = json.loads(output)
    except json.JSONDecodeError as error:
        raise MeasurementError(f"expected a JSON answer, got {output[:200]!r}") from error
    if not isinstance(answer, dict) or not answer.keys() & {"ok", "error"}:
        raise MeasurementError(f"expected an answer or an error, got {output[:200]!r}")
    if "error" in answer:
        raise MeasurementError(answer["error"])
    return answer["ok"]
