"""The study file: what a study is, in TOML, and the same as a frozen value in Python."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from parefront.errors import SpaceError, StudyFileError
from parefront.objectives.catalog import ALL, OBJECTIVES
from parefront.objectives.targets.catalog import runtime
from parefront.objectives.targets.target import Target
from parefront.search.engines.catalog import ENGINES
from parefront.search.goal import Goal
from parefront.search.measures import measures
from parefront.search.place import SecretPlaceError, check_place, resolved
from parefront.search.samplers.catalog import SAMPLERS
from parefront.spaces.space import Space
from parefront.spaces.stage import TargetTraits

STUDY_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What the name of a study looks like."""
SCREENING = "screening"
AUTO = "auto"
ENGINE = "process"
"""The engine of a study that names none, unless the environment does."""
ENGINE_VARIABLE = "PAREFRONT_ENGINE"
"""Environment variable that names the engine of studies that name none."""
NAMES = [SCREENING, *SAMPLERS, AUTO]
"""All that `sampler` may say."""

_HIDDEN = "hidden"
"""Type of an error whose input is not shown."""
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
        pattern=STUDY_NAME,
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
    settle: Annotated[float, BeforeValidator(_seconds), Field(ge=0, allow_inf_nan=False)] = Field(
        default=15.0,
        description="Time after the search for measuring candidates again whose place on the "
        "front is undecided; 0 for none.",
    )
    cache_mb: int = Field(
        default=2000,
        ge=0,
        description="Megabytes of what stages made that are kept, so that no stage runs twice for "
        "the same beginning of a candidate, in any study; 0 for none.",
    )
    files: str | None = Field(
        default=None,
        description="Where artifacts, baselines and what stages made are kept: a folder, such as "
        'a shared one, or a URL such as "s3://bucket/folder"; by default beside the SQLite file, '
        "or in .parefront/.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of everything random.")
    sampler: str = Field(
        default=SCREENING,
        description=f"What proposes candidates: {', '.join(NAMES)}. '{AUTO}' picks one by the size "
        "of the space, the budget and the cost of a trial, and says why.",
    )
    siblings: bool = Field(
        default=True,
        description="Whether what was trained for a candidate on the front is tried with every "
        "other way to go on, which trains nothing.",
    )
    gate: bool = Field(
        default=True,
        description="Whether a candidate is left untrained that could not reach the front even "
        "with the best accuracy to expect.",
    )
    early_stop: bool = Field(
        default=True,
        description="Whether training stops half-way where others are ahead in accuracy, latency "
        "and size together.",
    )
    no_gain: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="The search ends when the rest of the budget is expected to add less than this "
        "share to the front's hypervolume, such as 0.01; 0 for never.",
    )
    warm_start: tuple[str, ...] = Field(
        default=(),
        description="Earlier studies to learn from, of the same task or another one, on any "
        'device: names in the same storage, or "name@URL" in another.',
    )
    sensitivity: bool = Field(
        default=False,
        description="Whether each stage is tried by itself without training first, to begin with "
        "what costs little accuracy.",
    )

    @field_validator("files")
    @classmethod
    def _keeps(cls, files: str | None) -> str | None:
        if files is not None:
            try:
                check_place(files)
            except SecretPlaceError as error:
                raise PydanticCustomError(_HIDDEN, "{why}", {"why": str(error)}) from None
        return files

    @field_validator("sampler")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in NAMES:
            raise ValueError(f"there is no such sampler{_hint(name, NAMES)}")
        return name


