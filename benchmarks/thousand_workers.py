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
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import optuna
import psycopg
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial

from benchmarks.growth import default_space
from benchmarks.made_up_trials import OBJECTIVES, candidates, outcome, record
from parefront.objectives.objective import Bound
from parefront.search.budget import Budget
from parefront.search.checks import TrialChecks
from parefront.search.desk import Desk, Started
from parefront.search.guide import Drawn, optuna_directions
from parefront.search.launch import Silent, Stop
from parefront.search.ledger import RUNG_KEY, Entry, Ledger
from parefront.search.locks import lock_of
from parefront.search.optuna_guide import OptunaGuide
from parefront.search.pipeline import Checks
from parefront.search.proposer import Proposal, Proposer
from parefront.search.records import (
    RESULT_KEY,
    TRIAL_KEY,
    Outcome,
    Owner,
    Rung,
    Status,
    TrialRecord,
)
from parefront.search.rungs import EarlyStopping, RungRule
from parefront.search.storage import open_storage
from parefront.search.surrogate import Axis, Surrogate
from parefront.spaces.space import Space

MEDIAN_SECONDS = 300.0
"""Median time of a simulated trial."""
SPREAD = 0.8
"""Standard deviation of its logarithm: one in ten takes nearly three times as long."""
NAME = "thousand-workers"


def over_psycopg(url: str) -> str:
    """A URL of PostgreSQL that names its driver."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def plain(url: str) -> str:
    """A URL of PostgreSQL that names no driver."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


class Watch:
    """Collects how long things take, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Times what is done within."""
        start = time.perf_counter()
        yield
        self.seconds[name].append(time.perf_counter() - start)


class WatchedLedger(Ledger):
    """A ledger whose work is timed."""

    def __init__(
        self, study: optuna.Study, storage: BaseStorage, objectives: Sequence[str], watch: Watch
    ) -> None:
        super().__init__(study, storage, objectives)
        self._watch = watch

    def entries(self) -> list[Entry]:
        """All trials."""
        with self._watch.timing("read"):
            return super().entries()

    def reclaim(
        self, entries: Sequence[Entry], alive: Callable[[Owner], bool] = Owner.alive
    ) -> list[int]:
        """Ends trials whose processes died; there are none."""
        with self._watch.timing("reclaim"):
            return super().reclaim(entries, alive)

    def create(
        self,
        record: TrialRecord,
        parameters: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        system_attrs: Mapping[str, Any],
    ) -> int:
        """Creates a trial."""
        with self._watch.timing("create"):
            return super().create(record, parameters, distributions, system_attrs)


class WatchedProposer(Proposer):
    """A proposer whose work is timed."""

    watch: Watch

    def propose(self, entries: Sequence[Entry]) -> Proposal | None:
        """The next candidate."""
        with self.watch.timing("propose"):
            return super().propose(entries)


@dataclass(frozen=True)
class Driver:
    """What a launch has of its own.

    Attributes:
        desk: Hands out trials.
        ledger: Their records.
        storage: Where they are.
        space: The space.
        watch: What took how long.
    """

    desk: Desk
    ledger: Ledger
    storage: BaseStorage
    space: Space
    watch: Watch


def driver(url: str) -> Driver:
    """A driver with the parts of a launch, at a new study."""
    space, watch, goals = default_space(), Watch(), list(OBJECTIVES.values())
    storage = open_storage(url)
    study = optuna.create_study(
        study_name=NAME, storage=storage, directions=optuna_directions(goals)
    )
    ledger = WatchedLedger(study, storage, list(OBJECTIVES), watch)
    bounds = {"size": Bound(at_most=2e6)}
    surrogate = Surrogate(
        space,
        [
            Axis(
                name=name,
                direction=direction,
                log=name != "accuracy",
                target=None,
                everywhere=name != "latency",
                bound=bounds.get(name, Bound()),
                limit=1.0 if name == "accuracy" else None,
            )
            for name, direction in OBJECTIVES.items()
        ],
        seed=0,
        bounds=bounds,
        cost=lambda candidate: 1.0 + len(candidate.configs),
        ideas=space.anchors(),
    )
    proposer = WatchedProposer(
        space,
        surrogate,
        OptunaGuide(space, "random", goals, seed=0),
        goals,
        anchors=space.outset(),
        worth=lambda candidate: surrogate.hopeless(candidate, {}) is None,
    )
    proposer.watch = watch

    def checks(trial_id: int) -> Checks:
        number = ledger.number(trial_id)
        stopping = EarlyStopping(
            RungRule(), OBJECTIVES, {"size": True}, lambda share: ledger.rivals(share, number)
        )
        return TrialChecks(surrogate.hopeless, stopping, ledger, trial_id)

    desk = Desk(
        ledger=ledger,
        proposer=proposer,
        checks=checks,
        budget=Budget(),
        lock=lock_of(url, NAME),
        stop=Stop(),
        progress=Silent(),
    )
    return Driver(desk, ledger, storage, space, watch)


def fill(made: Driver, count: int, seed: int) -> None:
    """Adds trials that are over, each in one transaction, with the rungs on their way."""
    study = made.storage.get_study_id_from_name(NAME)
    draws, owner, now = random.Random(seed), Owner.me(), datetime.now()
    for candidate in candidates(made.space, count, seed + 1):
        drawn, ended = Drawn.of(candidate, made.space), outcome(draws)
        values = {name: ended.measurements[name].value for name in OBJECTIVES}
        rungs = {
            RUNG_KEY.format(share=share): Rung(
                share=share, values=values, rivals=0, promoted=True
            ).model_dump(mode="json")
            for share in RungRule().shares
        }
        violations = {f"constraints:{name}": value for name, value in ended.violations.items()}
        template = create_trial(
            state=TrialState.COMPLETE,
            values=list(values.values()),
            params=dict(drawn.parameters),
            distributions=dict(drawn.distributions),
            user_attrs=rungs
            | {
                TRIAL_KEY: record(candidate, owner).model_dump(mode="json"),
                RESULT_KEY: ended.model_dump(mode="json"),
            },
            system_attrs=violations,
        )
        template.datetime_start = template.datetime_complete = now - timedelta(days=1)
        made.storage.create_new_trial(study, template)


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
        with psycopg.connect(plain(url)) as connection:
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
    made, over = driver(over_psycopg(url)), 0
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
