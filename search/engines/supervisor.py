"""Watches a launch in a process of its own, so that what happens to that ends no study."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from parefront import errors
from parefront.errors import EngineError, ParefrontError, StorageError
from parefront.search.budget import describe
from parefront.search.desk import Desk, check_baseline, took_too_long
from parefront.search.engines.catalog import ENGINES
from parefront.search.engines.child_process import ChildProcess
from parefront.search.engines.messages import (
    HEARD,
    NOW,
    SOON,
    Began,
    End,
    Ended,
    Failure,
    Message,
    Outlook,
    Phase,
)
from parefront.search.entry import died
from parefront.search.launch import Progress, Stop
from parefront.search.opened import OpenedStudy
from parefront.search.patience import SECONDS
from parefront.search.records import Outcome, Status, TrialRecord
from parefront.spaces.space import Candidate

if TYPE_CHECKING:
    from parefront.search.plan import Plan

GRACE = 10.0
"""Seconds that a trial may take on after it was told to end, or after its time is over."""
STARTING = 120.0
"""Seconds without a sign of life while a process imports what it needs, at least."""
FRUITLESS = 2
"""Processes in a row that may die before they get anywhere."""
AGAIN = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 60.0, 60.0, 60.0, 60.0)
"""Pauses before a further try when an engine says that it may go on by itself."""
_LOOK = 0.2
_STORAGE_PAUSE = 2.0
_MEMORY_LOOK = 0.5


@dataclass
class _Watch:
    """One process under watch.

    Attributes:
        child: The process.
        life: When it gave the last sign of life.
        came: Whether it has given any.
        running: When each trial under way began, by number.
        phase: What it began last.
        ended: How many trials it has ended.
        last: How it says that its launch ended.
        told: The last word about stopping that it was told.
        now: When it was told to end at once.
        weighed: When its memory was looked at.
    """

    child: ChildProcess
    life: float = field(default_factory=monotonic)
    came: bool = False
    running: dict[int, float] = field(default_factory=dict)
    phase: str = "starting"
    ended: int = 0
    last: End | Failure | None = None
    told: bytes | None = None
    now: float | None = None
    weighed: float = 0.0


class _TooMuch(Exception):  # noqa: N818 - no error of the launch
    """A limit was passed; the message says which."""


class Supervisor:
    """Runs a launch in a process of its own, and in another when that dies.

    The process writes to the storage what becomes of trials; the supervisor writes there only
    what a process that has ended can tell no more.

    Args:
        plan: The launch.
        progress: Told what happens.
        stop: A request to end.
    """

    def __init__(self, plan: Plan, progress: Progress, stop: Stop) -> None:
        self._plan = plan
        self._progress = progress
        self._stop = stop
        self._evaluates = ENGINES[plan.settings.engine.name].evaluates
        self._opened: OpenedStudy | None = None
        self._entered = False

    def run(self) -> str:
        """Runs the launch; returns why it ended.

        Raises:
            EngineError: If processes die again and again before they get anywhere, or hang there.
            ParefrontError: As `Study.optimize` does.
        """
        fruitless = tries = 0
        while True:
            watch = _Watch(ChildProcess(self._plan))
            try:
                too_much = self._watched(watch)
                tried = watch.ended or (watch.running and self._evaluates)
                if isinstance(watch.last, End):
                    return watch.last.reason
                if isinstance(watch.last, Failure):
                    with suppress(StorageError):  # which may be the very failure
                        self._settle(watch, lambda _: Desk.stopped)
                    tries = 0 if watch.ended else tries
                    self._pause(watch.last, tries)
                    tries += 1
                    if self._stop.requested:
                        return Desk.was_stopped
                    continue
                if watch.now is not None:
                    self._settle(watch, lambda _: Desk.stopped)
                    return Desk.was_stopped
                reason = too_much or watch.child.how()
                self._settle_patiently(watch, self._verdict(too_much, reason))
            except BaseException:
                self._give_up(watch)
                raise
            finally:
                watch.child.close()
            fruitless = 0 if tried else fruitless + 1
            if fruitless and (too_much or fruitless == FRUITLESS):
                raise EngineError(
                    f"the process of the launch ended at '{watch.phase}': {reason}; what was told "
                    "is safe, and with --engine inline a debugger sees what happens"
                )
            if self._stop.requested:
                return Desk.was_stopped
            self._progress.phase(f"going on in a new process, for the last one ended: {reason}")

    def _watched(self, watch: _Watch) -> str | None:
        """Waits until the process has ended, or ends it; the limit that it passed, if one."""
        too_much = None
        try:
            while watch.last is None and not watch.child.ended():
                for message in watch.child.messages(_LOOK):
                    self._take(message, watch)
                self._pass_on_stop(watch)
                if watch.now is not None and monotonic() - watch.now > GRACE:
                    break
                self._look(watch)
            if watch.last is not None:
                watch.child.ended(GRACE)
        except _TooMuch as limit:
            too_much = str(limit)
        watch.child.kill()
        for message in watch.child.messages(0):  # what it told before its end
            self._take(message, watch)
        return too_much

    def _take(self, message: Message, watch: _Watch) -> None:
        watch.came = True
        if isinstance(message, Phase):
            watch.phase = message.text
            self._entered = True
            self._progress.phase(message.text)
        elif isinstance(message, Began):
            watch.running[message.trial] = monotonic()
            with suppress(StorageError):  # at hand when the process dies, before others clear up
                self._find()
            self._progress.began(message.trial, Candidate.of(message.candidate))
        elif isinstance(message, Ended):
            watch.running.pop(message.trial, None)
            watch.ended += 1
            self._progress.ended(message.trial, message.outcome)
            self._pass_on_stop(watch)  # whoever was told may have asked for it
            watch.child.tell(HEARD)
        elif isinstance(message, Outlook):
            self._progress.outlook(message.share, message.trials)
        elif isinstance(message, End | Failure):
            watch.last = message
        watch.life = monotonic()  # now, however long it took to pass it on

    def _pass_on_stop(self, watch: _Watch) -> None:
        word = NOW if self._stop.requested_now else SOON if self._stop.requested else None
        if word != watch.told and word is not None:
            watch.told = word
            watch.child.tell(word)
            watch.now = monotonic() if word == NOW else None

    def _look(self, watch: _Watch) -> None:
        """Looks whether the process keeps its limits.

        Raises:
            _TooMuch: If not.
        """
        engine, now = self._plan.settings.engine, monotonic()
        quiet = engine.hang if watch.came else max(engine.hang, STARTING)
        if now - watch.life > quiet:
            watch.child.ask_where()
            raise _TooMuch(
                f"it gave no sign of life for {describe(quiet)}{watch.child.where()}; if that is "
                "how long a step takes, raise hang in [engine]"
            )
        if not self._evaluates:
            return
        limit = self._plan.settings.study.trial_time
        began = min(watch.running.values(), default=now)
        if limit is not None and now - began > limit + GRACE:
            raise _TooMuch(took_too_long(limit))
        if engine.memory_mb is not None and now - watch.weighed > _MEMORY_LOOK:
            watch.weighed = now
            if watch.child.memory() > engine.memory_mb * 1_000_000:
                raise _TooMuch(f"it took more than {engine.memory_mb} MB of memory")

    def _verdict(self, too_much: str | None, reason: str) -> Callable[[TrialRecord], Outcome]:
        """What becomes of a trial of a process that has ended."""
        if not self._evaluates:
            stopped = Desk.stopped.model_copy(update={"reason": f"its launch ended: {reason}"})
            return lambda _: stopped
        if too_much is not None:
            return lambda _: Outcome(status=Status.FAILED, reason=too_much)
        return lambda record: died(record.deaths, record.crashes, reason)

    def _settle(self, watch: _Watch, verdict: Callable[[TrialRecord], Outcome]) -> None:
        """Records what becomes of the trials that a process has left.

        Raises:
            StorageError: If the storage fails.
            TrialError: If the unchanged model failed.
        """
        if not watch.running:
            return
        ledger, settled = self._find().ledger, []
        for entry in ledger.left_by(watch.child.owner):
            outcome = ledger.finish_left(entry, verdict(entry.record))
            if outcome is not None:
                self._progress.ended(entry.trial.number, outcome)
                settled.append((Candidate.of(entry.record.candidate), entry.trial.number, outcome))
        for each in settled:
            check_baseline(*each)

    def _settle_patiently(self, watch: _Watch, verdict: Callable[[TrialRecord], Outcome]) -> None:
        """As `_settle`, but waits for a storage that does not answer for a while.

        Raises:
            StorageError: If it fails for longer.
        """
        until, said = monotonic() + SECONDS, False
        while True:
            try:
                self._settle(watch, verdict)
            except StorageError as error:
                if monotonic() > until or self._stop.requested_now:
                    raise
                if not said:
                    self._progress.phase(f"waiting for the storage: {error}")
                said = True
                self._stop.wait(_STORAGE_PAUSE)
            else:
                return

    def _find(self) -> OpenedStudy:
        """The study, which has begun."""
        if self._opened is None:
            self._opened = OpenedStudy.find(self._plan.settings.study.name, self._plan.url)
        return self._opened

    def _give_up(self, watch: _Watch) -> None:
        """Ends a process as an error of this one, or an interrupt, asks for."""
        try:
            watch.child.tell(NOW)
            watch.child.ended(GRACE)
        finally:
            watch.child.kill()
            with suppress(StorageError):
                self._settle(watch, lambda _: Desk.stopped)

    def _pause(self, failure: Failure, tries: int) -> None:
        """Waits before a further try.

        Raises:
            ParefrontError: What ended the launch, if trying again is of no use.
        """
        # With the cluster its database may have gone, for which a new process cannot wait.
        again = failure.again or (tries > 0 and failure.type == StorageError.__name__)
        # What was never there is not away: what it is asked for may be wrong.
        if not again or not self._entered or tries == len(AGAIN):
            raise _error(failure)
        pause = AGAIN[tries]
        self._progress.phase(f"{failure.message}; trying again in {describe(pause)}")
        self._stop.wait(pause)


def _error(failure: Failure) -> ParefrontError:
    """The error that ended a launch."""
    kind = getattr(errors, failure.type, None)
    if failure.trace is None and isinstance(kind, type) and issubclass(kind, ParefrontError):
        error: ParefrontError = kind(failure.message)
        return error
    return EngineError(
        f"the launch failed by {failure.type}: {failure.message}\n{failure.trace or ''}".rstrip()
    )
