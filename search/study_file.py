"""The study file: what a study is, in TOML, and the same as a frozen value in Python."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from parefront.errors import StudyFileError
from parefront.objectives.catalog import OBJECTIVES
from parefront.objectives.objective import Bound
from parefront.objectives.targets.target import Target
from parefront.search.samplers.catalog import SAMPLERS

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")


def duration(text: str) -> float:
    """Seconds of a duration such as `"90s"`, `"3m"` or `"1h30m"`.

    Raises:
        ValueError: If it cannot be read or is zero.

    Example:
        >>> duration("1h30m")
        5400.0
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"expected a duration such as 90s, 3m or 1h30m, got '{text}'")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if total <= 0:
        raise ValueError(f"expected a duration above 0, got '{text}'")
    return total


def _seconds(value: object) -> object:
    return duration(value) if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StudySection(_Section):
    """What is searched, and for how long."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        description="Name of the study in its storage: letters, digits, '.', '_' and '-'.",
    )
    task: str = Field(
        description="The task: path/to/file.py:name (relative to the study file, then to the "
        "current folder) or package.module:name."
    )
    trials: int | None = Field(
        default=None, ge=1, description="Trials in all, the baseline and failed ones included."
    )
    time: Seconds | None = Field(
        default=None,
        description='Time of the search in all, such as "90s", "3m" or "1h30m"; no trial begins '
        "that is not expected to end in time.",
    )
    trial_time: Seconds | None = Field(
        default=None, description='Time one trial may take before it fails, such as "5m".'
    )
    seed: int = Field(default=0, ge=0, description="Seed of everything random.")
    sampler: str = Field(
        default="tpe", description=f"What proposes candidates: {', '.join(SAMPLERS)}."
    )

    @field_validator("sampler")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SAMPLERS:
            raise ValueError(f"there is no such sampler{_hint(name, list(SAMPLERS))}")
        return name


class StudyFile(_Section):
    """A whole study file."""

    study: StudySection
    objectives: dict[str, Bound] = Field(
        default_factory=lambda: {objective.name: Bound() for objective in OBJECTIVES},
        min_length=1,
        description="What is optimised: "
        + ", ".join(objective.name for objective in OBJECTIVES)
        + ". Each may have a bound: at_least or at_most, in the unit of its column ("
        + ", ".join(objective.column for objective in OBJECTIVES)
        + ").",
    )
    target: Target = Field(default_factory=Target, description="Where and how artifacts run.")
    space: dict[str, dict[str, Any]] | None = Field(
        default=None,
        description="Stages to search over, each with ranges and choices; leave the section out "
        "for every stage that fits the model.",
    )

    @classmethod
    def read(cls, path: Path) -> StudyFile:
        """Reads and checks a study file.

        Raises:
            StudyFileError: If the file is missing, is not TOML, or is not valid.
        """
        try:
            with path.open("rb") as file:
                content = tomllib.load(file)
        except OSError as error:
            raise StudyFileError(f"cannot read study file {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise StudyFileError(f"{path} is not valid TOML: {error}") from error
        return cls.of(content, str(path))

    @classmethod
    def of(cls, content: Mapping[str, object], where: str = "study") -> StudyFile:
        """Checks the content of a study file.

        Raises:
            StudyFileError: Naming the key, what was expected, and the nearest known key.
        """
        try:
            checked = cls.model_validate(content)
        except ValidationError as error:
            raise StudyFileError(f"{where}: {_explain(error)}") from error
        known = [objective.name for objective in OBJECTIVES]
        for name in checked.objectives:
            if name not in known:
                raise StudyFileError(f"{where}: [objectives] has no '{name}'{_hint(name, known)}")
        return checked


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    *path, key = [str(part) for part in first["loc"]] or ["file"]
    section = f"[{'.'.join(path)}] " if path else ""
    if first["type"] == "extra_forbidden":
        return f"{section}unknown key '{key}'{_hint(key, _keys(path))}"
    if first["type"] == "missing":
        return f"{section}'{key}' is missing; it is needed"
    message = first["msg"].removeprefix("Value error, ")
    return f"{section}{key}: {message}, got {first['input']!r}"


def _keys(path: list[str]) -> list[str]:
    model: Any = StudyFile
    for part in path:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = field.annotation if field is not None else Bound
    return list(getattr(model, "model_fields", Bound.model_fields))


def _hint(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(known)}"
