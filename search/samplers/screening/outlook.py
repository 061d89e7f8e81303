"""What further trials are expected to bring."""

from __future__ import annotations

import math
from dataclasses import dataclass

import moocore

from parefront.search.samplers.screening.ranking import Ranking
from parefront.search.samplers.screening.scoring import Scorer

_STEPS = 8
"""Trials that are played through one by one at most."""


@dataclass(frozen=True)
class Outlook:
    """What the next trial is expected to bring.

    Attributes:
        gain: Hypervolume that the best candidate is expected to add, as a share of that of the
            front; infinite if there is no front yet.
        volume: Hypervolume of the front in the same unit: the box from the best to the worst values
            seen is 1. The reference point lies a little beyond the worst.
    """

    gain: float
    volume: float


def outlook_of(ranking: Ranking) -> Outlook:
    """What the best of the candidates is expected to bring."""
    volume = _volume(ranking)
    gain = float(ranking.scorer.gains(ranking.free)[0].max()) if ranking.free else 0.0
    return Outlook(_share(gain, volume), volume)


def rest_of(ranking: Ranking, trials: int) -> float:
    """Hypervolume that so many trials are expected to add, as a share of that of the front.

    The best candidate is taken to end as predicted, then the best given that, and so on for a few
    steps. None of the others is taken to bring more than the last of these.

    Args:
        ranking: The candidates.
        trials: How many trials there may still be.
    """
    volume, total, gain = _volume(ranking), 0.0, 0.0
    scorer, free, running = ranking.scorer, list(ranking.free), list(ranking.running)
    steps = min(trials, _STEPS, len(free))
    for step in range(steps):
        if step:
            scorer = Scorer(ranking.moment, ranking.scorer.frame, running, fixed=True)
        gains = scorer.gains(free)[0]
        best = int(gains.argmax())
        gain = float(gains[best])
        total += gain
        running.append(free.pop(best))
    # Fewer steps than were wanted have used up the space.
    left = trials - steps if steps == _STEPS else 0
    return _share(total + gain * left, volume)


def _volume(ranking: Ranking) -> float:
    history, frame = ranking.moment.history, ranking.scorer.frame
    if not history.front:
        return 0.0
    scaled = (history.values[history.front] - frame.low) / frame.width
    return float(moocore.hypervolume(scaled, ref=frame.far))


def _share(gain: float, volume: float) -> float:
    if volume > 0.0:
        return gain / volume
    return math.inf if gain > 0.0 else 0.0
