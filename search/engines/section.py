"""The section `[engine]`: where trials run."""

from __future__ import annotations

import os
from typing import Self

from pydantic import Field, field_validator, model_validator

from parefront.search.engines.catalog import ENGINES
from parefront.search.section import Seconds, Section, hint

ENGINE = "process"
"""The engine of a study that names none, unless the environment does."""
ENGINE_VARIABLE = "PAREFRONT_ENGINE"
"""Environment variable that names the engine of studies that name none."""


class EngineSection(Section):
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
            raise ValueError(
                f"the engine '{self.name}' has no use for '{key}'; {', '.join(able)} has"
            )
        return self
