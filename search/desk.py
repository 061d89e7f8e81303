"""The desk of a launch: hands out trials, and records what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from parefront.errors import EngineError, TrialError
from parefront.search.budget import Budget
from parefront.search.entry import MAX_DEATHS, Entry, died
from parefront.search.heartbeat import Heartbeat
from parefront.search.launch import Progress, Stop
from parefront.search.ledger import Ledger
from parefront.search.locks import Lock
from parefront.search.pauses import Pauses
from parefront.search.pipeline import Checks, Interrupted, NoChecks
from parefront.search.proposer import Proposal, Proposer
from parefront.search.records import Origin, Outcome, Owner, Status, TrialRecord
from parefront.search.turns import turn
from parefront.spaces.space import Candidate

_TAKEN = Outcome(
    status=Status.INTERRUPTED,
    reason="another launch ended it, which saw no sign of life of this one; its candidate is "
    "tried again",
)
_GLANCE = 0.2
"""Seconds between looks at whether the launch is to end, while it waits."""


@dataclass(frozen=True)
class Started:
    """A trial that was handed out.

    Attributes:
        trial_id: The storage's id of the trial.
        number: Its number within the study.
        candidate: What is to be evaluated.
        deaths: How many processes have died while they tried this candidate before.
        checks: Decides whether it is worth going on with.
        crashes: Of how many of them somebody saw how they died.
    """

    trial_id: int
    number: int
    candidate: Candidate
    deaths: int
    checks: Checks
    crashes: int = 0


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Hands out trials until the budget is spent, or the space searched through.

    Whoever takes a trial gives it back with `finish` or `give_up`. Several may be out at once.

    Attributes:
        ledger: The trials of the study.
        proposer: Proposes candidates.
        checks: Makes the checks of a trial from the storage's id of it.
        budget: What the study may spend in all.
        lock: Held while a trial is chosen, so that two launches do not choose the same.
        stop: A request to end.
        progress: Told what happens.
        trial_seconds: What one trial may take, or `None` for no limit.
        no_gain: Says why nothing more is to be gained, or `None`; asked before each draw.
        heartbeat: Tells which launches elsewhere live; without it all do.
        pauses: When the next trial may begin, while a device is away.
    """

    ledger: Ledger
    proposer: Proposer
    checks: Callable[[int], Checks]
    budget: Budget
    lock: Lock
    stop: Stop
    progress: Progress
    trial_seconds: float | None = None
    no_gain: Callable[[Sequence[Entry]], str | None] | None = None
    heartbeat: Heartbeat | None = None
    pauses: Pauses = field(default_factory=Pauses)

    was_stopped = "it was stopped"
    """Why a launch ended that was told to."""
    stopped = Outcome(status=Status.STOPPED, reason="the study was stopped")
    """What becomes of a trial that is given up; its candidate is tried again."""

    def next(self) -> Started | str:
        """A new trial, which is in the storage as running; or why there is none.

        While a device is away it waits first, for as long as `pauses.left` says.

        Raises:
            Interrupted: If a stop was requested while it waited, for that or for another launch.
            EngineError: If a device stays away.
            StorageError: If the storage fails.
        """
        self._pause()
        chosen = self._turn()
        if isinstance(chosen, str) and self._settled():
            chosen = self._turn()
        if isinstance(chosen, str):
            return chosen
        trial_id, proposal = chosen
        # What is already trained is not stopped from being trained.
        checks = NoChecks() if proposal.origin == Origin.SIBLING else self.checks(trial_id)
        number = self.ledger.number(trial_id)
        started = Started(
            trial_id, number, proposal.candidate, proposal.deaths, checks, proposal.crashes
        )
        self.progress.began(number, proposal.candidate)
        return started

    def finish(self, started: Started, outcome: Outcome) -> None:
        """Records how a trial ended.

        A candidate that lost its device too often is not tried again: it may be why.

        Raises:
            StorageError: If the storage fails.
            TrialError: If the unchanged model failed.
        """
        self.pauses.note(outcome)
        deaths = started.deaths + 1
        lost = outcome.device_away and outcome.status == Status.INTERRUPTED
        if lost and deaths >= MAX_DEATHS:
            reason = f"{outcome.reason}; so it was {deaths} times while it was tried"
            outcome = outcome.model_copy(update={"status": Status.FAILED, "reason": reason})
        # Whoever watches is told in any case that this launch has it no more.
        told = self.ledger.finish(started.trial_id, outcome)
        self.progress.ended(started.number, outcome if told else _TAKEN)
        if told:
            check_baseline(started.candidate, started.number, outcome)

    def give_up(self, started: Started, reason: str | None = None) -> None:
        """Records that a trial was left; its candidate is tried again.

        Args:
            started: The trial.
            reason: Why, if not for a stop; it was no doing of the candidate's.

        Raises:
            StorageError: If the storage fails.
        """
        outcome = self.stopped.model_copy(update={"reason": reason}) if reason else self.stopped
        told = self.ledger.finish(started.trial_id, outcome)
        self.progress.ended(started.number, outcome if told else _TAKEN)

    def lost(self, started: Started, how: str) -> None:
        """Records that the process of a trial died; its candidate is tried once more.

        Args:
            started: The trial.
            how: How the process died.

        Raises:
            StorageError: If the storage fails.
        """
        self.finish(started, died(started.deaths, started.crashes, how))

    def ticking(self) -> Callable[[], None]:
        """What a trial calls between short steps of work; its time starts now.

        It raises `Interrupted` if the trial is to be given up, and `TrialError` if it takes longer
        than it may.
        """
        began = time.monotonic()

        def tick() -> None:
            if self.stop.requested_now:
                raise Interrupted
            if self.trial_seconds is not None and time.monotonic() - began > self.trial_seconds:
                raise TrialError(took_too_long(self.trial_seconds))

        return tick

    def _pause(self) -> None:
        pauses = self.pauses
        if pauses.too_long:
            raise EngineError(
                f"{pauses.reason}; it was waited for {pauses.longest:g} s; what was told is safe, "
                "launch again to go on"
            )
        if pauses.left:
            self.progress.phase(f"waiting {pauses.left:.0f} s, for {pauses.reason}")
        while left := pauses.left:
            if self.stop.requested:
                raise Interrupted
            time.sleep(min(left, _GLANCE))

    def _settled(self) -> bool:
        """Waits where there is nothing to do but for what a launch elsewhere may have left behind.

        Returns:
            Whether it waited, so that there may be something to do now.
        """
        me, waited = Owner.me(), False
        # When the time is over nothing can come of it.
        if replace(self.budget, trials=None).spent(self.ledger.entries(), datetime.now()):
            return False
        while self.heartbeat is not None:
            out = [each for each in self.ledger.entries() if each.status == Status.RUNNING]
            doubtful = [each for each in out if self.heartbeat.doubtful(each.record.owner)]
            # Trials of this launch come first: an engine gives them back between two questions.
            if not doubtful or any(each.record.owner.same(me) for each in out):
                break
            if not waited:
                owner, number = doubtful[0].record.owner, doubtful[0].trial.number
                self.progress.phase(
                    f"listening whether {owner.host}, which has trial {number}, lives"
                )
            if self.stop.requested:
                raise Interrupted
            waited = True
            time.sleep(self.heartbeat.interval / 4)
        return waited

    def _turn(self) -> tuple[int, Proposal] | str:
        with turn(self.lock, lambda: self.stop.requested, self.progress.phase):
            return self._choose()

    def _choose(self) -> tuple[int, Proposal] | str:
        entries = self.ledger.entries()
        alive = Owner.alive if self.heartbeat is None else self.heartbeat.alive
        if self.ledger.reclaim(entries, alive):
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
        return self._create(proposal), proposal

    def _create(self, proposal: Proposal) -> int:
        record = TrialRecord(
            candidate_id=proposal.candidate.id,
            candidate=proposal.candidate.as_dict(),
            origin=proposal.origin,
            owner=Owner.me(),
            deaths=proposal.deaths,
            crashes=proposal.crashes,
        )
        drawn = proposal.drawn
        return self.ledger.create(record, drawn.parameters, drawn.distributions, drawn.system_attrs)


def check_baseline(candidate: Candidate, number: int, outcome: Outcome) -> None:
    """Ends a launch whose unchanged model cannot be measured: nothing could be compared with it.

    Args:
        candidate: What was tried.
        number: Number of the trial.
        outcome: How it ended.

    Raises:
        TrialError: If that is so.
    """
    if not candidate.configs and outcome.status == Status.FAILED:
        raise TrialError(
            f"the unchanged model failed in trial {number}, and without it nothing can be "
            f"compared: {outcome.reason}; mend that and launch again, which tries it first"
        )


def took_too_long(seconds: float) -> str:
    """Why a trial failed that took longer than so many seconds."""
    return f"it took longer than {seconds:g} s"
