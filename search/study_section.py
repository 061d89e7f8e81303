"""The section `[study]`: what is searched, and for how long."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from parefront.search.place import SecretPlaceError, check_place
from parefront.search.samplers.catalog import SAMPLERS
from parefront.search.section import HIDDEN, Seconds, Section, as_seconds, hint

STUDY_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What the name of a study looks like."""
SCREENING = "screening"
AUTO = "auto"
NAMES = [SCREENING, *SAMPLERS, AUTO]
"""All that `sampler` may say."""


class StudySection(Section):
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
    settle: Annotated[float, BeforeValidator(as_seconds), Field(ge=0, allow_inf_nan=False)] = Field(
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
                raise PydanticCustomError(HIDDEN, "{why}", {"why": str(error)}) from None
        return files

    @field_validator("sampler")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in NAMES:
            raise ValueError(f"there is no such sampler{hint(name, NAMES)}")
        return name
