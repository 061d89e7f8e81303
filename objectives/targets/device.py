"""The contract of a device: the place where artifacts run and are timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from parefront.objectives.targets.runtime import Array, Feeds


@dataclass(frozen=True)
class Timing:
    """What a timing session found.

    Attributes:
        ratio: Latency of the candidate divided by that of the baseline; lower is faster.
        ratio_low: Lower end of the 95 % interval of `ratio`.
        ratio_high: Upper end of the 95 % interval of `ratio`.
        candidate_ms: Wall-clock percentiles of one candidate run in milliseconds, as
            `{"p50": ..., "p90": ..., "p99": ...}`.
        baseline_ms: The same for the baseline.
        blocks: How many pairs of blocks were timed.
        runs: How many candidate runs were timed in all.
        clock: `"cpu"` or `"wall"`: what the ratio was taken from.
    """

    ratio: float
    ratio_low: float
    ratio_high: float
    candidate_ms: Mapping[str, float]
    baseline_ms: Mapping[str, float]
    blocks: int
    runs: int
    clock: str


class Device(Protocol):
    """A place with runtimes, where one measurement at a time is made."""

    def fingerprint(self, runtime: str, threads: int) -> Mapping[str, Any]:
        """What makes measurements comparable: CPU, cores, memory, runtime version, threads.

        Measurements with different fingerprints never share a front.
        """
        ...

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
        """Times a candidate against the baseline in a fresh process of their own.

        Args:
            candidate: Artifact to time.
            baseline: Artifact to compare with.
            feeds: One batch of inputs, as the target will see it.
            runtime: Name of the runtime.
            threads: Threads the runtime may use.
            runs: Timed runs of the candidate, at least; a slow one has fewer, as the protocol says.

        Raises:
            MeasurementError: If an artifact cannot be loaded or run, or the process dies or
                hangs; the message gives the reason.
        """
        ...

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
        """Absolute latency of an artifact alone, to turn ratios into times.

        Args:
            artifact: Artifact to time, usually the baseline.
            feeds: One batch of inputs, as the target will see it.
            runtime: Name of the runtime.
            threads: Threads the runtime may use.
            runs: Timed runs in each session, as in `time`.
            sessions: Fresh processes to time it in.

        Returns:
            Milliseconds of one run: the median over sessions of each session's median, in the
            clock of `time`.

        Raises:
            MeasurementError: As `time`.
        """
        ...

    def run(
        self, artifact: Path, feeds: Feeds, *, runtime: str, threads: int, batch_size: int
    ) -> Sequence[Array]:
        """Runs an artifact on many examples in a process of its own.

        Args:
            artifact: Artifact to run.
            feeds: All examples, batch first.
            runtime: Name of the runtime.
            threads: Threads the runtime may use.
            batch_size: Examples in one run. An artifact with a fixed batch is fed that batch
                instead; a short last batch is filled up and the filling cut from the outputs.

        Returns:
            The outputs of all examples in order, batch first.

        Raises:
            MeasurementError: As `time`.
        """
        ...
