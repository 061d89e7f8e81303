"""What a study measures: objectives, each on a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from parefront.errors import StudyFileError
from parefront.objectives.catalog import ALL, OBJECTIVES
from parefront.objectives.custom import FunctionObjective
from parefront.objectives.measurement import Direction
from parefront.objectives.objective import Objective
from parefront.search.goal import Goal
from parefront.search.loading import load_function

RESERVED = frozenset(
    (
        *("trial", "state", "reason", "origin", "candidate_id", "candidate", "feasible"),
        *("violation", "on_front", "front_probability", "speedup", "shrink"),
        *("artifact_sha256", "started"),
        *("finished", "seconds", "achieved", "rungs", "runtime"),
    )
)
"""Columns of the frames that are no objective."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """An objective on a target: one column of a study.

    Attributes:
        name: Key in a study file and in records, such as `"latency"` or `"latency_pi"`.
        column: Column of the value in frames and JSON.
        objective: What is measured.
        target: Name of a further target; `None` for the study's main one, and for what does not
            depend on a device.
        goal: What the study wants of it.
    """

    name: str
    column: str
    objective: Objective
    target: str | None
    goal: Goal

    def direction(self, metric: Direction) -> Direction:
        """Which values are better, given the direction of the task's metric."""
        return self.objective.direction(metric)


def measures(
    goals: Mapping[str, Goal], targets: Sequence[str], base: Path | None = None
) -> tuple[Measure, ...]:
    """All that a study measures, in the order in which it is shown.

    Accuracy, latency and size are always measured, and optimised if they are named. Everything
    that depends on a device is measured on every target.

    Args:
        goals: The `[objectives]` section.
        targets: Names of the further targets.
        base: Folder against which files with a user's own objectives are resolved.

    Raises:
        StudyFileError: If there is no such objective, or none is optimised.
    """
    own = [_own(name, goal, base) for name, goal in goals.items() if goal.function is not None]
    chosen = [o for o in ALL if o in OBJECTIVES or o.name in goals] + own
    # Asked for on one further target alone, as in `memory_pi`.
    further = {f"{o.name}_{target}" for o in ALL if o.on_device for target in targets}
    known = [*(o.name for o in (*ALL, *own)), *sorted(further)]
    for name in goals:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
            raise StudyFileError(f"[objectives] has no '{name}'; {hint}")
    shown = Goal(optimize=False)
    found = [
        Measure(
            name=o.name,
            column=o.column,
            objective=o,
            target=None,
            goal=goals.get(o.name, shown),
        )
        for o in chosen
    ]
    for target in targets:
        for o in ALL:
            name = f"{o.name}_{target}"
            if o.on_device and (o in chosen or name in goals):
                main = goals.get(o.name, shown)
                found.append(
                    Measure(
                        name=name,
                        column=f"{o.column}_{target}",
                        objective=o,
                        target=target,
                        # A bound is a limit of one device.
                        goal=goals.get(name, Goal(optimize=main.optimize)),
                    )
                )
    _check_columns(found, targets)
    if not any(measure.goal.optimize for measure in found):
        raise StudyFileError("[objectives] optimises nothing; leave out 'optimize' in one of them")
    return tuple(found)


def _check_columns(found: Sequence[Measure], targets: Sequence[str]) -> None:
    """Refuses names that would make two columns of one name.

    Raises:
        StudyFileError: Naming the column.
    """
    columns = list(RESERVED)
    kinds = ("on_front", "front_probability", "speedup")
    columns += [f"{kind}_{target}" for kind in kinds for target in targets]
    columns += [f"{m.column}{end}" for m in found for end in ("", "_low", "_high")]
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise StudyFileError(
            f"a study would have two columns '{twice}'; give the target or your own objective "
            "another name"
        )


def _own(name: str, goal: Goal, base: Path | None) -> Objective:
    @cache
    def loaded() -> Callable[..., Any]:
        return load_function(str(goal.function), base or Path.cwd())

    return FunctionObjective(
        name,
        lambda path: loaded()(path),
        unit=goal.unit,
        direction=goal.direction or Direction.MINIMIZE,
        dear=goal.dear,
        noisy=goal.noisy,
    )
