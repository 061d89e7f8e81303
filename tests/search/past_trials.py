"""Trials that are over, made up."""

from __future__ import annotations

import optuna

from parefront.objectives.measurement import Measurement
from parefront.search.entry import Entry
from parefront.search.records import Origin, Outcome, Owner, Status, TrialRecord
from parefront.spaces.space import Candidate
from tests.search.fakes import space


def candidate(ratio: float, kind: str = "a") -> Candidate:
    return space().candidate({"width": {"ratio": ratio, "kind": kind}, "repair": {"steps": 1.5}})


def record(of: Candidate) -> TrialRecord:
    owner = Owner(host="elsewhere", place="elsewhere", pid=1, started=0.0)
    return TrialRecord(
        candidate_id=of.id, candidate=of.as_dict(), origin=Origin.SAMPLED, owner=owner
    )


def outcome(accuracy: float | None, size: float, status: Status = Status.COMPLETE) -> Outcome:
    values = {"latency": size / 1e6, "size": size}
    if accuracy is not None:
        values["accuracy"] = accuracy
    return Outcome(
        status=status,
        measurements={n: Measurement.exact(v, "", "made up") for n, v in values.items()},
    )


def entry(number: int, of: Candidate, ended: Outcome) -> Entry:
    trial = optuna.trial.create_trial(state=optuna.trial.TrialState.COMPLETE, values=[0.0])
    trial.number = number
    return Entry(trial, record(of), ended)
