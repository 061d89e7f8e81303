"""The launch's side of what runs on the workers: which trials are out, and what becomes of them."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import parefront.errors
from parefront.errors import EngineError, ParefrontError, TrialError
from parefront.search.budget import describe
from parefront.search.desk import Desk, Started, took_too_long
from parefront.search.engines.ray.talk import Answer, Kind, Report
from parefront.search.pipeline import Interrupted
from parefront.search.records import Outcome, Status

OVERTIME = 30.0
"""Seconds beyond its time that a trial has to say itself that it took too long."""
STILLBORN = 3
"""So many workers in a row that fail before they begin: there is something wrong with all."""
MOVES = 3
"""So many nodes or workers that go away under one candidate: it may be its doing."""
NOTICE = 30.0
"""Seconds without any worker after which it is said what is waited for."""

_NODE = re.compile(r"node (has died|was|died|is dead)|[Oo]wner's node|node_death|preempted")
# What Ray says where it cannot tell a killed worker from a node that is gone, which it finds later.
_AWAY = re.compile(r"The actor \w+ is unavailable")
_DETAIL = re.compile(r"Worker exit detail: (.+?)(?: Some common causes|$)", re.DOTALL)


@dataclass
class Out:
    """A trial that a worker has.

    Attributes:
        started: The trial.
        began: When its evaluation began; `None` while it waits for a worker.
        seen: When it last gave a sign of life; `None` while no worker has reported.
        signs: Signs of life so far.
        ending: Why its worker was told to end, if it was.
    """

    started: Started
    began: float | None = None
    seen: float | None = None
    signs: int = -1
    ending: str | None = None


class Conductor:
    """Takes trials from a desk for Tune, and gives them back.

    Nothing it is asked by Tune raises: an error is kept in `error`, and ends the search.

    Args:
        desk: Hands out trials.
        workers: How many trials may be out at once.
        lost: An error if the cluster is gone.
        hang: Seconds without a sign of life after which a trial counts as hanging.
        needs: What a worker needs, in words.

    Attributes:
        out: The trials that are out, by Tune's id.
        ended: Why there are no more, once that is so.
        error: What ends the search.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        workers: Callable[[], int],
        lost: Callable[[], EngineError | None],
        hang: float,
        needs: str = "",
    ) -> None:
        self.desk = desk
        self.out: dict[str, Out] = {}
        self.ended: str | None = None
        self.error: BaseException | None = None
        self._workers = workers
        self._lost = lost
        self._hang = hang
        self._needs = needs
        self._waiting: float | None = None
        self._told = False
        self._useless: list[str] = []
        self._stillborn = 0
        self._moves: Counter[str] = Counter()

    @property
    def over(self) -> bool:
        """Whether to leave everything at once."""
        return self.error is not None or self.desk.stop.requested_now

    @property
    def stranded(self) -> bool:
        """Whether the cluster is gone."""
        return isinstance(self.error, EngineError) and self.error.again

    def take(self, key: str) -> Started | str | None:
        """A trial for a worker, or why there are no more; `None` while others decide that."""
        if self.over or self.desk.stop.requested:
            self.ended = self.desk.was_stopped
        elif len(self.out) >= self._workers() or (self.out and self.desk.pauses.left):
            return None
        # What runs may yet be interrupted, and has to be tried again: the end is not the end.
        elif self.ended is None or not self.out:
            with self._kept():
                try:
                    chosen = self.desk.next()
                except Interrupted:
                    chosen = self.desk.was_stopped
                if isinstance(chosen, Started):
                    self.out[key] = Out(chosen)
                    self._waiting = self._waiting or time.monotonic()
                    return chosen
                self.ended = chosen
        return None if self.out else self.ended or self.desk.was_stopped

    def hear(self, key: str, report: Report) -> Answer | None:
        """Takes a report; returns what to answer, if it asks."""
        out = self.out.get(key)
        if out is None:
            return None
        now, self._told = time.monotonic(), True  # there is a worker
        if report.kind != Kind.ALIVE or report.signs != out.signs:
            out.seen, out.signs = now, report.signs
        if report.kind == Kind.BEGAN and out.ending is None:
            out.began, self._stillborn = now, 0
        with self._kept():
            if report.kind == Kind.GATE:
                checks, candidate = out.started.checks, out.started.candidate
                return Answer(hopeless=checks.hopeless(candidate, report.known))
            if report.kind == Kind.RUNG:
                return Answer(rung=out.started.checks.judge(report.share, report.values))
            if report.kind == Kind.BROKEN and report.error is not None:
                raised = _raised(*report.error)
                if isinstance(raised, TrialError) and out.began is None:
                    # Such as a full disk, which another machine may not have.
                    out.ending = str(raised)
                    self._useless.append(key)
                else:
                    self.error = self.error or raised
            if report.kind == Kind.OUTCOME and report.outcome is not None:
                self._back(key)
                self.desk.finish(out.started, report.outcome)
        return None

    def died(self, key: str, how: str) -> None:
        """The worker of a trial is gone.

        Args:
            key: Tune's id of the trial.
            how: What Ray says of it.
        """
        out = self._back(key)
        if out is None:
            return
        with self._kept():
            self.error = self.error or self._lost()
            if out.ending is not None and out.began is not None:
                self.desk.finish(out.started, Outcome(status=Status.FAILED, reason=out.ending))
            elif self.error is not None:
                self.desk.give_up(out.started, str(self.error))
            elif out.ending is not None:
                self._failed_early(out, out.ending)
            elif _NODE.search(how) and self._moved(out):
                self.desk.give_up(out.started, "the node it ran on left the cluster")
            elif _AWAY.search(how) and self._moved(out):
                self.desk.give_up(out.started, "its worker cannot be reached any more")
            elif out.began is None:
                self._failed_early(out, f"its worker died: {_brief(how)}")
            else:
                self.desk.lost(out.started, _brief(how))

    def overdue(self) -> list[str]:
        """Trials whose workers are to be ended, by Tune's id; called often."""
        self.error = self.error or self._lost()
        now = time.monotonic()
        found, self._useless = self._useless, []
        for key, out in self.out.items():
            reason = self._too_long(out, now)
            if reason is not None and out.ending is None:
                out.ending = reason
                found.append(key)
        if (
            self.out
            and not self._told
            and self._waiting is not None
            and now - self._waiting > NOTICE
        ):
            self._told = True
            self.desk.progress.phase(f"waiting for a node with {self._needs}")
        return found

    def leave(self) -> None:
        """Gives up what is still out.

        Raises:
            StorageError: If the storage fails.
        """
        reason = str(self.error) if self.error is not None else None
        for key in list(self.out):
            self.desk.give_up(self.out.pop(key).started, reason)

    def _back(self, key: str) -> Out | None:
        # With room again, and perhaps a candidate to be tried again, the desk is asked anew.
        if not self.desk.stop.requested:
            self.ended = None
        return self.out.pop(key, None)

    def _too_long(self, out: Out, now: float) -> str | None:
        limit = self.desk.trial_seconds
        if limit is not None and out.began is not None and now - out.began > limit + OVERTIME:
            return took_too_long(limit)
        if out.seen is not None and now - out.seen > self._hang:
            silent = f"it gave no sign of life for {describe(self._hang)}"
            preparing = " while its worker was prepared; if that takes so long, raise hang"
            return silent if out.began is not None else f"{silent}{preparing}"
        return None

    def _failed_early(self, out: Out, how: str) -> None:
        """The worker of a trial was of no use; the candidate has nothing to do with it."""
        self.desk.give_up(out.started, f"before it began, {how}")
        self._stillborn += 1
        if self._stillborn >= STILLBORN:
            self.error = EngineError(
                f"{STILLBORN} workers failed one after another before they began, the last so: "
                f"{how}; run the study with the engine 'inline' to see why"
            )

    def _moved(self, out: Out) -> bool:
        """Whether it is taken for an accident that its node or worker went away."""
        self._moves[out.started.candidate.id] += 1
        return self._moves[out.started.candidate.id] < MOVES

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Keeps an error from Tune, which would make text of it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised again when Tune has ended
            self.error = self.error or error


def _brief(how: str) -> str:
    """What Ray says of a death, in a line."""
    found = _DETAIL.search(how)
    text = found[1] if found else how
    return re.sub(r"\s+", " ", text).strip().rstrip(".")[:300]


def _raised(name: str, message: str) -> ParefrontError:
    """An error of ours that was raised in a worker."""
    kind = getattr(parefront.errors, name, None)
    if isinstance(kind, type) and issubclass(kind, ParefrontError):
        return kind(message)
    return EngineError(message)
