"""Trials one after another in this very process, as a debugger wants them."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from parefront.objectives.targets.device import Device
from parefront.objectives.targets.target import Target
from parefront.search.desk import Desk
from parefront.search.launch import Stop
from parefront.search.pipeline import Interrupted, Pipeline
from parefront.search.plan import Plan


class InlineEngine:
    """Evaluates one trial after another, here; what takes this process down ends the launch."""

    def __init__(self, plan: Plan, stop: Stop) -> None:  # noqa: ARG002 - there is nothing to wait for
        self.plan = plan

    def __enter__(self) -> Self:
        """Nothing to take."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to give back."""

    def device(self, name: str | None, target: Target) -> Device:  # noqa: ARG002
        """The target's own."""
        return target.open()

    def run(self, desk: Desk, pipeline: Pipeline) -> str:
        """Evaluates trials until there are no more, or a stop is requested."""
        while not desk.stop.requested:
            try:
                started = desk.next()
            except Interrupted:
                break
            if isinstance(started, str):
                return started
            try:
                outcome = pipeline.evaluate(started.candidate, desk.ticking(), started.checks)
            except Interrupted:
                outcome = desk.stopped
            except BaseException:
                desk.give_up(started)
                raise
            desk.finish(started, outcome)
        return desk.was_stopped
