"""The contract of a device: the place where artifacts run and are timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from parefront.objectives.targets.runtime import Array, Feeds


@dataclass(frozen=True)
class Effort:
    """What a timing may cost.

    Attributes:
        runs: Timed runs of the candidate in each round, at least; one slower than 50 ms has fewer.
        precision: Half-width of the interval, relative to the value, at which no round is added.
        seconds: Time after which no round is added, whatever the precision.
    """

    runs: int = 200
    precision: float = 0.02
    seconds: float = 3.0


@dataclass(frozen=True)
class Timing:
    """What the rounds of a timing found, each in a fresh process.

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
        rounds: In how many fresh processes.
        disturbed: Rounds that were thrown away because other work took the cores meanwhile.
    """

    ratio: float
    ratio_low: float
    ratio_high: float
    candidate_ms: Mapping[str, float]
    baseline_ms: Mapping[str, float]
    blocks: int
    runs: int
    clock: str
    rounds: int
    disturbed: int


@dataclass(frozen=True)
class Footprint:
    """What an artifact takes besides time, in a process that does nothing else.

    Attributes:
        load_ms: Wall-clock milliseconds of each load, from a file in the system's cache to a
            session that is ready to run.
        peak_memory_bytes: For each process, the most memory that loading and running one batch
            added to what the process held before (resident set).
        energy_mj: For each process, millijoules of one run; empty where the device has no counter.
        energy_note: Where the energy was read, or why it was not.
    """

    load_ms: tuple[float, ...]
    peak_memory_bytes: tuple[int, ...]
    energy_mj: tuple[float, ...]
    energy_note: str


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
        effort: Effort,
    ) -> Timing:
        """Times a candidate against the baseline in fresh processes of their own.

        Args:
            candidate: Artifact to time.
            baseline: Artifact to compare with.
            feeds: One batch of inputs, as the target will see it.
            runtime: Name of the runtime.
            threads: Threads the runtime may use.
            effort: What it may cost.

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

    def footprint(
        self, artifact: Path, feeds: Feeds, *, runtime: str, threads: int, sessions: int = 5
    ) -> Footprint:
        """What an artifact takes besides time.

        Args:
            artifact: Artifact to load and run.
            feeds: One batch of inputs, as the target will see it.
            runtime: Name of the runtime.
            threads: Threads the runtime may use.
            sessions: Fresh processes to look in.

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
