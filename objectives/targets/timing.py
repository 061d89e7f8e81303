"""One round of the timing protocol: a candidate against the baseline, in turn, in one process.

The speed of a core drifts by tens of percent within seconds, so absolute times of two sessions
cannot be compared. Short blocks of runs of the two models alternate instead, and each pair of
blocks gives one ratio in which the drift cancels. For one thread the blocks are measured in CPU
time, which other processes on the core hardly disturb. `parefront.objectives.targets.rounds`
joins rounds of several processes into a value with an interval.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parefront.errors import MeasurementError
from parefront.objectives.targets.runtime import Feeds, Session

Floats = NDArray[np.float64]
Clock = Callable[[], int]
"""Nanoseconds from any origin."""

BLOCK_RUNS = 10
MIN_BLOCKS = 5

STEADY = 0.05
"""A model is warm when three pieces of its warm-up in a row differ by less than this."""
_WARM_UP_RUNS = 10
_WARM_UP_PIECES = 3
_WARM_UP_NS = 1_000_000_000
"""Time after which a model counts as warm, steady or not."""
_SHORTEST_BLOCK_NS = 1_000_000
"""A block is much longer than the resolution and the cost of reading a clock."""
_LONGEST_BLOCK_NS = 500_000_000
"""A block is shorter than the drift that it must not see."""


@dataclass(frozen=True)
class Round:
    """What one process found.

    Attributes:
        ratio: Median over pairs of blocks of the candidate's time divided by the baseline's.
        candidate_ms: Wall-clock percentiles of one candidate run in milliseconds, as
            `{"p50": ..., "p90": ..., "p99": ...}`.
        baseline_ms: The same for the baseline.
        blocks: Pairs of blocks.
        runs: Timed runs of the candidate.
        clock: `"cpu"` or `"wall"`: what the ratio was taken from.
        stolen: Share of the timed blocks, 0 to 1, in which other work had the cores.
    """

    ratio: float
    candidate_ms: Mapping[str, float]
    baseline_ms: Mapping[str, float]
    blocks: int
    runs: int
    clock: str
    stolen: float


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
    others_ns: Clock = lambda: 0,
) -> Round:
    """Times a candidate against the baseline in alternating blocks.

    Each pair of blocks is 10 runs of the one and 10 of the other, in an order that is shuffled
    but balanced. Blocks of models faster than 0.1 ms have more runs, of models slower than 50 ms
    fewer.

    Args:
        candidate: Model to time.
        baseline: Model to compare with.
        feeds: Inputs of the candidate.
        baseline_feeds: Inputs of the baseline, if they are others.
        runs: Timed runs of a candidate that takes 0.1 to 50 ms, rounded up to whole blocks.
        threads: Threads of the runtime.
        seed: Seed of the order.
        clocks: Where time is read.
        others_ns: Time that other processes have had on the cores of this one so far; used for
            more than one thread, where CPU time does not tell.

    Raises:
        MeasurementError: If a model cannot be run.
    """
    name, clock = clocks.of(threads)
    first = _Model(candidate, feeds, clock, clocks.wall)
    second = _Model(baseline, feeds if baseline_feeds is None else baseline_feeds, clock,
                    clocks.wall)  # fmt: skip
    for model in (first, second):
        model.warm_up()
    before = clocks.wall(), others_ns()
    ratios = _ratios(first, second, _blocks(runs), np.random.default_rng(seed))
    wall, others = clocks.wall() - before[0], others_ns() - before[1]
    timed, spent = first.timed_ns + second.timed_ns, first.spent_ns + second.spent_ns
    stolen = 1 - spent / timed if name == "cpu" else others / (wall * threads)
    return Round(
        ratio=float(np.median(ratios)),
        candidate_ms=first.percentiles_ms(),
        baseline_ms=second.percentiles_ms(),
        blocks=len(ratios),
        runs=first.runs,
        clock=name,
        stolen=min(max(stolen, 0.0), 1.0),
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


def others_ns(cores: Sequence[int], *, root: Path = Path("/")) -> int:
    """Nanoseconds that some cores have spent on other processes than this one.

    Linux counts in steps of 10 ms. What cannot be read counts as no time.

    Args:
        cores: Numbers of the cores this process is pinned to.
        root: Root of the tree with `/proc`.
    """
    try:
        lines = (root / "proc/stat").read_text().splitlines()
        busy = 0
        for line in lines:
            name, *ticks = line.split()
            if name in {f"cpu{core}" for core in cores}:
                user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, ticks)
                busy += user + nice + system + irq + softirq + steal
    except (OSError, ValueError):
        return 0
    return busy * (1_000_000_000 // os.sysconf("SC_CLK_TCK")) - time.process_time_ns()


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
        self.timed_ns = 0
        self.spent_ns = 0

    def warm_up(self) -> None:
        """Runs until caches and lazy initialisation have settled, and sizes the blocks."""
        began = self._wall()
        pieces: list[float] = []
        while True:
            pieces.append(self._piece(began))
            last = pieces[-_WARM_UP_PIECES:]
            settled = len(last) == _WARM_UP_PIECES and max(last) <= min(last) * (1 + STEADY)
            if settled or self._wall() - began >= _WARM_UP_NS:
                break
        typical = max(1.0, last[-1])
        enough = math.ceil(_SHORTEST_BLOCK_NS / typical)
        affordable = max(1, int(_LONGEST_BLOCK_NS / typical))
        self._block_runs = min(max(BLOCK_RUNS, enough), affordable)

    def _piece(self, began: int) -> float:
        """Median nanoseconds of a few runs, fewer when the time for warming up is over."""
        stamps = [self._wall()]
        while len(stamps) <= _WARM_UP_RUNS and (
            len(stamps) == 1 or stamps[-1] - began < _WARM_UP_NS
        ):
            self._session.run(self._feeds)
            stamps.append(self._wall())
        return float(np.median([after - before for before, after in pairwise(stamps)]))

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
        self.timed_ns += stamps[-1] - stamps[0]
        self.spent_ns += spent
        return spent / self._block_runs

    @property
    def runs(self) -> int:
        return len(self._runs_ns)

    def percentiles_ms(self) -> dict[str, float]:
        """Wall-clock percentiles of all timed runs, in milliseconds."""
        values = np.percentile(self._runs_ns, [50, 90, 99]) / 1e6
        return dict(zip(("p50", "p90", "p99"), map(float, values), strict=True))
