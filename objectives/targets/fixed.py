"""A device that does not measure time: for searches that must come out the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parefront.errors import MeasurementError
from parefront.objectives.targets.batches import run_batches
from parefront.objectives.targets.catalog import runtime as runtime_of
from parefront.objectives.targets.device import Effort, Footprint, Timing
from parefront.objectives.targets.runtime import Array, Feeds

MS_PER_BYTE = 1e-6


class FixedDevice:
    """Pretends that a run takes one nanosecond for each byte of the file.

    Equal files have equal "latencies" on every machine, so a search can be repeated to the last
    digit. Its latencies say nothing about speed. Outputs are real: files are run in this
    process.
    """

    def fingerprint(self, runtime: str, threads: int) -> Mapping[str, Any]:
        """Nothing about the machine, for nothing depends on it."""
        return {
            "device": "fixed",
            "runtime": runtime,
            "runtime_version": runtime_of(runtime).version(),
            "threads": threads,
        }

    def time(
        self,
        candidate: Path,
        baseline: Path,
        feeds: Feeds,  # noqa: ARG002
        *,
        runtime: str,  # noqa: ARG002
        threads: int,  # noqa: ARG002
        effort: Effort,  # noqa: ARG002
    ) -> Timing:
        """The ratio of the files' lengths, with an interval of no width."""
        mine, other = _milliseconds(candidate), _milliseconds(baseline)
        ratio = mine / other
        return Timing(
            ratio=ratio,
            ratio_low=ratio,
            ratio_high=ratio,
            candidate_ms=dict.fromkeys(("p50", "p90", "p99"), mine),
            baseline_ms=dict.fromkeys(("p50", "p90", "p99"), other),
            blocks=0,
            runs=0,
            clock="fixed",
            rounds=0,
            disturbed=0,
        )

    def reference_ms(
        self,
        artifact: Path,
        feeds: Feeds,  # noqa: ARG002
        *,
        runtime: str,  # noqa: ARG002
        threads: int,  # noqa: ARG002
        runs: int = 200,  # noqa: ARG002
        sessions: int = 5,  # noqa: ARG002
    ) -> float:
        """One nanosecond for each byte of the file, in milliseconds."""
        return _milliseconds(artifact)

    def footprint(
        self,
        artifact: Path,
        feeds: Feeds,  # noqa: ARG002
        *,
        runtime: str,  # noqa: ARG002
        threads: int,  # noqa: ARG002
        sessions: int = 5,  # noqa: ARG002
    ) -> Footprint:
        """As if a file were loaded in its latency, took its length in memory, and no energy."""
        return Footprint(
            load_ms=(_milliseconds(artifact),),
            peak_memory_bytes=(artifact.stat().st_size,),
            energy_mj=(),
            energy_note="nothing was measured: the protocol is 'fixed'",
        )

    def run(
        self, artifact: Path, feeds: Feeds, *, runtime: str, threads: int, batch_size: int
    ) -> Sequence[Array]:
        """Runs an artifact on many examples in this process."""
        return run_batches(runtime_of(runtime).open(artifact, threads), feeds, batch_size)


def _milliseconds(artifact: Path) -> float:
    try:
        length = artifact.stat().st_size
    except OSError as error:
        raise MeasurementError(f"cannot read {artifact.name}: {error.strerror}") from error
    if length == 0:
        raise MeasurementError(f"{artifact.name} is empty")
    return length * MS_PER_BYTE
