"""What the worker of a trial and the launch tell each other.

The worker reports, and Tune carries reports to the launch one at a time. To a question it waits for
an answer, which comes before it is asked for its next report.
"""

from __future__ import annotations

import enum
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from parefront.errors import TrialError
from parefront.objectives.measurement import Measurement
from parefront.search.desk import took_too_long
from parefront.search.pipeline import Interrupted
from parefront.search.records import Outcome, Rung
from parefront.spaces.space import Candidate

PULSE = 1.0
"""Seconds after which a worker reports that it is there, whatever it does."""


class Kind(enum.StrEnum):
    """What a report says."""

    ALIVE = "alive"
    """The trial goes on, or so it seems: whether it gave a sign of life since."""
    BEGAN = "began"
    """The worker is ready, and began to evaluate."""
    GATE = "gate"
    """Asks whether an untrained candidate is worth training."""
    RUNG = "rung"
    """Asks whether a training goes on."""
    OUTCOME = "outcome"
    """The trial is over."""
    BROKEN = "broken"
    """No trial can be evaluated here, whatever it is."""


class Report(BaseModel):
    """What a worker tells.

    Attributes:
        kind: What it says.
        signs: Signs of life that the trial has given so far.
        known: What was measured before training, for the gate.
        share: Share of the training that is done, for a rung.
        values: Objectives by name, for a rung.
        outcome: How the trial ended.
        error: Name of the type of what was raised, and its message.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    signs: int = 0
    known: Mapping[str, Measurement] = {}
    share: float = 0.0
    values: Mapping[str, float] = {}
    outcome: Outcome | None = None
    error: tuple[str, str] | None = None


class Answer(BaseModel):
    """What the launch answers.

    Attributes:
        hopeless: Why the candidate is not worth training; `None` if it may be.
        rung: What was decided at a rung.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hopeless: str | None = None
    rung: Rung | None = None


class Line:
    """The worker's end: its evaluating thread on one side, its reports on the other."""

    def __init__(self) -> None:
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._left = threading.Event()
        self._signs = 0

    def tell(self, report: Report) -> None:
        """Reports."""
        self._reports.put(report)

    def ask(self, report: Report) -> Answer:
        """Reports a question, and waits for the answer.

        Raises:
            Interrupted: If the trial was left.
        """
        self._reports.put(report)
        answer = self._answers.get()
        if answer is None:
            raise Interrupted
        return answer

    def answer(self, answer: Answer) -> None:
        """Answers the question."""
        self._answers.put(answer)

    def next(self) -> Report:
        """The next report; after `PULSE` only that there is none."""
        try:
            return self._reports.get(timeout=PULSE)
        except queue.Empty:
            return Report(kind=Kind.ALIVE, signs=self._signs)

    def sign(self) -> None:
        """Gives a sign of life."""
        self._signs += 1

    def leave(self) -> None:
        """Has the thread leave the trial at its next tick."""
        self._left.set()
        self._answers.put(None)

    def ticking(self, seconds: float | None) -> Callable[[], None]:
        """What a trial calls between short steps, as `Desk.ticking` gives it."""
        began = time.monotonic()

        def tick() -> None:
            self.sign()
            if self._left.is_set():
                raise Interrupted
            if seconds is not None and time.monotonic() - began > seconds:
                raise TrialError(took_too_long(seconds))

        return tick


class AskingChecks:
    """The checks of a trial that the launch decides on.

    Args:
        line: Carries the questions.
        gates: As in `Checks`.
        rungs: As in `Checks`.
    """

    def __init__(self, line: Line, *, gates: bool, rungs: tuple[float, ...]) -> None:
        self._line = line
        self.gates = gates
        self.rungs = rungs

    def hopeless(
        self,
        candidate: Candidate,  # noqa: ARG002 - the launch has it
        known: Mapping[str, Measurement],
    ) -> str | None:
        """Asks the launch."""
        return self._line.ask(Report(kind=Kind.GATE, known=dict(known))).hopeless

    def judge(self, share: float, values: Mapping[str, float]) -> Rung:
        """Asks the launch."""
        rung = self._line.ask(Report(kind=Kind.RUNG, share=share, values=dict(values))).rung
        return rung or Rung(share=share, values=values, rivals=0, promoted=True)


def tune_result(report: Report) -> dict[str, Any]:
    """A report as Tune carries it."""
    return {"report": report.model_dump_json()}
