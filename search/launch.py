"""One launch of a study: trials, one after another, until there is a reason to end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from filelock import FileLock

from parefront.errors import TrialError
from parefront.search.budget import Budget
from parefront.search.ledger import Entry, Ledger
from parefront.search.pipeline import Checks, Interrupted, NoChecks
from parefront.search.proposer import Proposal, Proposer
from parefront.search.records import Origin, Outcome, Owner, Status, TrialRecord
from parefront.search.turns import turn
from parefront.spaces.space import Candidate


class Progress(Protocol):
    """Told what a launch does, for a display."""

    def phase(self, text: str) -> None:
        """The launch began something that takes a while, such as training the baseline."""
        ...

    def began(self, trial: int, candidate: Candidate) -> None:
        """A trial began."""
        ...

    def ended(self, trial: int, outcome: Outcome) -> None:
        """A trial ended, and its outcome is in the storage."""
        ...

    def outlook(self, share: float, trials: int) -> None:
        """Further trials are expected to add this share of the front's hypervolume."""
        ...


class Silent:
    """Shows nothing."""

    def phase(self, text: str) -> None:
        """Ignored."""

    def began(self, trial: int, candidate: Candidate) -> None:
        """Ignored."""

    def ended(self, trial: int, outcome: Outcome) -> None:
        """Ignored."""

    def outlook(self, share: float, trials: int) -> None:
        """Ignored."""


class Stop:
    """A request to end a launch, which may come from another thread or a signal handler."""

    def __init__(self) -> None:
        self._soon = threading.Event()
        self._now = threading.Event()

    def request(self, *, now: bool = False) -> None:
        """Ends the launch after the trial under way, or with `now` in the middle of it."""
        self._soon.set()
        if now:
            self._now.set()

    @property
    def requested(self) -> bool:
        """Whether the launch is to end."""
        return self._soon.is_set()

    @property
    def requested_now(self) -> bool:
        """Whether the trial under way is to be given up."""
        return self._now.is_set()


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Runs trials until the budget is spent, the space searched through, or a stop requested.

    Attributes:
        ledger: The trials of the study.
        proposer: Proposes candidates.
        evaluate: Evaluates a candidate; it calls the function it is given between short steps,
            and asks the checks whether to go on.
        checks: Makes the checks of a trial from the storage's id of it.
        budget: What the study may spend in all.
        lock: Held while a trial is chosen, so that two launches do not choose the same.
        stop: A request to end.
        progress: Told what happens.
        trial_seconds: What one trial may take, or `None` for no limit.
        no_gain: Says why nothing more is to be gained, or `None`; asked before each draw.
    """

    ledger: Ledger
    proposer: Proposer
    evaluate: Callable[[Candidate, Callable[[], None], Checks], Outcome]
    checks: Callable[[int], Checks]
    budget: Budget
    lock: FileLock
    stop: Stop
    progress: Progress
    trial_seconds: float | None = None
    no_gain: Callable[[Sequence[Entry]], str | None] | None = None

    def run(self) -> str:
        """Runs trials; returns why it ended."""
        owner = Owner.me()
        while not self.stop.requested:
            try:
                with turn(self.lock, lambda: self.stop.requested, self.progress.phase):
                    chosen = self._choose(owner)
            except Interrupted:
                break
            if isinstance(chosen, str):
                return chosen
            trial_id, proposal = chosen
            # What is already trained is not stopped from being trained.
            checks = NoChecks() if proposal.origin == Origin.SIBLING else self.checks(trial_id)
            self._run(trial_id, proposal.candidate, checks)
        return "it was stopped"

    def _choose(self, owner: Owner) -> tuple[int, Proposal] | str:
        """A new trial, by the storage's id, and what it is to try; or why there is none."""
        entries = self.ledger.entries()
        if self.ledger.reclaim(entries):
            entries = self.ledger.entries()
        spent = self.budget.spent(entries, datetime.now())
        if spent is not None:
            return spent
        proposal = self.proposer.propose(entries)
        if proposal is None:
            return "the space is searched through"
        if proposal.origin == Origin.SAMPLED and self.no_gain is not None:
            reason = self.no_gain(entries)
            if reason is not None:
                return reason
        return self._create(proposal, owner), proposal

    def _create(self, proposal: Proposal, owner: Owner) -> int:
        record = TrialRecord(
            candidate_id=proposal.candidate.id,
            candidate=proposal.candidate.as_dict(),
            origin=proposal.origin,
            owner=owner,
            deaths=proposal.deaths,
        )
        drawn = proposal.drawn
        return self.ledger.create(record, drawn.parameters, drawn.distributions, drawn.system_attrs)

    def _run(self, trial_id: int, candidate: Candidate, checks: Checks) -> None:
        number = self.ledger.number(trial_id)
        self.progress.began(number, candidate)
        stopped = Outcome(status=Status.STOPPED, reason="the study was stopped")
        began = time.monotonic()

        def tick() -> None:
            if self.stop.requested_now:
                raise Interrupted
            if self.trial_seconds is not None and time.monotonic() - began > self.trial_seconds:
                raise TrialError(f"it took longer than {self.trial_seconds:g} s")

        try:
            outcome = self.evaluate(candidate, tick, checks)
        except Interrupted:
            outcome = stopped
        except BaseException:
            self.ledger.finish(trial_id, stopped)
            raise
        self.ledger.finish(trial_id, outcome)
        self.progress.ended(number, outcome)
