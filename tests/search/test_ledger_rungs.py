"""What trials were worth at rungs, as trials of other processes see it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import optuna
import pytest

from parefront.errors import StorageError
from parefront.search.ledger import Ledger
from parefront.search.records import Origin, Outcome, Owner, Rung, Status, TrialRecord
from parefront.search.storage import open_storage

NAMES = ("accuracy", "latency", "size")


def ledger(folder: Path) -> Ledger:
    storage = open_storage(f"sqlite:///{folder}/studies.db")
    study = optuna.create_study(
        study_name="s",
        storage=storage,
        directions=["maximize", "minimize", "minimize"],
        load_if_exists=True,
    )
    return Ledger(study, storage, NAMES)


def begin(into: Ledger, candidate_id: str) -> int:
    record = TrialRecord(
        candidate_id=candidate_id, candidate={}, origin=Origin.SAMPLED, owner=Owner.me()
    )
    return into.create(record, {}, {}, {})


def rung(share: float, accuracy: float, *, promoted: bool = True) -> Rung:
    values = {"accuracy": accuracy, "latency": 1.0, "size": 1e6}
    return Rung(share=share, values=values, rivals=0, promoted=promoted)


def accuracies(rivals: list[Mapping[str, float]]) -> list[float]:
    return [each["accuracy"] for each in rivals]


def test_two_processes_see_each_others_rungs_while_trials_run(tmp_path: Path) -> None:
    mine, theirs = ledger(tmp_path), ledger(tmp_path)
    assert mine.rivals(0.25, 0) == []
    first, second = begin(mine, "a"), begin(theirs, "b")
    mine.report(first, rung(0.25, 0.5))
    assert theirs.rivals(0.25, 1) == [{"accuracy": 0.5, "latency": 1.0, "size": 1e6}]
    theirs.report(second, rung(0.25, 0.75))
    assert accuracies(mine.rivals(0.25, 0)) == [0.75]  # it is not its own rival
    assert theirs.rivals(0.5, 1) == []
    mine.report(first, rung(0.5, 0.625))
    assert accuracies(theirs.rivals(0.5, 1)) == [0.625]
    assert accuracies(theirs.rivals(0.25, 99)) == [0.5, 0.75]


@pytest.mark.parametrize(
    ("status", "counts"),
    [
        (Status.EARLY_STOPPED, True),
        (Status.INFEASIBLE, True),
        (Status.FAILED, False),
        (Status.STOPPED, False),
        (Status.INTERRUPTED, False),
    ],
)
def test_what_ended_is_a_rival_unless_it_failed_or_is_tried_again(
    tmp_path: Path, status: Status, counts: bool
) -> None:
    into, other = ledger(tmp_path), ledger(tmp_path)
    trial = begin(into, "a")
    reached = rung(0.25, 0.5, promoted=status != Status.EARLY_STOPPED)
    into.report(trial, reached)
    assert accuracies(other.rivals(0.25, 1)) == [0.5]
    into.finish(trial, Outcome(status=status, rungs=(reached,)))
    for each in (into, other, ledger(tmp_path)):
        assert accuracies(each.rivals(0.25, 1)) == [0.5] * counts
    (entry,) = ledger(tmp_path).entries()
    assert entry.outcome is not None
    assert entry.outcome.rungs == (reached,)


def test_a_candidate_that_is_tried_again_is_not_its_own_rival(tmp_path: Path) -> None:
    into = ledger(tmp_path)
    died = begin(into, "a")
    into.report(died, rung(0.25, 0.5))
    into.finish(died, Outcome(status=Status.INTERRUPTED))
    again = begin(into, "a")
    into.report(again, rung(0.25, 0.5))
    assert into.rivals(0.25, 1) == []
    assert accuracies(into.rivals(0.25, 2)) == [0.5]


def test_asking_for_rivals_leaves_the_numbers_of_trials_right(tmp_path: Path) -> None:
    mine, theirs = ledger(tmp_path), ledger(tmp_path)
    first = begin(mine, "a")
    second = begin(theirs, "b")
    assert mine.rivals(0.25, 0) == []
    third = begin(mine, "c")
    assert [mine.number(trial) for trial in (first, second, third)] == [0, 1, 2]


def test_a_storage_that_fails_is_named(tmp_path: Path) -> None:
    into = ledger(tmp_path)
    trial = begin(into, "a")
    connection = sqlite3.connect(tmp_path / "studies.db")
    connection.execute("DROP TABLE trial_user_attributes")
    connection.close()
    with pytest.raises(StorageError, match="the storage failed"):
        into.report(trial, rung(0.25, 0.5))
