"""Measuring an artifact again, and saying whether it gives what was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from parefront.objectives.artifact import Artifact
from parefront.objectives.measurement import Measurement
from parefront.objectives.objective import Scene
from parefront.search.measures import Measure

TOLERANCE = 0.15
"""Relative difference of two timed values, beyond both intervals, that is more than noise."""
_TRIES = 3
"""Times a timed value is measured before a difference counts."""


def remeasured(
    artifact: Artifact,
    measures: Sequence[Measure],
    on: Mapping[str | None, Scene],
    recorded: Mapping[str, Measurement],
) -> tuple[dict[str, Measurement], dict[str, str]]:
    """Measures every objective again.

    A value that repeats exactly, such as a size or an accuracy, must be equal. A timed value is
    measured up to three times and must agree once: within the two intervals, or within
    `TOLERANCE`.

    Args:
        artifact: The artifact.
        measures: What the study measures.
        on: What to measure with, by target; what was recorded on a target that is missing here is
            left out.
        recorded: What was measured before, by objective name.

    Returns:
        The new measurements by objective name, and how those differ that do not agree.
    """
    found, differences = {}, {}
    for measure in measures:
        if measure.name not in recorded or measure.target not in on:
            continue
        objective = measure.objective
        before = recorded[measure.name]
        for _ in range(_TRIES if objective.noisy else 1):
            again = objective.measure(artifact, on[measure.target])
            agrees = _close(before, again) if objective.noisy else before.value == again.value
            if agrees:
                break
        found[measure.name] = again
        if not agrees:
            differences[measure.name] = (
                f"recorded {before.value:.6g} {before.unit}, now {again.value:.6g} {again.unit}"
            )
    return found, differences


def _close(before: Measurement, again: Measurement) -> bool:
    touching = before.low <= again.high and again.low <= before.high
    return touching or abs(again.value / before.value - 1) <= TOLERANCE
