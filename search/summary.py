"""What a reader must know about a study besides its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from parefront.objectives.measurement import Direction
from parefront.objectives.objective import Bound


@dataclass(frozen=True, kw_only=True)
class ObjectiveSummary:
    """How to read one objective's columns of the trials frame.

    Attributes:
        name: Key of the objective in a study file.
        column: Column of the value; `{column}_low` and `{column}_high` hold its interval.
        unit: Unit of the value, empty for a plain number.
        direction: Which values are better.
        label: What to call it, such as the name of the task's metric.
        bound: Limit that candidates must keep.
        optimized: Whether the search optimises it; if not, it is shown only.
        log: Whether ratios of its values matter rather than differences.
        target: Name of the further target it was measured on, `None` for the main one.
        on_device: Whether its value belongs to a device.
    """

    name: str
    column: str
    unit: str
    direction: Direction
    label: str
    bound: Bound = field(default_factory=Bound)
    optimized: bool = True
    log: bool = False
    target: str | None = None
    on_device: bool = False

    @property
    def maximize(self) -> bool:
        """Whether larger values are better."""
        return self.direction is Direction.MAXIMIZE


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A study without its trials.

    Attributes:
        study: Name of the study.
        targets: Names of the further targets; each has a front of its own.
        objectives: The objectives in the order in which they are shown. The column of the task's
            metric is always `accuracy`, whatever its label.
        baseline: Trial number of the unchanged model, `None` if it was not measured.
        seed: Seed of the search.
        budget: What the search was allowed to spend, in words.
        protocol: How the values were measured, in a few sentences.
        fingerprint: The device and its runtime, as JSON-able facts.
        versions: Version of each library that matters, by name.
        stages_left_out: Why a stage of the space was never tried, by stage name.
        generated: When the summary was made.
    """

    study: str
    objectives: tuple[ObjectiveSummary, ...]
    baseline: int | None
    seed: int
    budget: str
    protocol: str
    fingerprint: Mapping[str, Any]
    versions: Mapping[str, str]
    stages_left_out: Mapping[str, str]
    generated: datetime
    targets: tuple[str, ...] = ()

    @property
    def accuracy(self) -> ObjectiveSummary:
        """How to read the task's metric."""
        return next(objective for objective in self.objectives if objective.name == "accuracy")

    def on(self, target: str | None) -> tuple[ObjectiveSummary, ...]:
        """The objectives that make the front of a target: its own, and those of no device."""
        return of_target(self.objectives, target)

    @property
    def directions(self) -> dict[str, Direction]:
        """Directions of the objectives that the search optimises, by name."""
        return {each.name: each.direction for each in self.objectives if each.optimized}


def of_target(
    objectives: Sequence[ObjectiveSummary], target: str | None
) -> tuple[ObjectiveSummary, ...]:
    """The objectives that make the front of a target, `None` for the main one."""
    return tuple(
        each
        for each in objectives
        if each.optimized and (each.target == target or not each.on_device)
    )
