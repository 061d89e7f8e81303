"""The timing protocol: a candidate against the baseline, in turn, in one process.

The speed of a core drifts by tens of percent within seconds, so absolute times of two sessions
cannot be compared. Short blocks of runs of the two models alternate instead, and each pair of
blocks gives one ratio in which the drift cancels. For one thread the blocks are measured in CPU
time, which other processes on the core hardly disturb.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from parefront.errors import MeasurementError
from parefront.objectives.targets.device import Timing
from parefront.objectives.targets.runtime import Feeds, Session

Floats = NDArray[np.float64]
Clock = Callable[[], int]
"""Nanoseconds from any origin."""

WARM_UP_RUNS = 20
BLOCK_RUNS = 10
MIN_BLOCKS = 5
RESAMPLES = 2000

_WARM_UP_NS = 1_000_000_000
"""Time after which a slow model counts as warm."""
_SHORTEST_BLOCK_NS = 1_000_000
"""A block is much longer than the resolution and the cost of reading a clock."""
_LONGEST_BLOCK_NS = 500_000_000
"""A block is shorter than the drift that it must not see."""

BETWEEN_EQUALS = 0.02
BETWEEN_E_FOLD = 0.025
"""Spread of ratios from one process to the next, as a standard deviation of their logarithm.

One process does not see all the noise: the layout of its memory and the state of the machine
stay the same in it. In fresh processes on two shared cores, ratios near 1 spread by 2 %, near
0.2 and 5 by 3 to 5 %, near 0.085 by 5 to 7 % and near 0.03 by 9 to 10 %, for a small and a large
model feel the state of the machine differently; resampling the blocks of one process found 1.5 to
3 % in all of them, and its intervals missed the median of the processes up to 6 times in 10. The
two figures are the spread at a ratio of 1 and its growth with each factor of e. With them, the
intervals of 20 processes for each of 8 pairs held the pair's median 156 times of 160.
"""

WALL_FACTOR = 2.0
"""How much larger that spread is in wall time, which other processes disturb.

