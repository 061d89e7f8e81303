"""What is known before a search begins: a user's own candidates, and values seen elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from random import Random
from typing import Annotated, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FixedTrial
from pydantic import BaseModel, ConfigDict, Field

from parefront.errors import SpaceError, StudyFileError
from parefront.objectives.measurement import Finite
from parefront.search.guide import Drawn
from parefront.search.samplers.screening.drawn_space import DrawnSpace
from parefront.spaces.catalog import STAGES
from parefront.spaces.space import AnyStage, Candidate, Space
from parefront.spaces.stage import StageConfig


class Known(BaseModel):
    """A part of what is known beforehand; frozen, and the same after a way through JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Observation(Known):
    """What some objectives of a candidate came out at, in a place other than a trial.

    Attributes:
        candidate: JSON-able configs by stage name.
        values: Values by the name of the objective, in the unit of its column.
        fidelity: 1 for what a finished trial measures, less for what was seen before the end of
            the candidate's training, down to 0 for what was seen without training.
        source: Empty for the search's own task and baseline, else what tells this place from
            others that resemble it.
    """

    candidate: Mapping[str, Mapping[str, Any]]
    values: Mapping[str, Finite]
    fidelity: Annotated[float, Field(ge=0, le=1)] = 1.0
    source: str = ""

    def drawn(self, space: Space) -> Drawn | None:
        """The candidate as a space draws it; `None` if the space cannot."""
        return drawn(self.candidate, space)


def drawn(configs: Mapping[str, Mapping[str, Any]], space: Space) -> Drawn | None:
    """A candidate as a space draws it.

    Args:
        configs: JSON-able configs by stage name, as `Candidate.as_dict` gives them.
        space: The space.

    Returns:
        The candidate with its parameters and their distributions; `None` if the space has no such
        stage or config, or no draw of it gives exactly these configs.
    """
    try:
        candidate = space.candidate(configs)
    except SpaceError:
        return None
    same = Drawn.of(candidate, space)
    # Where the space does not allow a value, another one was drawn.
    if space.suggest(FixedTrial(dict(same.parameters))) != candidate:
        return None
    return same


def own_candidates(
    start: Sequence[Mapping[str, Mapping[str, Any]]],
    space: Space,
    left_out: Mapping[str, str] | None = None,
) -> list[Candidate]:
    """The candidates that a user wants tried, from the `[[start]]` tables of a study file.

    A field that the space leaves no choice for may be left out, and so may a stage that others
    make necessary: it is added with its first anchor.

    Args:
        start: Configs by stage name, one table a candidate.
        space: The space of the search.
        left_out: Why a stage is not in the space, by name.

    Returns:
        The candidates in the order of the tables, each once.

    Raises:
        StudyFileError: If the space cannot draw one of them; it names the table, stage and field,
            what was expected and what was got.
    """
    found = []
    for number, table in enumerate(start, 1):
        where = f"[[start]] table {number}"
        _check_stages(table, space, left_out or {}, where)
        configs: dict[str, StageConfig] = {}
        for position, stage in enumerate(space.stages):
            if stage.name in table:
                before = {each.name for each in space.stages[:position]}
                on = {n: c for n, c in space.completed(configs).configs if n in before}
                configs[stage.name] = _own_config(stage, table[stage.name], on, where)
        candidate = space.completed(configs)
        try:
            space.candidate(candidate.as_dict() | Candidate(tuple(configs.items())).as_dict())
        except SpaceError as error:
            raise StudyFileError(f"{where}: {error}; take one of them out") from error
        found.append(candidate)
    return list(dict.fromkeys(found))


def _check_stages(
    table: Mapping[str, object], space: Space, left_out: Mapping[str, str], where: str
) -> None:
    names = [stage.name for stage in space.stages]
    for name in table:
        if name in names:
            continue
        if name in left_out:
            raise StudyFileError(
                f"{where}: '{name}' has nothing to do in this model ({left_out[name]}); "
                "take it out of the table"
            )
        if name in {stage.name for stage in STAGES}:
            raise StudyFileError(
                f"{where}: '{name}' is not in [space], which has {', '.join(names)}; add it there, "
                "or take it out of the table"
            )
        raise StudyFileError(f"{where}: there is no stage '{name}'{_hint(name, names)}")


def _own_config(
    stage: AnyStage, given: Mapping[str, Any], on: Mapping[str, StageConfig], where: str
) -> StageConfig:
    """The config of the given fields, with those filled in that nothing else is possible for."""
    fields = list(stage.config_type.model_fields)
    for field, value in given.items():
        if field not in fields:
            raise StudyFileError(
                f"{where}: {stage.name} has no field '{field}'{_hint(field, fields)}"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise StudyFileError(
                f"{where}, {stage.name}.{field}: expected a finite number, got {value}"
            )
    found: list[StageConfig] = []
    point = DrawnSpace(lambda trial: found.append(stage.draw(trial, on))).draw(
        Random(0), {f"{stage.name}.{field}": value for field, value in given.items()}
    )
    values = found[0].model_dump(mode="json")
    for field in fields:
        distribution = point.distributions.get(f"{stage.name}.{field}")
        expected = _expected(distribution, field, values)
        if field not in given:
            if distribution is not None and not distribution.single():
                raise StudyFileError(
                    f"{where}, {stage.name}.{field}: expected {expected}, got nothing; write it "
                    f"in the table, or fix it in [space]"
                )
        elif not _same(given[field], values.get(field)):
            raise StudyFileError(
                f"{where}, {stage.name}.{field}: expected {expected}, got {given[field]!r}; "
                f"change it here, or the choices of {stage.name} in [space]"
            )
    return found[0]


def _expected(
    distribution: BaseDistribution | None, field: str, values: Mapping[str, object]
) -> str:
    """What a field may be, in words."""
    if isinstance(distribution, CategoricalDistribution):
        return "one of " + ", ".join(repr(choice) for choice in distribution.choices)
    if isinstance(distribution, IntDistribution):
        return f"a whole number from {distribution.low} to {distribution.high}"
    if isinstance(distribution, FloatDistribution):
        return f"a number from {distribution.low:g} to {distribution.high:g}"
    if values.get(field) is None:
        return "nothing, for it has no use beside the other fields"
    return f"{values[field]!r}, which is all that [space] allows"


def _same(given: object, value: object) -> bool:
    """Whether two values are one; true is no number here."""
    return isinstance(given, bool) == isinstance(value, bool) and given == value


def _hint(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(known)}"
