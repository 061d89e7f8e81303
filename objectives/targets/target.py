"""Where and how artifacts run, as a study file says it."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from parefront.errors import UsageError
from parefront.objectives.targets.catalog import RUNTIMES
from parefront.objectives.targets.catalog import runtime as runtime_of
from parefront.objectives.targets.device import Device
from parefront.objectives.targets.fixed import FixedDevice
from parefront.objectives.targets.local import LocalDevice


class Target(BaseModel):
    """A place, a runtime, and how it is used.

    Example:
        >>> Target(threads=1, batch_size=8).runtime
        'onnxruntime'

    Attributes:
        runtime: Name of the runtime.
        threads: Threads the runtime may use, at most the cores this process may use.
        batch_size: Examples in one run.
        runs: Timed runs of each candidate, at least; one slower than 50 ms has fewer.
        timeout: Seconds after which a measurement counts as hanging.
        protocol: `"timed"` measures latency on this machine. `"fixed"` computes it from the
            length of the file, so that a search comes out the same everywhere, and says
            nothing about speed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: str = Field(
        default="onnxruntime", description=f"What runs artifacts: {', '.join(RUNTIMES)}."
    )
    threads: int = Field(default=1, ge=1, description="Threads the runtime may use.")
    batch_size: int = Field(default=1, ge=1, description="Examples in one run.")
    runs: int = Field(default=200, ge=1, description="Timed runs of a candidate, at least.")
    timeout: float = Field(
        default=120.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds after which a measurement counts as hanging.",
    )
    protocol: Literal["timed", "fixed"] = Field(
        default="timed",
        description="'fixed' computes latency from the file's length, for searches that must come "
        "out the same everywhere; it says nothing about speed.",
    )

    @field_validator("runtime")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            return runtime_of(name).name
        except UsageError as error:
            raise ValueError(str(error)) from error

    @field_validator("threads")
    @classmethod
    def _available(cls, threads: int) -> int:
        cores = len(os.sched_getaffinity(0))
        if threads > cores:
            raise ValueError(f"expected at most {cores} threads, one for each core, got {threads}")
        return threads

    def describe(self) -> str:
        """How values are measured, in a few sentences for a report."""
        timed = (
            "Latency is timed on this machine in a fresh process, pinned to cores of its own, in "
            "blocks that alternate with the baseline; it is the median ratio of the blocks times "
            "the baseline's calibrated latency."
        )
        fixed = (
            "Latency was not timed: it is a fixed function of the file's length, so that the "
            "search comes out the same everywhere, and says nothing about speed."
        )
        return (
            "Every value is measured on the exported file. Size is its length. "
            f"{timed if self.protocol == 'timed' else fixed} Accuracy is the task's metric on the "
            "validation split, computed from what the file answers. Intervals are 95 % confidence "
            "intervals."
        )

    def device(self) -> Device:
        """The device that measures as the protocol says."""
        return FixedDevice() if self.protocol == "fixed" else LocalDevice(self.timeout)
