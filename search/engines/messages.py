"""What the process of a launch tells the one that watches it: a line of JSON a message.

The other way go the plan, as cloudpickle writes it, and then the words below, one a line.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from parefront.search.records import Outcome

SOON = b"soon"
"""End after the trial under way."""
NOW = b"now"
"""Give up the trial under way."""
WHERE = signal.SIGUSR1
"""Has the process write where it is, even if no line of Python is run any more."""
HEARD = b"heard"
"""That a trial ended was passed on; whoever was told may have asked to stop meanwhile."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def line(self) -> bytes:
        """The message as a line."""
        return json.dumps(self.model_dump(mode="json")).encode() + b"\n"


class Alive(_Message):
    """The launch goes on."""

    kind: Literal["alive"] = "alive"


class Phase(_Message):
    """Something began that takes a while."""

    kind: Literal["phase"] = "phase"
    text: str


class Began(_Message):
    """A trial began."""

    kind: Literal["began"] = "began"
    trial: int
    candidate: Mapping[str, Mapping[str, Any]]


class Ended(_Message):
    """A trial ended, and its outcome is in the storage; answered by `HEARD`."""

    kind: Literal["ended"] = "ended"
    trial: int
    outcome: Outcome


class Outlook(_Message):
    """What further trials are expected to add."""

    kind: Literal["outlook"] = "outlook"
    share: float
    trials: int


class End(_Message):
    """The launch is over, and why."""

    kind: Literal["end"] = "end"
    reason: str


class Failure(_Message):
    """The launch ended by an error.

    Attributes:
        type: Name of the error's class.
        message: Its message.
        again: Whether it may go on by itself after a while.
        trace: Where it was raised, unless it is one of parefront's.
    """

    kind: Literal["failure"] = "failure"
    type: str
    message: str
    again: bool = False
    trace: str | None = None


Message = Alive | Phase | Began | Ended | Outlook | End | Failure
_ANY: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def message_of(line: bytes) -> Message:
    """Reads a line.

    Raises:
        ValueError: If it is no message.
    """
    return _ANY.validate_python(json.loads(line))
