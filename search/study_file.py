"""The study file: what a study is, in TOML, and the same as a frozen value in Python."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from parefront.errors import SpaceError, StudyFileError
from parefront.objectives.catalog import ALL, OBJECTIVES
from parefront.objectives.targets.catalog import runtime
from parefront.objectives.targets.target import Target
from parefront.search.engines.catalog import ENGINES
from parefront.search.engines.section import EngineSection
from parefront.search.goal import Goal
from parefront.search.measures import measures
from parefront.search.place import resolved
from parefront.search.section import HIDDEN, Section, hint
from parefront.search.study_section import StudySection
from parefront.spaces.space import Space
from parefront.spaces.stage import TargetTraits


class StudyFile(Section):
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
        name = self.engine.name if engine is None else engine
        takes = ENGINES[name].takes if name in ENGINES else frozenset()
        given = {key: getattr(self.engine, key) for key in self.engine.model_fields_set & takes}
        if address is not None:
            given["address"] = address
        try:
            section = EngineSection.model_validate(given | {"name": name})
        except ValidationError as error:
            raise StudyFileError(_explain(error, "engine")) from error
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
    def read(cls, path: Path, unnamed: str | None = None) -> StudyFile:
        """Reads and checks a study file.

        Args:
            path: The study file, in TOML.
            unnamed: Engine of a file that names none, instead of what the environment says.

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
        engine = content.setdefault("engine", {})
        if unnamed is not None and isinstance(engine, dict):
            engine.setdefault("name", unnamed)
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


def _explain(error: ValidationError, *within: str) -> str:
    """What is wrong in a study file, or in what is at a place within one."""
    first = error.errors()[0]
    about = [first["ctx"]["key"]] if "key" in first.get("ctx", {}) else []
    *path, key = [*within, *(str(part) for part in first["loc"]), *about] or ["file"]
    section = f"[{'.'.join(path)}] " if path else ""
    if first["type"] == "extra_forbidden":
        return f"{section}unknown key '{key}'{hint(key, _keys(path))}"
    if first["type"] == "missing":
        return f"{section}'{key}' is missing; it is needed"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "tuple_type":
        message = "expected a list of [[start]] tables" if key == "start" else "expected a list"
    if path[:1] == ["start"]:
        section = f"[[start]] table {int(path[1]) + 1}, " if path[1:] else "[[start]] "
    told = first["type"] == HIDDEN or ", got " in message
    got = "" if told else f", got {_written(first['input'])}"
    return f"{section}{key}: {message}{got}"


def _written(value: object) -> str:
    """A value as a study file has it."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _keys(path: list[str]) -> list[str]:
    model: Any = StudyFile
    for part in path:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = field.annotation if field is not None else Goal
    return list(getattr(model, "model_fields", Goal.model_fields))
