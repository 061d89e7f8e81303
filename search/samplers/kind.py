"""What the catalog knows of a sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import optuna


@dataclass(frozen=True)
class SamplerKind:
    """A sampler of Optuna, and how to use it.

    Attributes:
        make: Makes one that draws a single candidate, from the seed of its random numbers.
        most_trials: The most trials that it is shown, so that asking stays fast in long studies.
        sequence: Whether all candidates are points of one sequence: every draw has the study's
            seed then, and the number of the trial is the point's place in the sequence. Otherwise
            every draw has a seed of its own.
    """

    make: Callable[[int], optuna.samplers.BaseSampler]
    most_trials: int
    sequence: bool = False
