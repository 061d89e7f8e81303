"""What a process knows of the trials of a study is what is in the storage, read sparingly."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from parefront.search import known_trials
from parefront.search.known_trials import KnownTrials
from parefront.search.storage import open_storage

FEW = known_trials._FEW


class Clock:
    """A clock that stands still, or goes on by a step each time it is asked."""

    def __init__(self, step: float = 0.0) -> None:
        self.time, self.step = 0.0, step

    def __call__(self) -> float:
        self.time += self.step
        return self.time


def begin(storage: BaseStorage, study: int) -> int:
    template = create_trial(state=TrialState.RUNNING, user_attrs={"made": True})
    return storage.create_new_trial(study, template)


def facts(trials: list[FrozenTrial]) -> list[tuple[object, ...]]:
    return [(t.number, t.state, t.values, t.user_attrs) for t in trials]


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["begin", "note", "end", "read"]), st.integers(0, 99)), max_size=60
)


@given(ACTIONS)
@settings(deadline=None, max_examples=60)
def test_what_one_process_does_is_known_at_once(actions: list[tuple[str, int]]) -> None:
    storage = InMemoryStorage()
    study = optuna.create_study(storage=storage)
    name = storage.get_study_id_from_name(study.study_name)
    clock = Clock(1.0)  # so that reading all takes long, and is not done again
    known = KnownTrials(study, storage, clock)
    running = [begin(storage, name) for _ in range(FEW + 4)]
    known.read()
    clock.step = 0.0
    for action, which in actions:
        if action == "begin":
            running.append(begin(storage, name))
        elif action == "read":
            assert facts(known.read()) == facts(study.get_trials(deepcopy=False))
        elif running:
            trial = running[which % len(running)]
            known.changed(trial)
            if action == "note":
                storage.set_trial_user_attr(trial, "noted", which)
            else:
                running.remove(trial)
                storage.set_trial_state_values(trial, TrialState.COMPLETE, [float(which)])
    assert facts(known.read()) == facts(study.get_trials(deepcopy=False))


def test_others_are_seen_to_begin_at_once_and_to_end_a_little_later(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    mine, theirs = open_storage(url), open_storage(url)
    study = optuna.create_study(study_name="s", storage=mine)
    name = mine.get_study_id_from_name("s")
    their_trials = [begin(theirs, name) for _ in range(FEW + 1)]
    clock = Clock(1.0)
    known = KnownTrials(study, mine, clock)
    assert len(known.read()) == FEW + 1
    clock.step = 0.0
    begin(theirs, name)
    theirs.set_trial_state_values(their_trials[0], TrialState.COMPLETE, [1.0])
    seen = known.read()
    assert len(seen) == FEW + 2
    assert seen[0].state == TrialState.RUNNING
    clock.time += 60.0
    assert known.read()[0].state == TrialState.COMPLETE


def test_only_what_changed_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = InMemoryStorage()
    study = optuna.create_study(storage=storage)
    name = storage.get_study_id_from_name(study.study_name)
    trials = [begin(storage, name) for _ in range(FEW + 1)]
    clock = Clock(1.0)
    known = KnownTrials(study, storage, clock)
    known.read()
    clock.step = 0.0
    asked: list[int] = []
    one = storage.get_trial

    def get_trial(trial_id: int) -> FrozenTrial:
        asked.append(trial_id)
        return one(trial_id)

    monkeypatch.setattr(storage, "get_trial", get_trial)
    monkeypatch.delattr(InMemoryStorage, "get_all_trials")
    known.changed(trials[3])
    known.read()
    known.read()
    assert asked == [trials[3]]


def test_few_are_always_read_anew() -> None:
    storage = InMemoryStorage()
    study = optuna.create_study(storage=storage)
    name = storage.get_study_id_from_name(study.study_name)
    trials = [begin(storage, name) for _ in range(FEW)]
    known = KnownTrials(study, storage, Clock())
    known.read()
    storage.set_trial_user_attr(trials[0], "by another", 1)
    assert known.read()[0].user_attrs["by another"] == 1
