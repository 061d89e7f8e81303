"""Trials made up for benchmarks, with records such as a network of twenty layers leaves."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from parefront.objectives.measurement import Direction, Measurement
from parefront.search.entry import Entry
from parefront.search.guide import Drawn
from parefront.search.records import Origin, Outcome, Owner, Status, TrialRecord
from parefront.search.samplers.screening.drawn_space import DrawnSpace
from parefront.spaces.space import Candidate, Space

OBJECTIVES = {
    "accuracy": Direction.MAXIMIZE,
    "latency": Direction.MINIMIZE,
    "size": Direction.MINIMIZE,
}
_LAYERS = 20


def outcome(draws: random.Random) -> Outcome:
    """What a trial leaves, with objectives near a curved front."""
    direction = np.abs([draws.gauss(0.0, 1.0) for _ in OBJECTIVES])
    error, latency, size = direction / np.linalg.norm(direction) * (1 + draws.expovariate(3.0))
    timing = {f"wall_{name}_ms": draws.random() for name in ("median", "p90", "p99", "mean")}
    channels = {
        f"features.{layer}.conv": [64, draws.randrange(8, 64, 8)] for layer in range(_LAYERS)
    }
    return Outcome(
        status=Status.COMPLETE,
        measurements={
            "accuracy": _around(1.0 - error / 4, "", "validation"),
            "latency": _around(latency, "ms", "rounds").model_copy(update={"details": timing}),
            "size": Measurement.exact(float(round(1e6 * size)), "B", "file"),
        },
        violations={"size": size - 2.0},
        artifact_sha256=f"{draws.getrandbits(256):064x}",
        achieved={
            "prune": {"parameters_before": 272_474, "parameters_after": 90_210}
            | {"channels": channels, "skipped": {"fc": "its outputs are the model's"}},
            "recover": {"epochs": 5, "steps": 195, "final_loss": draws.random()},
        },
        seconds={step: draws.random() for step in ("stages", "train", "build", "measure")},
    )


def _around(value: float, unit: str, protocol: str) -> Measurement:
    return Measurement(
        value=value, low=value * 0.99, high=value * 1.01, unit=unit, samples=200, protocol=protocol
    )


def entries(space: Space, count: int) -> Iterator[Entry]:
    """Trials of random candidates, as a ledger has them."""
    draws, owner = random.Random(0), Owner.me()
    for number, candidate in enumerate(candidates(space, count)):
        drawn, made = Drawn.of(candidate, space), outcome(draws)
        trial = FrozenTrial(
            number=number,
            trial_id=number + 1,
            state=TrialState.COMPLETE,
            value=None,
            values=[made.measurements[name].value for name in OBJECTIVES],
            datetime_start=None,
            datetime_complete=None,
            params=dict(drawn.parameters),
            distributions=dict(drawn.distributions),
            user_attrs={},
            system_attrs={f"constraints:{name}": v for name, v in made.violations.items()},
            intermediate_values={},
        )
        yield Entry(trial, record(candidate, owner), made)


def candidates(space: Space, count: int, seed: int = 1) -> Iterator[Candidate]:
    """Random candidates."""
    found: list[Candidate] = []
    drawer = DrawnSpace(lambda trial: found.append(space.suggest(trial)))
    draws = random.Random(seed)
    for _ in range(count):
        drawer.draw(draws, {})
        yield found.pop()


def record(candidate: Candidate, owner: Owner) -> TrialRecord:
    """What is written when a trial is created."""
    return TrialRecord(
        candidate_id=candidate.id,
        candidate=candidate.as_dict(),
        origin=Origin.SAMPLED,
        owner=owner,
    )
