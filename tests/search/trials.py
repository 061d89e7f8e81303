"""Ledgers with proposers, for tests of trials that cost nothing."""

from __future__ import annotations

from pathlib import Path

import optuna

from parefront.objectives.measurement import Direction
from parefront.objectives.objective import Bound
from parefront.search.guide import Guide
from parefront.search.ledger import Ledger
from parefront.search.optuna_guide import OptunaGuide
from parefront.search.patience import Patience
from parefront.search.proposer import Proposal, Proposer
from parefront.search.records import Owner, TrialRecord
from parefront.search.storage import open_storage
from parefront.search.surrogate import Axis, Surrogate
from parefront.spaces.space import Space
from tests.search.fakes import outcome, space

NAMES = ("accuracy", "latency", "size")
DIRECTIONS = (Direction.MAXIMIZE, Direction.MINIMIZE, Direction.MINIMIZE)
GONE = Owner.me().model_copy(update={"pid": 2**22 + 1, "started": 0.0})
"""A process of this machine that died."""


def ledger(where: Path | str, patience: Patience | None = None) -> Ledger:
    """The ledger of a study in a storage, or in the SQLite file of a folder."""
    return opened(where, patience)[0]


def opened(where: Path | str, patience: Patience | None = None) -> tuple[Ledger, optuna.Study]:
    """The same, with the study."""
    storage = open_storage(where if isinstance(where, str) else f"sqlite:///{where}/studies.db")
    study = optuna.create_study(
        study_name="s",
        storage=storage,
        directions=["maximize", "minimize", "minimize"],
        load_if_exists=True,
    )
    return Ledger(study, storage, NAMES, patience), study


def proposer(seed: int = 0, sampler: str = "screening", of: Space | None = None) -> Proposer:
    where = of or space()
    axes = [
        Axis(
            name=name,
            direction=direction,
            log=name != "accuracy",
            target=None,
            everywhere=name != "latency",
            bound=Bound(),
        )
        for name, direction in zip(NAMES, DIRECTIONS, strict=True)
    ]
    guide: Guide = (
        Surrogate(where, axes, seed)
        if sampler == "screening"
        else OptunaGuide(where, sampler, DIRECTIONS, seed)
    )
    fallback = OptunaGuide(where, "random", DIRECTIONS, seed)
    return Proposer(where, guide, fallback, DIRECTIONS, anchors=where.anchors())


def create(into: Ledger, proposal: Proposal, owner: Owner | None = None) -> int:
    record = TrialRecord(
        candidate_id=proposal.candidate.id,
        candidate=proposal.candidate.as_dict(),
        origin=proposal.origin,
        owner=owner or Owner.me(),
        deaths=proposal.deaths,
        crashes=proposal.crashes,
    )
    drawn = proposal.drawn
    return into.create(record, drawn.parameters, drawn.distributions, drawn.system_attrs)


def propose(by: Proposer, into: Ledger) -> Proposal:
    proposal = by.propose(into.entries())
    assert proposal is not None
    return proposal


def search(into: Ledger, by: Proposer, count: int) -> list[str]:
    ids = []
    for _ in range(count):
        proposal = propose(by, into)
        into.finish(create(into, proposal), outcome(proposal.candidate))
        ids.append(proposal.candidate.id)
    return ids