Two threads on two cores with other work on both: the same pairs spread by 3 to 14 % between 0.1
and 10, and by 11 to 29 % beyond.
"""


@dataclass(frozen=True)
class Clocks:
    """What time is read from.

    Attributes:
        cpu: CPU time of this process, all threads together.
        wall: Time as a user waits for it.
    """

    cpu: Clock = time.process_time_ns
    wall: Clock = time.perf_counter_ns

    def of(self, threads: int) -> tuple[str, Clock]:
        """Name and clock of the ratios: CPU time means latency for one thread only."""
        return ("cpu", self.cpu) if threads == 1 else ("wall", self.wall)


def time_pair(
    candidate: Session,
    baseline: Session,
    feeds: Feeds,
    baseline_feeds: Feeds | None = None,
    *,
    runs: int,
    threads: int,
    seed: int = 0,
    clocks: Clocks = Clocks(),
) -> Timing:
    """Times a candidate against the baseline in alternating blocks.

    Each pair of blocks is 10 runs of the one and 10 of the other, in an order that is shuffled
    but balanced. The score is the median of the pairs' ratios; the interval joins the bootstrap
    of that median with the spread between processes (`BETWEEN_EQUALS`). Blocks of models faster
    than 0.1 ms have more runs, of models slower than 50 ms fewer.

    Args:
        candidate: Model to time.
        baseline: Model to compare with.
        feeds: Inputs of the candidate.
        baseline_feeds: Inputs of the baseline, if they are others.
        runs: Timed runs of a candidate that takes 0.1 to 50 ms, rounded up to whole blocks.
        threads: Threads of the runtime.
        seed: Seed of the order and of the bootstrap.
        clocks: Where time is read.

    Raises:
        MeasurementError: If a model cannot be run.
    """
    name, clock = clocks.of(threads)
    first = _Model(candidate, feeds, clock, clocks.wall)
    second = _Model(baseline, feeds if baseline_feeds is None else baseline_feeds, clock,
                    clocks.wall)  # fmt: skip
    for model in (first, second):
        model.warm_up()
    rng = np.random.default_rng(seed)
    ratios = _ratios(first, second, _blocks(runs), rng)
    ratio, low, high = interval(ratios, rng, wall=name == "wall")
    return Timing(
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        candidate_ms=first.percentiles_ms(),
        baseline_ms=second.percentiles_ms(),
        blocks=len(ratios),
        runs=first.runs,
        clock=name,
    )


def time_alone(
    session: Session,
    feeds: Feeds,
    *,
    runs: int,
    threads: int,
    clocks: Clocks = Clocks(),
) -> float:
    """Milliseconds of one run: the median of blocks, by the clock `time_pair` would use.

    Raises:
        MeasurementError: If the model cannot be run.
    """
    model = _Model(session, feeds, clocks.of(threads)[1], clocks.wall)
    model.warm_up()
    return float(np.median([model.block() for _ in range(_blocks(runs))])) / 1e6


def interval(ratios: Floats, rng: np.random.Generator, *, wall: bool) -> tuple[float, float, float]:
    """The median of block ratios with its 95 % interval over processes.

    The bootstrap's interval and the spread between processes are joined as independent errors
    of the logarithm.

    Args:
        ratios: Ratio of each pair of blocks.
        rng: Source of the resamples.
        wall: Whether the ratios are of wall time.

    Returns:
        `(ratio, low, high)`, with `low <= ratio <= high`.
    """
    logs = np.log(ratios)
    ratio = float(np.median(logs))
    picks = rng.integers(0, len(logs), (RESAMPLES, len(logs)))
    low, high = np.percentile(np.median(logs[picks], axis=1), [2.5, 97.5])
    spread = math.hypot(BETWEEN_EQUALS, BETWEEN_E_FOLD * ratio) * (WALL_FACTOR if wall else 1.0)
    between = 1.96 * spread
    below = math.hypot(max(0.0, ratio - low), between)
    above = math.hypot(max(0.0, high - ratio), between)
    return math.exp(ratio), math.exp(ratio - below), math.exp(ratio + above)


def _blocks(runs: int) -> int:
    return max(MIN_BLOCKS, math.ceil(runs / BLOCK_RUNS))


def _ratios(first: _Model, second: _Model, pairs: int, rng: np.random.Generator) -> Floats:
    """Times pairs of blocks; each model goes first in half of them, in random order."""
    found = []
    for first_leads in rng.permutation(np.arange(pairs) % 2 == 0):
        if first_leads:
            mine = first.block()
            other = second.block()
        else:
            other = second.block()
            mine = first.block()
        found.append(mine / other)
    return np.array(found)


class _Model:
    """A session with its inputs, its block length and the times of its runs."""

    def __init__(self, session: Session, feeds: Feeds, clock: Clock, wall: Clock) -> None:
        self._session = session
        self._feeds = feeds
        self._clock = clock
        self._wall = wall
        self._runs_ns: list[int] = []
        self._block_runs = BLOCK_RUNS

    def warm_up(self) -> None:
        """Runs until caches and lazy initialisation have settled, and sizes the blocks."""
        stamps = [self._wall()]
        while len(stamps) <= WARM_UP_RUNS and stamps[-1] - stamps[0] < _WARM_UP_NS:
            self._session.run(self._feeds)
            stamps.append(self._wall())
        spent = [after - before for before, after in pairwise(stamps)]
        typical = max(1.0, float(np.median(spent[len(spent) // 2 :])))
        enough = math.ceil(_SHORTEST_BLOCK_NS / typical)
        affordable = max(1, int(_LONGEST_BLOCK_NS / typical))
        self._block_runs = min(max(BLOCK_RUNS, enough), affordable)

    def block(self) -> float:
        """Times one block; returns the mean nanoseconds of a run by the clock."""
        run, feeds, wall = self._session.run, self._feeds, self._wall
        if self._block_runs >= BLOCK_RUNS:
            run(feeds)  # the other model has emptied the caches
        stamps = [0] * (self._block_runs + 1)
        start = self._clock()
        stamps[0] = wall()
        for index in range(1, len(stamps)):
            run(feeds)
            stamps[index] = wall()
        spent = self._clock() - start
        if spent <= 0:
            raise MeasurementError(f"the clock stood still for {self._block_runs} runs")
        self._runs_ns += (after - before for before, after in pairwise(stamps))
        return spent / self._block_runs

    @property
    def runs(self) -> int:
        return len(self._runs_ns)

    def percentiles_ms(self) -> dict[str, float]:
        """Wall-clock percentiles of all timed runs, in milliseconds."""
        values = np.percentile(self._runs_ns, [50, 90, 99]) / 1e6
        return dict(zip(("p50", "p90", "p99"), map(float, values), strict=True))
