"""The section `[engine]`: where trials run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from parefront.errors import StudyFileError
from parefront.search.engines.catalog import ENGINES
from parefront.search.section import HIDDEN, Seconds, Section, hint, number

ENGINE = "process"
"""The engine of a study that names none, unless the environment does."""
ENGINE_VARIABLE = "PAREFRONT_ENGINE"
"""Environment variable that names the engine of studies that name none."""
_CLIENT = "ray://"
_HEAD = re.compile(r"(?:[^\s:/@\[\]]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")


class EngineSection(Section):
    """Where trials run, and how many at once."""

    name: str = Field(
        default=ENGINE,
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
    resources: dict[str, Annotated[float, BeforeValidator(number)]] = Field(
        default_factory=dict,
        description="Further resources of Ray that a trial needs, such as {bignode = 1}.",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_environment(cls, given: Any) -> Any:  # noqa: ANN401 - what was given may be anything
        name = os.environ.get(ENGINE_VARIABLE)
        if not name or not isinstance(given, Mapping) or "name" in given:
            return given
        if name not in ENGINES:
            raise StudyFileError(
                f"the environment variable {ENGINE_VARIABLE} names an engine, and there is no "
                f"'{name}'{hint(name, list(ENGINES))}"
            )
        # The study was not written for this engine, so what it has no use for is left out.
        useless = cls.model_fields.keys() - ENGINES[name].takes
        return {key: value for key, value in given.items() if key not in useless} | {"name": name}

    @field_validator("address")
    @classmethod
    def _joined(cls, address: str | None) -> str | None:
        if address is None or address == "auto":
            return address
        if address.startswith(_CLIENT):
            raise ValueError(
                "Ray's clients cannot lead a search: it is led from a machine of the cluster; "
                'launch on one of them with address = "auto", or name host:port of the head'
            )
        found = _HEAD.fullmatch(address)
        if found is None or not 1 <= int(found[1]) <= 65535:
            raise ValueError(
                'expected "auto" or host:port of the head of a cluster; leave it out to start Ray '
                "here"
            )
        return address

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
            raise ValueError(f"there is no such engine{hint(name, list(ENGINES))}")
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
            why = (
                f"the engine '{self.name}' has no use for '{key}'; {', '.join(able)} has: take "
                f'--engine {able[0]}, or name = "{able[0]}" in [engine]'
            )
            raise PydanticCustomError(HIDDEN, "{why}", {"why": why, "key": key})
        return self
