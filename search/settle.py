"""Measuring again where noise decides what is on the front.

A candidate that another one beats by the estimates, but not beyond the intervals, stays on the
front. Where the undecided interval is that of a noisy objective, such as latency, measuring both
again with more effort settles it, one way or the other; the accuracy of a file on given examples
does not change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from parefront.errors import ParefrontError
from parefront.objectives.artifact import Artifact
from parefront.objectives.front import dominated
from parefront.objectives.measurement import Measurement
from parefront.objectives.objective import Scene
from parefront.search.measures import Measure
from parefront.search.opened import OpenedStudy
from parefront.search.pipeline import Pipeline
from parefront.search.summary import ObjectiveSummary, of_target

PRECISION = 1 / 3
SECONDS = 4.0
"""How much finer, and for how many times longer, a value is measured the second time."""


def undecided(
    frame: pd.DataFrame, objectives: Sequence[ObjectiveSummary], noisy: frozenset[str]
) -> list[int]:
    """Trials that are worth measuring again, those on the front first.

    Args:
        frame: The trials, with their fronts.
        objectives: The objectives that make the front.
        noisy: Names of those that give another value each time they are measured.

    Returns:
        Numbers of the candidates that are on the front for want of precision alone, and of those
        that beat them by the estimates.
    """
    rows = frame[frame["feasible"].astype(bool)].reset_index(drop=True)
    if rows.empty or not objectives:
        return []
    maximize = [each.maximize for each in objectives]
    values, low, high = (
        rows[[f"{each.column}{end}" for each in objectives]].to_numpy(dtype=float)
        for end in ("", "_low", "_high")
    )
    sharp_low, sharp_high = low.copy(), high.copy()
    for axis, each in enumerate(objectives):
        if each.name in noisy:
            sharp_low[:, axis] = sharp_high[:, axis] = values[:, axis]
    now = dominated(values, low, high, maximize)
    then = dominated(values, sharp_low, sharp_high, maximize)
    doubtful = np.flatnonzero(~now & then)
    signed = values * np.where(maximize, -1.0, 1.0)
    rivals = {
        int(rival)
        for row in doubtful
        for rival in np.flatnonzero(
            (signed <= signed[row]).all(axis=1) & (signed < signed[row]).any(axis=1) & ~then
        )
    }
    chosen = [*doubtful.tolist(), *sorted(rivals - set(doubtful.tolist()))]
    return [int(rows["trial"].iloc[row]) for row in chosen]


def settle(
    opened: OpenedStudy,
    pipeline: Pipeline,
    frame: Callable[[], pd.DataFrame],
    objectives: Sequence[ObjectiveSummary],
    *,
    seconds: float,
    stopped: Callable[[], bool],
    phase: Callable[[str], None],
) -> int:
    """Measures undecided candidates again until all is settled or the time is spent.

    Each is measured again once, with the precision three times as fine; what is undecided then is
    a tie.

    Args:
        opened: The study.
        pipeline: What it measures with.
        frame: Gives the trials as they are now.
        objectives: All its objectives.
        seconds: Time after which no further measurement begins.
        stopped: Whether to end at once.
        phase: Told what takes a while.

    Returns:
        How many candidates were measured again.
    """
    began, count = time.monotonic(), 0
    measures = [each for each in pipeline.measures if each.objective.noisy]
    noisy = frozenset(each.name for each in measures)
    scenes = {name: _finer(scene) for name, scene in pipeline.scenes.items()}
    entries = {entry.trial.number: entry for entry in opened.ledger.entries()}
    while not stopped() and time.monotonic() - began < seconds:
        done = opened.measured_again
        waiting = [
            trial
            for target in dict.fromkeys((None, *(each.target for each in objectives)))
            for trial in undecided(frame(), of_target(objectives, target), noisy)
            if trial not in done
        ]
        if not waiting:
            break
        trial = waiting[0]
        phase(f"measuring trial {trial} again: its place on the front is undecided")
        outcome = entries[trial].outcome
        if outcome is None or outcome.artifact_sha256 is None:
            break
        artifact = pipeline.store.get(outcome.artifact_sha256, pipeline.format)
        opened.keep_again(trial, _measured(artifact, measures, scenes))
        count += 1
    return count


def _measured(
    artifact: Artifact, measures: Sequence[Measure], scenes: dict[str | None, Scene]
) -> dict[str, Measurement]:
    found = {}
    for each in measures:
        try:
            found[each.name] = each.objective.measure(artifact, scenes[each.target])
        except ParefrontError:  # it was measured once, and that stands
            continue
    return found


def _finer(scene: Scene) -> Scene:
    effort = scene.effort
    return replace(
        scene,
        effort=replace(
            effort, precision=effort.precision * PRECISION, seconds=effort.seconds * SECONDS
        ),
    )
