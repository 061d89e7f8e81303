"""Measuring again where noise decides what is on the front.

Where the intervals of timed objectives leave open whether a candidate is on the front, measuring
with more effort settles it, one way or the other; the accuracy of a file on given examples does not
change. What is measured next is the candidate that is expected to settle most, for itself and for
those it may beat.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from parefront.errors import TrialError
from parefront.objectives.front_probability import settling_gain
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


def gains(
    frame: pd.DataFrame, objectives: Sequence[ObjectiveSummary], noisy: Collection[str]
) -> dict[int, float]:
    """What measuring a trial again is expected to settle, on all targets together.

    Args:
        frame: The trials, with their fronts.
        objectives: All that was measured.
        noisy: Names of those that get sharper when they are measured again.

    Returns:
        By trial number, largest first, how much of the open questions about the fronts it would
        settle (see `parefront.objectives.front_probability.settling_gain`). Trials that would
        settle nothing are left out: where every probability is below 0.05 or above 0.95, all are.
    """
    total = np.zeros(len(frame))
    for target in dict.fromkeys((None, *(each.target for each in objectives))):
        used = of_target(objectives, target)
        end = f"_{target}" if target else ""
        may = np.flatnonzero(frame[f"front_probability{end}"] > 0)
        if not len(may) or not any(each.name in noisy for each in used):
            continue
        values, low, high = (
            frame[[f"{each.column}{part}" for each in used]].to_numpy(dtype=float)[may]
            for part in ("", "_low", "_high")
        )
        maximize = [each.maximize for each in used]
        timed = [each.name in noisy for each in used]
        total[may] += settling_gain(values, low, high, maximize, timed)
    order = np.argsort(-total, kind="stable")
    return {int(frame["trial"].iloc[row]): float(total[row]) for row in order if total[row] > 0}


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
    """Measures candidates again until nothing is left to settle or the time is spent.

    Each is measured again once, with the precision three times as fine; what is open then is a tie.

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
    noisy = {measure.name for measure in timed}
    scenes = {name: _finer(scene) for name, scene in pipeline.scenes.items()}
    outcomes = {entry.trial.number: entry.outcome for entry in opened.ledger.entries()}
    skipped: set[int] = set()
    while not stopped() and time.monotonic() - began < seconds:
        done = opened.measured_again.keys() | skipped
        open_ = gains(frame(), objectives, noisy)
        trial = next((each for each in open_ if each not in done), None)
        if trial is None:
            break
        phase(f"measuring trial {trial} again: what is on the front depends on it")
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


def _finer(scene: Scene) -> Scene:
    effort = scene.effort
    seconds = max(effort.seconds, min(effort.seconds * SECONDS, MOST_SECONDS))
    return replace(
        scene,
        effort=replace(effort, precision=effort.precision * PRECISION, seconds=seconds),
    )
