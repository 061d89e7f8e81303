"""One driver and a thousand workers: what it takes to keep them all busy.

The storage, the desk, the proposer, the surrogate and the rungs are those of a launch. The workers
are simulated: each is an end in a queue, after a log-normal time with a median of minutes, for
which nobody waits. So the driver does in a row all that it would do over hours, and what is timed
is its own work alone.
"""

from __future__ import annotations

import heapq
import math
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import optuna
import psycopg

from benchmarks.made_up_trials import OBJECTIVES, outcome
from benchmarks.watched_driver import NAME, Driver, driver, fill
from parefront.search.desk import Started
from parefront.search.records import Outcome, Status

MEDIAN_SECONDS = 300.0
"""Median time of a simulated trial."""
SPREAD = 0.8
"""Standard deviation of its logarithm: one in ten takes nearly three times as long."""


class Workers:
    """Simulated workers, each with a trial under way.

    Args:
        made: The driver.
        seed: Seed of how long trials take, and what they bring.
    """

    def __init__(self, made: Driver, seed: int) -> None:
        self._made, self._draws = made, random.Random(seed)
        self._queue: list[tuple[float, int, float, Started, Outcome]] = []
        self._now = 0.0

    def __len__(self) -> int:
        return len({started.number for _, _, _, started, _ in self._queue})

    def begin(self) -> None:
        """Gives one more worker a trial."""
        with self._made.watch.timing("ask"):
            started = self._made.desk.next()
        if isinstance(started, str):
            raise RuntimeError(f"expected a trial, got none because {started}")
        seconds = MEDIAN_SECONDS * math.exp(self._draws.gauss(0.0, SPREAD))
        ended = outcome(self._draws)
        for share in (*started.checks.rungs, 1.0):
            end = self._now + share * seconds
            heapq.heappush(self._queue, (end, started.number, share, started, ended))

    def leave(self) -> None:
        """Ends all trials under way."""
        for started in {each.number: each for _, _, _, each, _ in self._queue}.values():
            self._made.desk.finish(started, outcome(self._draws))
        self._queue.clear()

    def step(self) -> bool:
        """The next thing that happens; whether a trial ended, and another has begun."""
        self._now, _, share, started, ended = heapq.heappop(self._queue)
        if share < 1.0:
            values = {name: ended.measurements[name].value for name in OBJECTIVES}
            with self._made.watch.timing("judge"):
                rung = started.checks.judge(share, values)
            if rung.promoted:
                return False
            # Whatever else there is of this trial.
            self._queue = [each for each in self._queue if each[1] != started.number]
            heapq.heapify(self._queue)
            ended = ended.model_copy(
                update={
                    "status": Status.EARLY_STOPPED,
                    "measurements": {
                        name: each
                        for name, each in ended.measurements.items()
                        if name != "accuracy"
                    },
                    "rungs": (rung,),
                }
            )
        with self._made.watch.timing("finish"):
            self._made.desk.finish(started, ended)
        self.begin()
        return True


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What the driver of so many workers does after so many trials.

    Attributes:
        workers: Trials under way.
        trials: Trials that were over at the beginning.
        steps: Trials that ended while it was watched.
        trials_per_s: How many a second end, are judged on their way, and are replaced.
        milliseconds: Median and 99th percentile of each part, by name.
        transactions: Transactions of the database a trial.
        rows_read: Rows the database has given a trial.
        rows_written: Rows inserted or updated a trial.
        bytes: What the database has grown by a trial.
    """

    workers: int
    trials: int
    steps: int
    trials_per_s: float
    milliseconds: Mapping[str, tuple[float, float]]
    transactions: float
    rows_read: float
    rows_written: float
    bytes: float


@dataclass(frozen=True)
class Load:
    """Counters of a database.

    Attributes:
        transactions: Transactions that were committed or rolled back.
        rows_read: Rows that index and table scans have fetched.
        rows_written: Rows inserted or updated.
        bytes: Its size.
    """

    transactions: int
    rows_read: int
    rows_written: int
    bytes: int

    @classmethod
    def of(cls, made: Driver, url: str) -> Load:
        """The counters now."""
        # A backend of the database tells its counters at the end of a transaction, once a second.
        time.sleep(1.2)
        made.storage.get_study_id_from_name(NAME)
        time.sleep(0.2)
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT xact_commit + xact_rollback, tup_fetched, tup_inserted + tup_updated, "
                "pg_database_size(datname) FROM pg_stat_database WHERE datname = current_database()"
            ).fetchone()
        assert row is not None
        return cls(*(int(value) for value in row))


def watched(made: Driver, url: str, workers: Workers, trials: int, steps: int) -> Cell:
    """Watches a driver while so many trials end."""
    for _ in range(3):  # what is fitted once
        while not workers.step():
            pass
    made.watch.seconds.clear()
    before, ended = Load.of(made, url), 0
    made.watch.seconds.clear()
    start = time.perf_counter()
    while ended < steps:
        ended += workers.step()
    seconds = time.perf_counter() - start
    after = Load.of(made, url)
    return Cell(
        workers=len(workers),
        trials=trials,
        steps=steps,
        trials_per_s=steps / seconds,
        milliseconds={
            name: (1000 * statistics.median(found), 1000 * percentile(found, 0.99))
            for name, found in made.watch.seconds.items()
        },
        transactions=(after.transactions - before.transactions) / steps,
        rows_read=(after.rows_read - before.rows_read) / steps,
        rows_written=(after.rows_written - before.rows_written) / steps,
        bytes=(after.bytes - before.bytes) / steps,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them is not above.

    Example:
        >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5)
        2.0
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def simulate(url: str, widths: Sequence[int], lengths: Sequence[int], steps: int) -> Iterator[Cell]:
    """Watches one study while it grows.

    Args:
        url: An empty database.
        widths: Numbers of workers, ascending.
        lengths: Numbers of trials that are over, ascending, at which all widths are watched.
        steps: Trials that end while each is watched.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made, over = driver(url), 0
    for turn, length in enumerate(lengths):
        if over < length:
            fill(made, length - over, seed=1 + turn)
            over = length
        workers = Workers(made, seed=turn)
        for width in widths:
            while len(workers) < width:
                workers.begin()
            yield watched(made, url, workers, over, steps)
            over += steps
        over += len(workers)
        workers.leave()
