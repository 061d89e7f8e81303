"""What decides whether a trial is worth going on with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from parefront.objectives.measurement import Measurement
from parefront.search.ledger import Ledger
from parefront.search.records import Rung
from parefront.search.rungs import EarlyStopping
from parefront.spaces.space import Candidate

Hopeless = Callable[[Candidate, Mapping[str, Measurement]], str | None]


@dataclass(frozen=True)
class TrialChecks:
    """The gate and the rungs of one trial.

    Attributes:
        gate: Says why a candidate cannot reach the front; `None` to train all.
        early: Decides at the rungs; `None` to train to the end.
        ledger: Keeps what the trial is worth at each rung.
        trial_id: The storage's id of the trial.
    """

    gate: Hopeless | None
    early: EarlyStopping | None
    ledger: Ledger
    trial_id: int

    @property
    def gates(self) -> bool:
        """Whether there is a gate."""
        return self.gate is not None

    @property
    def rungs(self) -> tuple[float, ...]:
        """Shares of a training at which it is judged."""
        return self.early.rule.shares if self.early is not None else ()

    def hopeless(self, candidate: Candidate, known: Mapping[str, Measurement]) -> str | None:
        """Asks the gate."""
        return self.gate(candidate, known) if self.gate is not None else None

    def judge(self, share: float, values: Mapping[str, float]) -> Rung:
        """Compares with all trials that came so far, and tells those that come later."""
        if self.early is None:
            return Rung(share=share, values=values, rivals=0, promoted=True)
        rung = self.early.judge(share, values)
        self.ledger.report(self.trial_id, rung)
        return rung
