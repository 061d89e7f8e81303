"""Where and how artifacts run, as a study file says it."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from parefront.errors import UsageError
from parefront.objectives.targets.catalog import RUNTIMES
from parefront.objectives.targets.catalog import runtime as runtime_of
from parefront.objectives.targets.device import Device, Effort
from parefront.objectives.targets.fixed import FixedDevice
from parefront.objectives.targets.local import LocalDevice


class Target(BaseModel):
    """A place, a runtime, and how it is used.

    Example:
        >>> Target(threads=1, batch_size=8).runtime
        'onnxruntime'

    Attributes:
        runtime: Name of the runtime.
        finalists: Names of the runtimes on which the front is built and measured in the end.
        threads: Threads the runtime may use, at most the cores of the device.
        batch_size: Examples in one run.
        throughput_batch_size: Examples in one run when throughput is measured.
        runs: Timed runs of each candidate in each round, at least; one slower than 50 ms has
            fewer.
        precision: Half-width of a latency's interval, relative to the value, that is good enough.
        seconds: Time that one latency may take; on it, the interval is as wide as it is.
        timeout: Seconds after which a measurement counts as hanging.
        device: Address of a device agent, or `None` for this machine.
        token_file: File with the agent's token.
        certificate: Certificates to trust, in PEM, instead of the system's.
        patience: Seconds for which a device that cannot be reached is waited for.
        protocol: `"timed"` measures latency on this machine. `"fixed"` computes it from the
            length of the file, so that a search comes out the same everywhere, and says
            nothing about speed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: str = Field(
        default="onnxruntime", description=f"What runs artifacts: {', '.join(RUNTIMES)}."
    )
    finalists: tuple[str, ...] = Field(
        default=(),
        description="Runtimes, such as those whose files take seconds to build, on which the "
        "front is built and measured after the search.",
    )
    threads: int = Field(default=1, ge=1, strict=True, description="Threads the runtime may use.")
    batch_size: int = Field(default=1, ge=1, strict=True, description="Examples in one run.")
    throughput_batch_size: int = Field(
        default=32,
        ge=1,
        strict=True,
        description="Examples in one run when throughput is measured.",
    )
    runs: int = Field(
        default=200,
        ge=1,
        strict=True,
        description="Timed runs of a candidate in each round, at least.",
    )
    precision: float = Field(
        default=0.02,
        gt=0,
        lt=1,
        strict=True,
        description="Half-width of a latency's interval, relative to the value, that is good "
        "enough.",
    )
    seconds: float = Field(
        default=3.0,
        gt=0,
        allow_inf_nan=False,
        strict=True,
        description="Time after which a latency gets no further round, however wide its interval.",
    )
    timeout: float = Field(
        default=120.0,
        gt=0,
        allow_inf_nan=False,
        strict=True,
        description="Seconds after which a measurement counts as hanging.",
    )
    device: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Address of a device agent, such as http://pi.local:8765; this machine "
        "without one.",
    )
    token_file: Path | None = Field(
        default=None, description="File with the agent's token, relative to the study file."
    )
    certificate: Path | None = Field(
        default=None,
        description="Certificates to trust for https, in PEM, such as the agent's own, relative "
        "to the study file.",
    )
    patience: float = Field(
        default=60.0,
        ge=0,
        allow_inf_nan=False,
        strict=True,
        description="Seconds for which a device that cannot be reached is waited for, before its "
        "trial is given back; it is tried again later.",
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

    @field_validator("finalists")
    @classmethod
    def _all_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(cls._known(name) for name in names)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.device is None and (self.token_file or self.certificate):
            raise ValueError("token_file and certificate belong to a device; name it too")
        if self.device is not None and self.token_file is None:
            raise ValueError("a device needs token_file, the file with its agent's token")
        if self.device is not None and self.protocol == "fixed":
            raise ValueError("protocol 'fixed' measures nothing, so it takes no device")
        return self

    def beside(self, folder: Path) -> Target:
        """The same target with relative files taken from a folder."""
        files = {"token_file": self.token_file, "certificate": self.certificate}
        update = {name: folder / path for name, path in files.items() if path is not None}
        return self.model_copy(update=update)

    def here(self) -> Target:
        """The same target on this machine, for running a file wherever it came from."""
        threads = min(self.threads, len(os.sched_getaffinity(0)))
        gone = {"device": None, "token_file": None, "certificate": None, "threads": threads}
        return self.model_copy(update=gone)

    def describe(self) -> str:
        """How values are measured, in a few sentences for a report."""
        timed = (
            f"Latency is timed on {self.device or 'this machine'} in rounds, each a fresh process "
            "pinned to cores of its own, in blocks that alternate with the baseline; it is the "
            "mean ratio of the rounds times the baseline's calibrated latency."
        )
        fixed = (
            "Latency was not timed: it is a fixed function of the file's length, so that the "
            "search comes out the same everywhere, and says nothing about speed."
        )
        return (
            "Every value is measured on the exported file. Size is its length. "
            f"{timed if self.protocol == 'timed' else fixed} Accuracy is the task's metric on the "
            "validation split, computed from what the file answers. A latency's interval is where "
            "95 % of repeats fall, that of the accuracy a 95 % confidence interval."
        )

    @property
    def effort(self) -> Effort:
        """What timing a candidate may cost."""
        return Effort(self.runs, self.precision, self.seconds)

    def open(self) -> Device:
        """The device that measures as the protocol says.

        Raises:
            UsageError: If this machine has too few cores, or the agent's token cannot be used.
        """
        cores = len(os.sched_getaffinity(0))
        if self.device is None and self.threads > cores:
            raise UsageError(
                f"[target] expected at most {cores} threads, one for each core of this machine, "
                f"got {self.threads}"
            )
        if self.protocol == "fixed":
            return FixedDevice()
        if self.device is None or self.token_file is None:
            return LocalDevice(self.timeout)
        return _agent(self.device, self.token_file, self.certificate, self.timeout, self.patience)


@cache
def _agent(
    url: str, token_file: Path, certificate: Path | None, timeout: float, patience: float
) -> Device:
    """One connection for all that is measured on a device."""
    from parefront.objectives.targets.agent.remote import RemoteDevice
    from parefront.objectives.targets.agent.token import read_token

    return RemoteDevice(
        url, read_token(token_file), timeout=timeout, patience=patience, certificate=certificate
    )
