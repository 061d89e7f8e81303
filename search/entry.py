"""One trial as it is in the storage, and what becomes of those that did not come to their end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from optuna.trial import FrozenTrial

from parefront.search.records import Origin, Outcome, Status, TrialRecord

_CUT_SHORT = (Status.STOPPED, Status.INTERRUPTED)
"""What is tried again, whatever it tried."""

MAX_DEATHS = 5
"""A candidate whose process died this often is not tried again, whatever it died of."""
QUARANTINE = 2
"""The same where somebody saw how it died, so that it was not the user or a power cut."""


@dataclass(frozen=True)
class Entry:
    """One trial with its records.

    Attributes:
        trial: The trial as Optuna keeps it.
        record: What was written when it was created.
        outcome: What was written when it ended; `None` while it runs, or when its process died.
    """

    trial: FrozenTrial
    record: TrialRecord
    outcome: Outcome | None

    @cached_property
    def status(self) -> Status:
        """What became of the trial."""
        if self.outcome is None or not self.trial.state.is_finished():
            return Status.RUNNING
        return self.outcome.status

    @cached_property
    def cut_short(self) -> bool:
        """Whether its candidate is to be tried again.

        The unchanged model is tried again after a failure too, since nothing can be compared
        without it; but not by the same launch, which ends there.
        """
        failed = self.status == Status.FAILED and self.record.origin == Origin.BASELINE
        return failed or self.status in _CUT_SHORT

    @cached_property
    def counts(self) -> bool:
        """Whether it counts towards the budget: it is over, and will not be tried again."""
        return self.status != Status.RUNNING and not self.cut_short

    @property
    def feasible(self) -> bool:
        """Whether it was measured and keeps every bound."""
        return self.outcome is not None and all(v <= 0 for v in self.outcome.violations.values())

    @property
    def is_baseline(self) -> bool:
        """Whether it measured the unchanged model."""
        return self.record.origin == Origin.BASELINE and self.status == Status.COMPLETE


def unfinished(entries: Sequence[Entry]) -> list[TrialRecord]:
    """Records for trying the candidates again whose last trial was cut short, oldest first."""
    cut = {e.record.candidate_id for e in entries if e.cut_short}
    if not cut:
        return []
    # A trial that the storage made twice is one.
    done = {e.record.token for e in entries if not e.cut_short}
    last = {
        e.record.candidate_id: e
        for e in entries
        if e.record.candidate_id in cut and not (e.cut_short and e.record.token in done)
    }
    again = []
    for entry in last.values():
        if entry.cut_short:
            record, outcome = entry.record, entry.outcome
            deaths = record.deaths + (entry.status == Status.INTERRUPTED)
            crashes = record.crashes + (outcome is not None and outcome.crashed)
            counts = {"deaths": deaths, "crashes": crashes}
            if entry.status == Status.FAILED:  # and was told to the user, who launched again
                counts = dict.fromkeys(counts, 0)
            again.append(record.model_copy(update=counts))
    return again


def died(before: int, crashes: int = 0, how: str | None = None) -> Outcome:
    """What becomes of a trial whose process died.

    Args:
        before: How many processes have died before while they tried its candidate.
        crashes: Of how many of them somebody saw how they died.
        how: How it died, if somebody saw that.
    """
    deaths, seen = before + 1, how is not None
    if deaths < MAX_DEATHS and crashes + seen < QUARANTINE:
        reason = "its process died while it ran" + (f": {how}" if how else "")
        return Outcome(status=Status.INTERRUPTED, reason=reason, crashed=seen)
    return Outcome(
        status=Status.FAILED,
        reason=f"quarantined: its process died {deaths} times while it ran, "
        + (f"the last time {how}" if how else "for example by a crash or for lack of memory"),
    )
