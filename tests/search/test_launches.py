"""Several launches of one study in processes of their own, some of which are killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from parefront.search.entry import Entry
from parefront.search.heartbeat import BEAT_KEY, Heartbeat
from parefront.search.launch import Silent
from parefront.search.ledger import Ledger
from parefront.search.patience import Patience
from parefront.search.pipeline import Interrupted
from parefront.search.records import Outcome, Owner, Status
from tests.search.fakes import outcome
from tests.search.launch_trials import desk, work
from tests.search.trials import create, ledger, opened, propose, proposer
from tests.waiting import until

PROGRAM = Path(__file__).with_name("launch_trials.py")
ELSEWHERE = Owner.me().model_copy(update={"place": "elsewhere"})


class Noted(Silent):
    """Keeps what a launch says."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.on_phase: Callable[[], None] = lambda: None

    def phase(self, text: str) -> None:
        self.said.append(text)
        self.on_phase()


def launch(
    url: str, trials: int, most: int = -1, before: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    words = [*before, sys.executable, str(PROGRAM), url, f"{trials}", f"{most}"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]


@pytest.mark.slow
def test_launches_at_once_make_a_study_together_and_choose_nothing_twice(any_storage: str) -> None:
    running = [launch(any_storage, 16) for _ in range(2)]  # the storage is empty, so both make it
    shares = [int(lines(process, 1)[0]) for process in running]
    for process in running:
        assert process.wait() == 0
        assert process.stdout is not None
        process.stdout.close()
    entries = ledger(any_storage).entries()
    assert sum(shares) == len(entries) == 16
    assert [entry.trial.number for entry in entries] == list(range(16))
    assert len({entry.record.candidate_id for entry in entries}) == 16
    assert {entry.status for entry in entries} == {Status.COMPLETE}


@pytest.mark.slow
def test_what_a_killed_launch_left_is_tried_again_by_another(any_storage: str) -> None:
    with launch(any_storage, 6, most=2) as process:
        lines(process, 2)
        process.kill()
    assert ledger(any_storage).entries()[2].status == Status.RUNNING
    assert work(desk(any_storage, 6)) == 4
    entries = ledger(any_storage).entries()
    assert entries[2].status == Status.INTERRUPTED
    assert entries[3].record.candidate_id == entries[2].record.candidate_id
    assert [entry.record.deaths for entry in entries] == [0, 0, 0, 1, 0, 0, 0]
    assert sum(entry.counts for entry in entries) == 6


@pytest.mark.slow
def test_what_a_killed_container_left_is_tried_again_once_nothing_was_heard_of_it(
    postgres: str,
) -> None:
    apart = ("unshare", "--pid", "--fork", "--kill-child")
    if subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs to make a namespace of process ids")
    with launch(postgres, 6, most=2, before=apart) as process:
        lines(process, 2)
        owner = ledger(postgres).entries()[2].record.owner
        assert owner.host == Owner.me().host
        assert not owner.here  # and its process id is another's here, or nobody's
        process.kill()
    into, study = opened(postgres)
    with Heartbeat(study, interval=0.05, misses=3) as heartbeat:
        assert work(desk(postgres, 6, into=into, heartbeat=heartbeat)) == 4
    entries = ledger(postgres).entries()
    assert entries[2].status == Status.INTERRUPTED
    (again,) = [entry for entry in entries if entry.record.deaths]
    assert again.record.candidate_id == entries[2].record.candidate_id
    assert sum(entry.counts for entry in entries) == 6


def test_a_launch_elsewhere_lives_as_long_as_it_gives_signs(any_storage: str) -> None:
    into, study = opened(any_storage)
    create(into, propose(proposer(), into), ELSEWHERE)
    _, theirs = opened(any_storage)
    with Heartbeat(study, interval=0.1, misses=20) as mine:
        other = Heartbeat(theirs, ELSEWHERE, interval=0.01)
        with other:
            assert mine.alive(ELSEWHERE)
            assert mine.doubtful(ELSEWHERE)
            until(lambda: not mine.doubtful(ELSEWHERE))
            assert mine.alive(ELSEWHERE)
            assert into.reclaim(into.entries(), mine.alive) == []
        until(lambda: not mine.alive(ELSEWHERE))
    assert into.reclaim(into.entries(), mine.alive) == [0]


@pytest.mark.parametrize("lives", [True, False])
def test_a_launch_with_nothing_left_to_do_waits_until_it_knows(postgres: str, lives: bool) -> None:
    into, study = opened(postgres)
    assert work(desk(postgres, 3, into=into), most=2) == 2
    create(into, propose(proposer(), into), ELSEWHERE)
    progress = Noted()
    with ExitStack() as stack:
        if lives:
            stack.enter_context(Heartbeat(opened(postgres)[1], ELSEWHERE, interval=0.01))
        # What dies without a sign is dead after three looks, and what lives has time enough.
        mine = Heartbeat(study, interval=0.2, misses=1000 if lives else 3)
        stack.enter_context(mine)
        at = desk(postgres, 3, into=into, heartbeat=mine, progress=progress)
        assert work(at) == (0 if lives else 1)
    assert f"listening whether {ELSEWHERE.host}, which has trial 2, lives" in progress.said
    assert [entry.counts for entry in into.entries()] == [True, True, False] + [True] * (not lives)


def test_waiting_for_a_sign_can_be_given_up(postgres: str) -> None:
    into, study = opened(postgres)
    create(into, propose(proposer(), into), ELSEWHERE)
    progress = Noted()
    with Heartbeat(study, interval=0.2, misses=1000) as mine:
        at = desk(postgres, 1, into=into, heartbeat=mine, progress=progress)
        progress.on_phase = at.stop.request
        with pytest.raises(Interrupted):
            at.next()


def test_places_of_signs_are_used_again(any_storage: str) -> None:
    def places() -> list[object]:
        attrs = opened(any_storage)[1].user_attrs
        return [attrs[key] for key in sorted(attrs) if key.startswith(BEAT_KEY.format(place=""))]

    for _ in range(3):
        with Heartbeat(opened(any_storage)[1]):
            assert len(places()) == 1
    assert places() == [None]
    died = ELSEWHERE.model_copy(update={"pid": 1})
    with Heartbeat(opened(any_storage)[1], died):
        pass
    study = opened(any_storage)[1]
    gone = {"owner": died.model_dump(), "count": 7}  # it was killed, and gave nothing back
    study.set_user_attr(BEAT_KEY.format(place=0), gone)
    with Heartbeat(study, interval=0.02, misses=3) as mine:
        assert places()[0] == gone
        assert len(places()) == 2
        until(lambda: not mine.alive(died))
        with Heartbeat(opened(any_storage)[1], ELSEWHERE, interval=0.02, misses=3) as third:
            until(lambda: not third.alive(died))
            until(lambda: places()[0] != gone or len(places()) == 3)
    assert len(places()) <= 3


def test_two_launches_that_take_one_place_part(postgres: str) -> None:
    other = ELSEWHERE.model_copy(update={"pid": 2})
    first = Heartbeat(opened(postgres)[1], ELSEWHERE, interval=0.02)
    second = Heartbeat(opened(postgres)[1], other, interval=0.02)
    study = opened(postgres)[1]
    key = BEAT_KEY.format(place=0)
    with first, second:
        study.set_user_attr(key, {"owner": other.model_dump(), "count": 0})

        def owners() -> set[Owner]:
            attrs = study.user_attrs
            keys = [key for key in attrs if key.startswith(BEAT_KEY.format(place=""))]
            return {Owner.model_validate(attrs[key]["owner"]) for key in keys}

        until(lambda: owners() >= {ELSEWHERE, other})


def test_a_launch_that_was_taken_for_dead_does_not_undo_what_others_did(any_storage: str) -> None:
    mine, theirs = ledger(any_storage), ledger(any_storage)
    proposal = propose(proposer(), mine)
    trial = create(mine, proposal)
    assert theirs.reclaim(theirs.entries(), lambda owner: False) == [0]
    assert not mine.finish(trial, outcome(proposal.candidate))
    (entry,) = ledger(any_storage).entries()
    assert entry.status == Status.INTERRUPTED
    assert mine.reclaim(mine.entries()) == []


def test_a_result_that_is_told_twice_is_told(any_storage: str) -> None:
    into = ledger(any_storage)
    proposal = propose(proposer(), into)
    trial = create(into, proposal)
    assert into.finish(trial, outcome(proposal.candidate))
    assert into.finish(trial, outcome(proposal.candidate))
    assert not into.finish(trial, Outcome(status=Status.FAILED, reason="another"))


class LostAnswers:
    """Commits of PostgreSQL that happen, and whose answers are lost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import psycopg
        from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

        self.left = 0
        real: Any = PGDialect_psycopg.do_commit

        def commit(dialect: PGDialect_psycopg, connection: object) -> None:
            real(dialect, connection)
            if self.left:
                self.left -= 1
                raise psycopg.OperationalError("the answer was lost")

        monkeypatch.setattr(PGDialect_psycopg, "do_commit", commit)
        # Optuna's pauses between its own tries.
        monkeypatch.setattr("optuna.storages._rdb.storage.random.random", lambda: 0.0)


@pytest.mark.parametrize("lost", [1, 5])
def test_a_trial_whose_making_was_not_answered_is_made_once(
    postgres: str, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    answers = LostAnswers(monkeypatch)
    into = ledger(postgres, Patience(seconds=120))
    by = proposer(sampler="random")
    proposal = propose(by, into)
    answers.left = lost
    trial = create(into, proposal)
    # Optuna tries five times by itself, so that there are husks beside the one that is meant.
    husks = [e.trial.number for e in into.entries() if e.trial.number != into.number(trial)]
    assert len(husks) == min(lost, 4)
    assert into.reclaim(into.entries()) == husks
    answers.left = 3
    assert into.finish(trial, outcome(proposal.candidate))
    assert propose(by, into).candidate != proposal.candidate
    assert [e.record.candidate_id for e in counted(ledger(postgres))] == [proposal.candidate.id]


def counted(into: Ledger) -> list[Entry]:
    return [entry for entry in into.entries() if entry.counts]