class EngineSection(_Section):
    """Where trials run, and how many at once."""

    name: str = Field(
        default_factory=lambda: os.environ.get(ENGINE_VARIABLE, ENGINE),
        validate_default=True,
        description="The engine. "
        + " ".join(f"'{name}': {kind.about}." for name, kind in ENGINES.items())
        + f" The environment variable {ENGINE_VARIABLE} names another default.",
    )
    hang: Seconds = Field(
        default=600.0,
        description='Time without a sign of life, such as "10m", after which what runs counts as '
        "hanging, and is ended. Steps of training and measurements are signs of life.",
    )
    memory_mb: int | None = Field(
        default=None,
        ge=1,
        description="Megabytes that a trial may take, with all processes it starts, before it "
        "fails, and that a Ray cluster keeps free for it; - for no limit.",
    )
    address: str | None = Field(
        default=None,
        description='The Ray cluster to join: "auto" for the one of this machine, or host:port of '
        "its head; - to start Ray here for the launch.",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        description="Trials at once, at most; - for as many as the cluster has room for now.",
    )
    cpus: float = Field(default=1.0, gt=0, le=1024, description="Cores of a trial.")
    gpus: float = Field(
        default=0.0, ge=0, le=1024, description="GPUs of a trial; a share of one may be given."
    )
    resources: dict[str, float] = Field(
        default_factory=dict,
        description="Further resources of Ray that a trial needs, such as {bignode = 1}.",
    )

    @field_validator("resources")
    @classmethod
    def _custom(cls, resources: dict[str, float]) -> dict[str, float]:
        known = {"cpu": "cpus", "gpu": "gpus", "memory": "memory_mb"}
        for name, amount in resources.items():
            if name.lower() in known:
                raise ValueError(f"'{name}' has a key of its own, '{known[name.lower()]}'")
            if not amount > 0:
                raise ValueError(f"expected an amount of '{name}' above 0")
        return resources

    @field_validator("cpus", "gpus")
    @classmethod
    def _shared(cls, amount: float) -> float:
        if amount > 1 and not amount.is_integer():
            raise ValueError("expected a whole number, or a share of one")
        return amount

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ENGINES:
            raise ValueError(f"there is no such engine{_hint(name, list(ENGINES))}")
        return name

    @model_validator(mode="after")
    def _taken(self) -> Self:
        takes = ENGINES[self.name].takes
        blank = {
            name: field.get_default(call_default_factory=True)
            for name, field in type(self).model_fields.items()
        }
        for key in sorted(self.model_fields_set - takes - {"name"}):
            if getattr(self, key) == blank[key]:  # as a study in a storage has them all
                continue
            able = [name for name, kind in ENGINES.items() if key in kind.takes]
            raise ValueError(
                f"the engine '{self.name}' has no use for '{key}'; {', '.join(able)} has"
            )
        return self


