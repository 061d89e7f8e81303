"""The desk of a launch while a device is away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from parefront.errors import EngineError, TrialError
from parefront.search.budget import Budget
from parefront.search.desk import Desk, Started
from parefront.search.entry import MAX_DEATHS
from parefront.search.launch import Silent, Stop
from parefront.search.locks import LockFile
from parefront.search.pauses import Pauses
from parefront.search.pipeline import NoChecks
from parefront.search.records import Outcome, Status
from parefront.spaces.space import Candidate
from tests.search.fakes import space

PRUNED = next(each for each in space().anchors() if each.configs)


class Told:
    """Remembers what a ledger is told."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.counts = True

    def finish(self, trial_id: int, outcome: Outcome) -> bool:
        self.outcomes.append(outcome)
        return self.counts


def desk(folder: Path, ledger: Told, **more: Any) -> Desk:
    return Desk(
        ledger=cast("Any", ledger),
        proposer=cast("Any", None),
        checks=lambda _: NoChecks(),
        budget=Budget(trials=3),
        lock=LockFile(folder / "lock"),
        stop=Stop(),
        progress=Silent(),
        **more,
    )


class Heard(Silent):
    """Remembers which trials ended."""

    def __init__(self) -> None:
        self.outcomes: dict[int, Outcome] = {}

    def ended(self, trial: int, outcome: Outcome) -> None:
        self.outcomes[trial] = outcome


@pytest.mark.parametrize("counts", [True, False])
def test_whoever_watches_hears_of_each_end(tmp_path: Path, counts: bool) -> None:
    told, heard = Told(), Heard()
    told.counts = counts  # not if another launch has ended the trial
    at = replace(desk(tmp_path, told), progress=heard)
    fine = Outcome(status=Status.COMPLETE)
    at.finish(replace(started(0), number=1), fine)
    at.give_up(replace(started(0), number=2), "its node left")
    assert list(heard.outcomes) == [1, 2]
    assert (heard.outcomes[1] == fine) == counts
    assert counts or {each.status for each in heard.outcomes.values()} == {Status.INTERRUPTED}


def started(deaths: int, candidate: Candidate = PRUNED) -> Started:
    return Started(1, 1, candidate, deaths, NoChecks())


def test_a_candidate_that_the_device_often_goes_away_from_fails(tmp_path: Path) -> None:
    told = Told()
    gone = Outcome(status=Status.INTERRUPTED, reason="the device pi is away", device_away=True)
    for deaths in range(MAX_DEATHS):
        desk(tmp_path, told).finish(started(deaths), gone)
    *before, last = told.outcomes
    assert before == [gone] * (MAX_DEATHS - 1)
    assert last.status == Status.FAILED
    assert last.reason == f"{gone.reason}; so it was {MAX_DEATHS} times while it was tried"


def test_a_baseline_that_failed_is_recorded_and_ends_the_launch(tmp_path: Path) -> None:
    told = Told()
    failed = Outcome(status=Status.FAILED, reason="ValueError: of the metric")
    with pytest.raises(TrialError, match=r"unchanged model failed in trial 1, .*: ValueError: of "):
        desk(tmp_path, told).finish(started(0, Candidate()), failed)
    assert told.outcomes == [failed]
    desk(tmp_path, told).finish(started(0), failed)
    told.counts = False  # another launch has ended it, and tries it again
    desk(tmp_path, told).finish(started(0, Candidate()), failed)


def test_what_was_cut_short_otherwise_makes_no_pause(tmp_path: Path) -> None:
    found = desk(tmp_path, Told())
    found.finish(started(0), found.stopped)
    found.finish(started(0), Outcome(status=Status.INTERRUPTED, reason="its process died"))
    assert found.pauses.reason is None


def test_a_launch_ends_when_its_device_stays_away(tmp_path: Path) -> None:
    found = desk(tmp_path, Told(), pauses=Pauses(longest=0))
    away = Outcome(status=Status.STOPPED, reason="the device did not answer", device_away=True)
    found.finish(started(0), away)
    with pytest.raises(EngineError, match=r"did not answer; it was waited for 0 s; .*launch again"):
        found.next()
