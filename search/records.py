"""What a trial leaves in the storage, and how it reads as rows of a frame.

Everything about a trial that Optuna has no place for is in two user attributes: one written when
the trial is created, one when it ends. A trial whose second attribute is there has happened, even
if its process died before telling Optuna so.
"""

from __future__ import annotations

import enum
import os
import socket
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psutil
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict, Field

from parefront.objectives.measurement import Measurement

FORMAT = 5
"""Version of everything parefront writes into a storage."""

TRIAL_KEY = "parefront"
RESULT_KEY = "parefront:result"


class Origin(enum.StrEnum):
    """Where a candidate came from."""

    BASELINE = "baseline"
    ANCHOR = "anchor"
    WARM = "warm"
    """Known beforehand: the user's own, of an earlier study, or what sensitivity suggests."""
    SAMPLED = "sampled"
    SIBLING = "sibling"
    """Another way to go on from what was trained for a candidate on the front."""


class Status(enum.StrEnum):
    """What became of a trial."""

    COMPLETE = "complete"
    """Everything was measured."""
    INFEASIBLE = "infeasible"
    """It broke a bound before training, and was not trained."""
    GATED = "gated"
    """It could not have reached the front however well it had trained, and was not trained."""
    EARLY_STOPPED = "early_stopped"
    """Others were ahead of it in the middle of its training, which ended there."""
    FAILED = "failed"
    """It could not go on; the reason is recorded."""
    STOPPED = "stopped"
    """The study was stopped; the candidate is tried again and this trial does not count."""
    INTERRUPTED = "interrupted"
    """Its process died; the candidate is tried again and this trial does not count."""
    RUNNING = "running"
    """It is under way."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Owner(_Record):
    """The process that runs a trial.

    Attributes:
        host: Name of its machine, for people: containers share names.
        place: Where its process id counts: one boot of a machine, and a namespace within it.
        pid: Its process id there.
        started: When it started, so that a reused id is not mistaken for it.
    """

    host: str
    place: str
    pid: int
    started: float

    @classmethod
    def me(cls) -> Owner:
        """This process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Owner:
        """A process of this machine.

        Raises:
            psutil.NoSuchProcess: If there is none.
        """
        started = psutil.Process(pid).create_time()
        return cls(host=socket.gethostname(), place=_place(), pid=pid, started=started)

    def same(self, other: Owner) -> bool:
        """Whether both are one process."""
        return (self.place, self.pid) == (other.place, other.pid) and (
            abs(self.started - other.started) < 1.0
        )

    @property
    def here(self) -> bool:
        """Whether this process can tell if it runs."""
        return self.place == _place()

    def alive(self) -> bool:
        """Whether the process still runs; one that is not here is taken to."""
        if not self.here:
            return True
        try:
            process = psutil.Process(self.pid)
            started, status = process.create_time(), process.status()
        except psutil.NoSuchProcess:
            return False
        return abs(started - self.started) < 1.0 and status != psutil.STATUS_ZOMBIE


@cache
def _place() -> str:
    """Tells apart machines and containers that have the same name, and boots of one machine."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


class Rung(_Record):
    """What a trial was worth in the middle of its training.

    Attributes:
        share: Share of the training that was done, in (0, 1).
        values: Objectives by name that were compared; accuracy is that of the module under
            training, on the validation examples.
        rivals: How many trials were at this rung before.
        promoted: Whether training went on.
    """

    share: float
    values: Mapping[str, float]
    rivals: int
    promoted: bool


class TrialRecord(_Record):
    """Written when a trial is created.

    Attributes:
        candidate_id: Content address of the candidate.
        candidate: JSON-able configs by stage name.
        origin: Where the candidate came from.
        owner: The process that runs the trial.
        deaths: How many processes have died while they tried this candidate before.
        crashes: Of how many of them somebody saw how they died.
        token: Random; tells whether a trial was made when the answer of the storage was lost.
    """

    candidate_id: str
    candidate: Mapping[str, Mapping[str, Any]]
    origin: Origin
    owner: Owner
    deaths: int = 0
    crashes: int = 0
    token: str = Field(default_factory=lambda: uuid.uuid4().hex)


class Outcome(_Record):
    """Written when a trial ends.

    Attributes:
        status: What became of it.
        reason: Why, when it is not complete.
        measurements: What was measured, by objective name.
        violations: How far each bounded objective is outside its bound; zero or less is inside.
        artifact_sha256: Hash of the artifact in the store.
        achieved: What each stage really did, by stage name.
        seconds: Time spent by step: `"stages"`, `"train"`, `"build"`, `"measure"`.
        rungs: What it was worth in the middle of its training, in order.
        crashed: Whether its process died, and somebody saw how.
        device_away: Whether it was given back because its device could not be reached.
    """

    status: Status
    reason: str | None = None
    measurements: Mapping[str, Measurement] = {}
    violations: Mapping[str, float] = {}
    artifact_sha256: str | None = None
    achieved: Mapping[str, Mapping[str, Any]] = {}
    seconds: Mapping[str, float] = {}
    rungs: tuple[Rung, ...] = ()
    crashed: bool = False
    device_away: bool = False


def record_of(trial: FrozenTrial) -> TrialRecord:
    """The record a trial was created with."""
    return TrialRecord.model_validate(trial.user_attrs[TRIAL_KEY])


def outcome_of(trial: FrozenTrial) -> Outcome | None:
    """How a trial ended; `None` while it runs, or when its process died."""
    attrs = trial.user_attrs.get(RESULT_KEY)
    return None if attrs is None else Outcome.model_validate(attrs)


def state_of(outcome: Outcome) -> TrialState:
    """Optuna's state for an outcome.

    What ended before everything was measured is pruned: its constraints and what was measured tell
    the sampler. What failed or was interrupted tells it nothing.
    """
    return {
        Status.COMPLETE: TrialState.COMPLETE,
        Status.INFEASIBLE: TrialState.PRUNED,
        Status.GATED: TrialState.PRUNED,
        Status.EARLY_STOPPED: TrialState.PRUNED,
    }.get(outcome.status, TrialState.FAIL)
