"""This machine as a device: every measurement in a fresh, pinned process of its own."""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout

from parefront.errors import MeasurementError
from parefront.objectives.targets.catalog import runtime as runtime_of
from parefront.objectives.targets.device import Effort, Footprint, Timing
from parefront.objectives.targets.fingerprint import fingerprint
from parefront.objectives.targets.footprint import Look, gathered
from parefront.objectives.targets.limits import Limits
from parefront.objectives.targets.rounds import Rounds
from parefront.objectives.targets.runtime import Array, Feeds
from parefront.objectives.targets.stored_feeds import stored
from parefront.objectives.targets.timing import Round

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_LONGEST_ANSWER = 1 << 20
_HINTS = {
    "SIGKILL": ", perhaps for want of memory",
    "SIGALRM": " for it took too long",
}


def lock_path() -> Path:
    """The file whose lock a measurement of this user on this machine holds."""
    return Path(tempfile.gettempdir()) / f"parefront-{os.getuid()}-{os.uname().nodename}.lock"


class LocalDevice:
    """Measures on this machine, one measurement at a time among all of the user's processes.

    A measurement runs on the last cores this process may use, in a session of its own, so that
    an interrupt from the terminal does not reach it; it dies with this process.
    """

    def __init__(self, timeout: float = 120.0, limits: Limits | None = None) -> None:
        """Sets the limits of one measurement.

        Args:
            timeout: Seconds after which a measurement counts as hanging; waiting for the
                measurements of others does not count.
            limits: What a measuring process may take; by default as much as this process.
        """
        self.timeout = timeout
        self.limits = limits
        self._cancelled = False
        self._process: subprocess.Popen[str] | None = None

    def cancel(self) -> None:
        """Ends the measurement under way in another thread, and refuses any later one."""
        self._cancelled = True
        process = self._process
        if process is not None:
            process.kill()

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
        effort: Effort,
    ) -> Timing:
        """Times a candidate against the baseline, each round in a fresh process."""
        request = {
            "kind": "time",
            "candidate": str(candidate.absolute()),
            "baseline": str(baseline.absolute()),
            "runs": effort.runs,
        }
        rounds = Rounds(effort)
        with self._turn():
            while not rounds.enough:
                began = monotonic()
                answer = self._ask(request, feeds, runtime, threads)
                rounds.add(Round(**answer), monotonic() - began)
        return rounds.timing()

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
        with self._turn():
            found = [float(self._ask(request, feeds, runtime, threads)) for _ in range(sessions)]
        return statistics.median(found)

    def footprint(
        self, artifact: Path, feeds: Feeds, *, runtime: str, threads: int, sessions: int = 5
    ) -> Footprint:
        """Loads and runs an artifact in fresh processes that watch themselves."""
        request = {"kind": "footprint", "artifact": str(artifact.absolute())}
        with self._turn():
            looks = [Look(**self._ask(request, feeds, runtime, threads)) for _ in range(sessions)]
        return gathered(looks)

    def run(
        self, artifact: Path, feeds: Feeds, *, runtime: str, threads: int, batch_size: int
    ) -> Sequence[Array]:
        """Runs an artifact on many examples in a process of its own."""
        with _scratch() as folder:
            outputs = folder / "outputs.npz"
            count = self.run_to_file(
                artifact, feeds, outputs, runtime=runtime, threads=threads, batch_size=batch_size
            )
            try:
                with np.load(outputs, allow_pickle=False) as file:
                    return [file[f"arr_{index}"] for index in range(count)]
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise MeasurementError(f"the outputs cannot be read: {error}") from error

    def run_to_file(
        self,
        artifact: Path,
        feeds: Feeds,
        outputs: Path,
        *,
        runtime: str,
        threads: int,
        batch_size: int,
    ) -> int:
        """As `run`, but writes the outputs to an `.npz` file as `arr_0`, `arr_1`, ...

        Returns:
            How many outputs there are.
        """
        request = {
            "kind": "run",
            "artifact": str(artifact.absolute()),
            "batch_size": batch_size,
            "outputs": str(outputs),
        }
        with self._turn():
            return int(self._ask(request, feeds, runtime, threads))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Waits until no other measurement is running on this machine, and keeps others out."""
        path = lock_path()
        if not path.parent.is_dir():  # it would be made
            raise MeasurementError(
                f"the measurement cannot be started: No such file or directory: '{path.parent}'"
            )
        # Whoever waits for the device stands in the anteroom, or a process that measures again and
        # again would take the lock back before any other had noticed that it was free.
        with self._locked(path.with_suffix(".next")) as anteroom, self._locked(path):
            anteroom.release()
            yield

    @contextmanager
    def _locked(self, path: Path) -> Iterator[FileLock]:
        lock = FileLock(path)
        while not lock.is_locked:
            self._go_on()
            with suppress(Timeout):  # now and then, to see whether anyone still waits
                lock.acquire(timeout=1.0)
        try:
            yield lock
        finally:
            lock.release()

    def _go_on(self) -> None:
        if self._cancelled:
            raise MeasurementError("the measurement was called off")

    def _ask(self, request: dict[str, Any], feeds: Feeds, runtime: str, threads: int) -> Any:  # noqa: ANN401 (JSON)
        """Has a worker process answer a request."""
        runtime_of(runtime)  # an unknown name is the user's mistake, not a failed measurement
        with _scratch() as folder:
            full = request | {
                "parent": os.getpid(),
                "cores": sorted(os.sched_getaffinity(0))[-threads:],
                "runtime": runtime,
                "threads": threads,
                "names": list(feeds),
                "feeds": str(stored(feeds, folder / "feeds.npz")),
            }
            if self.limits is not None:
                full["limits"] = asdict(self.limits)
                full["seconds"] = math.ceil(self.timeout) + 10
            output = self._work(json.dumps(full), threads)
        return _read(output)

    def _work(self, request: str, threads: int) -> str:
        """Runs a worker process to its end and returns what it wrote."""
        environment = os.environ | dict.fromkeys(_THREAD_VARIABLES, str(threads))
        # The worker finds parefront where this process found it, and nothing else in the
        # current directory (-P).
        environment["PYTHONPATH"] = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        self._go_on()
        # Into files, where a limit on their length holds, and not into this process's memory.
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
            code = self._run_worker(request, environment, output, complaints)
            self._go_on()
            if code < 0:
                name = signal.Signals(-code).name
                hint = _HINTS.get(name, "")
                raise MeasurementError(
                    f"the measuring process was killed by signal {-code} ({name}){hint}"
                )
            if code > 0:
                lines = _tail(complaints).strip().splitlines() or ["no message"]
                raise MeasurementError(
                    f"the measuring process failed with exit code {code}: {lines[-1][:400]}"
                )
            return _tail(output)

    def _run_worker(
        self, request: str, environment: Mapping[str, str], output: IO[bytes], complaints: IO[bytes]
    ) -> int:
        """Runs a worker process to its end and returns its exit code."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "parefront.objectives.targets.worker"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=complaints,
            env=environment,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self._process = process
        try:
            if self._cancelled:  # just before the line above
                process.kill()
            process.communicate(request, self.timeout)
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(
                f"the measurement did not end within {self.timeout:g} s and was stopped; if the "
                "model is that slow, raise the target's timeout"
            ) from error
        finally:
            self._process = None
            _stop(process)
        return process.returncode


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


def _tail(file: IO[bytes]) -> str:
    """The end of what a process wrote; an answer is never longer."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - _LONGEST_ANSWER))
    return file.read().decode(errors="replace")


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
