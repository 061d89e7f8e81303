"""Trials made up for samplers to learn from."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from parefront.objectives.measurement import Direction
from parefront.search.entry import Entry
from parefront.search.guide import Drawn
from parefront.search.records import TRIAL_KEY, Origin, Outcome, Owner, Status, TrialRecord
from parefront.search.samplers.screening.drawn_space import DrawnSpace
from parefront.spaces.space import Candidate, Space
from tests.search import fakes

DIRECTIONS = [Direction.MAXIMIZE, Direction.MINIMIZE, Direction.MINIMIZE]
OWNER = Owner(host="elsewhere", place="elsewhere", pid=1, started=0.0)


def random_candidates(space: Space, count: int, seed: int = 0) -> list[Candidate]:
    """Different candidates of a space."""
    draws, drawn = random.Random(seed), DrawnSpace(space.suggest)
    found: dict[str, Candidate] = {}
    while len(found) < count:
        params = drawn.draw(draws, {}).params
        candidate = space.candidate(_configs(params))
        found.setdefault(candidate.id, candidate)
    return list(found.values())


def _configs(params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    configs: dict[str, dict[str, Any]] = {}
    for name, value in params.items():
        stage, _, field = name.partition(".")
        if field:
            configs.setdefault(stage, {})[field] = value
    return configs


def entry(
    space: Space,
    number: int,
    candidate: Candidate,
    *,
    status: Status = Status.COMPLETE,
    values: Sequence[float] | None = None,
    violation: float | None = None,
) -> Entry:
    """A trial that is over.

    Args:
        space: The space of the candidate.
        number: Number of the trial.
        candidate: What was tried.
        status: What became of it.
        values: Its objectives, if it is complete; else they depend on the candidate alone.
        violation: How far it is outside a bound.
    """
    if status == Status.COMPLETE and values is None:
        measured = fakes.outcome(candidate).measurements
        values = [measured[name].value for name in ("accuracy", "latency", "size")]
    state = {Status.COMPLETE: TrialState.COMPLETE, Status.FAILED: TrialState.FAIL}
    drawn = Drawn.of(candidate, space)
    record = TrialRecord(
        candidate_id=candidate.id,
        candidate=candidate.as_dict(),
        origin=Origin.SAMPLED,
        owner=OWNER,
    )
    trial: FrozenTrial = create_trial(
        state=state.get(status, TrialState.PRUNED),
        values=values,
        params=dict(drawn.parameters),
        distributions=dict(drawn.distributions),
        user_attrs={TRIAL_KEY: record.model_dump(mode="json")},
        constraints={} if violation is None else {"size": violation},
    )
    trial.number = number
    violations = {} if violation is None else {"size": violation}
    return Entry(trial, record, Outcome(status=status, violations=violations))


def mixed(space: Space, count: int, seed: int = 0) -> list[Entry]:
    """Trials of every fate: complete, beyond a bound, failed, gated and stopped early."""
    fates: list[tuple[Status, float]] = [
        (Status.COMPLETE, -0.5),
        (Status.COMPLETE, -0.1),
        (Status.INFEASIBLE, 0.2),
        (Status.COMPLETE, 0.3),
        (Status.FAILED, -0.1),
        (Status.COMPLETE, -0.2),
        (Status.GATED, -0.3),
        (Status.EARLY_STOPPED, -0.4),
    ]
    entries = []
    for number, candidate in enumerate(random_candidates(space, count, seed)):
        status, violation = fates[number % len(fates)]
        entries.append(entry(space, number, candidate, status=status, violation=violation))
    return entries
