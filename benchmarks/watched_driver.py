"""A driver as a launch has it, of a study whose trials are made up, with a watch on its work."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial

from benchmarks.growth import default_space
from benchmarks.made_up_trials import OBJECTIVES, candidates, outcome, record
from parefront.objectives.objective import Bound
from parefront.search.budget import Budget
from parefront.search.checks import TrialChecks
from parefront.search.desk import Desk
from parefront.search.entry import Entry
from parefront.search.guide import Drawn, optuna_directions
from parefront.search.launch import Silent, Stop
from parefront.search.ledger import RUNG_KEY, Ledger
from parefront.search.locks import lock_of
from parefront.search.optuna_guide import OptunaGuide
from parefront.search.pipeline import Checks
from parefront.search.proposer import Proposal, Proposer
from parefront.search.records import RESULT_KEY, TRIAL_KEY, Owner, Rung, TrialRecord
from parefront.search.rungs import EarlyStopping, RungRule
from parefront.search.storage import open_storage
from parefront.search.surrogate import Axis, Surrogate
from parefront.spaces.space import Space

NAME = "thousand-workers"
"""Name of the study."""


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
