"""Measuring again where noise decides what is on the front.

A candidate that another one beats by the estimates, but not beyond the intervals, stays on the
front. Where the undecided interval is that of a timed objective, measuring both again with more
effort settles it, one way or the other; the accuracy of a file on given examples does not change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from dataclasses import replace

import numpy as np
import pandas as pd

from parefront.errors import TrialError
from parefront.objectives.front import dominated
from parefront.objectives.latency import Latency
from parefront.objectives.objective import Scene
from parefront.objectives.throughput import Throughput
from parefront.search.opened import OpenedStudy
from parefront.search.pipeline import Pipeline
from parefront.search.summary import ObjectiveSummary, of_target

PRECISION = 1 / 3
SECONDS = 4.0
"""How much finer, and for how many times longer, a value is measured the second time."""
MOST_SECONDS = 120.0
"""More than this is not taken for it, unless it was taken the first time."""
TIMED = (Latency, Throughput)
"""Objectives whose values get sharper with more effort; the others look five times, always."""


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
    timed = [m for m in pipeline.measures if m.goal.optimize and isinstance(m.objective, TIMED)]
    noisy = frozenset(measure.name for measure in timed)
    scenes = {name: _finer(scene) for name, scene in pipeline.scenes.items()}
    outcomes = {entry.trial.number: entry.outcome for entry in opened.ledger.entries()}
    skipped: set[int] = set()
    while not stopped() and time.monotonic() - began < seconds:
        waiting = _waiting(frame(), objectives, noisy, opened.measured_again.keys() | skipped)
        if waiting is None:
            break
        trial = waiting
        phase(f"measuring trial {trial} again: its place on the front is undecided")
        outcome = outcomes.get(trial)
        skipped.add(trial)  # whatever comes of it, once is enough for this launch
        if outcome is None or outcome.artifact_sha256 is None:
            continue
        try:
            artifact = pipeline.store.get(outcome.artifact_sha256, pipeline.format)
            found = {m.name: m.objective.measure(artifact, scenes[m.target]) for m in timed}
        except TrialError:  # it was measured once, and that stands
            continue
        opened.keep_again(trial, found)
        count += 1
    return count


def _waiting(
    frame: pd.DataFrame,
    objectives: Sequence[ObjectiveSummary],
    noisy: frozenset[str],
    done: Set[int],
) -> int | None:
    """The next trial to measure again, on whatever target it is undecided."""
    for target in dict.fromkeys((None, *(each.target for each in objectives))):
        for trial in undecided(frame, of_target(objectives, target), noisy):
            if trial not in done:
                return trial
    return None


def _finer(scene: Scene) -> Scene:
    effort = scene.effort
    seconds = max(effort.seconds, min(effort.seconds * SECONDS, MOST_SECONDS))
    return replace(
        scene,
        effort=replace(effort, precision=effort.precision * PRECISION, seconds=seconds),
    )