class StudyFile(_Section):
    """A whole study file."""

    study: StudySection
    objectives: dict[str, Goal] = Field(
        default_factory=lambda: {objective.name: Goal() for objective in OBJECTIVES},
        min_length=1,
        description="What is measured: "
        + ", ".join(objective.name for objective in ALL)
        + ". The first three always are. Each is optimised unless it says optimize = false, and "
        "may have a bound: at_least or at_most, in the unit of its column ("
        + ", ".join(objective.column for objective in ALL)
        + "). An objective of your own has function, direction and unit.",
    )
    target: Target = Field(default_factory=Target, description="Where and how artifacts run.")
    targets: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*$")], Target] = Field(
        default_factory=dict,
        description="Further targets, each a section such as [targets.pi] with the keys of "
        "[target]: one search, the latency of every candidate on each of them, and a front for "
        "each.",
    )
    space: dict[str, dict[str, Any]] | None = Field(
        default=None,
        description="Stages to search over, each with ranges and choices; leave the section out "
        "for every stage that fits the model.",
    )

    engine: EngineSection = Field(
        default_factory=EngineSection, description="Where trials run; it may change at any launch."
    )
    start: tuple[dict[str, dict[str, Any]], ...] = Field(
        default=(),
        description="Candidates of your own to try first: [[start]] tables of a config a stage.",
    )

    @property
    def everywhere(self) -> dict[str | None, Target]:
        """All targets by name, the main one under `None`."""
        main: dict[str | None, Target] = {None: self.target}
        return main | {name: target for name, target in self.targets.items()}  # noqa: C416 (keys may be None)

    def placed(self, folder: Path) -> StudyFile:
        """The same study with its own folder, if it names one, taken from a folder."""
        if self.study.files is None:
            return self
        files = resolved(self.study.files, folder)
        return self.model_copy(update={"study": self.study.model_copy(update={"files": files})})

    def on(self, engine: str | None, address: str | None = None) -> StudyFile:
        """The same study on another engine, with those keys of `[engine]` that it takes.

        Args:
            engine: Name of the engine; `None` for the study's own.
            address: What the engine joins, instead of the study's own.

        Raises:
            StudyFileError: If there is no such engine, or it joins nothing.
        """
        name = engine or self.engine.name
        takes = ENGINES[name].takes if name in ENGINES else frozenset()
        given = {key: getattr(self.engine, key) for key in self.engine.model_fields_set & takes}
        if address is not None:
            given["address"] = address
        try:
            section = EngineSection.model_validate(given | {"name": name})
        except ValidationError as error:
            raise StudyFileError(f"[engine] {_explain(error)}") from error
        return self.model_copy(update={"engine": section})

    def beside(self, folder: Path) -> StudyFile:
        """The same study with its folder and the files of its targets taken from a folder."""
        return self.placed(folder).model_copy(
            update={
                "target": self.target.beside(folder),
                "targets": {name: each.beside(folder) for name, each in self.targets.items()},
            }
        )

    @classmethod
    def read(cls, path: Path) -> StudyFile:
        """Reads and checks a study file.

        Raises:
            StudyFileError: If the file is missing, is not TOML, or is not valid.
            SpaceError: If its `[space]` is not.
        """
        try:
            with path.open("rb") as file:
                content = tomllib.load(file)
        except OSError as error:
            raise StudyFileError(f"cannot read study file {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise StudyFileError(f"{path} is not valid TOML: {error}") from error
        return cls.of(content, str(path)).beside(path.resolve().parent)

    @classmethod
    def of(cls, content: Mapping[str, object], where: str = "study") -> StudyFile:
        """Checks the content of a study file.

        Raises:
            StudyFileError: Naming the key, what was expected, and the nearest known key.
            SpaceError: The same for `[space]`.
        """
        try:
            checked = cls.model_validate(content)
        except ValidationError as error:
            raise StudyFileError(f"{where}: {_explain(error)}") from error
        try:
            measures(checked.objectives, list(checked.targets))
        except StudyFileError as error:
            raise StudyFileError(f"{where}: {error}") from error
        main = runtime(checked.target.runtime)
        form = main.format
        try:
            # What is wrong in it is said before a task is loaded, by the file's name.
            Space.of(
                checked.space, TargetTraits(format=form, channel_multiple=main.channel_multiple)
            )
        except SpaceError as error:
            raise SpaceError(f"{where}: {error}") from error
        for name, target in checked.targets.items():
            if target.finalists:
                raise StudyFileError(
                    f"{where}: [targets.{name}] has finalists; they are built for the main "
                    "target, so name them in [target]"
                )
            other = runtime(target.runtime).format
            if other != form:
                raise StudyFileError(
                    f"{where}: [targets.{name}] runs .{other} files and [target] runs .{form} "
                    "files; the targets of a search share one file, so name the runtime in "
                    "[target] finalists instead"
                )
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
    if first["type"] == "tuple_type":
        message = "expected a list of [[start]] tables" if key == "start" else "expected a list"
    if path[:1] == ["start"]:
        section = f"[[start]] table {int(path[1]) + 1}, " if path[1:] else "[[start]] "
    got = "" if first["type"] == _HIDDEN else f", got {first['input']!r}"
    return f"{section}{key}: {message}{got}"


def _keys(path: list[str]) -> list[str]:
    model: Any = StudyFile
    for part in path:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = field.annotation if field is not None else Goal
    return list(getattr(model, "model_fields", Goal.model_fields))


def _hint(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(known)}"
