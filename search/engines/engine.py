"""The contract of an engine: evaluates the candidates of a launch somewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from parefront.objectives.targets.device import Device
from parefront.objectives.targets.target import Target
from parefront.search.desk import Desk
from parefront.search.pipeline import Pipeline


class Engine(Protocol):
    """Where a launch evaluates candidates; entered before anything is measured.

    What it evaluates is recorded by the desk alone, so that an engine holds nothing that its death
    could lose.
    """

    def __enter__(self) -> Self:
        """Takes what it needs, such as processes.

        Raises:
            EngineError: If it cannot be had.
            Interrupted: If the launch is to end before it is there.
        """
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Gives all of it back."""
        ...

    def device(self, name: str | None, target: Target) -> Device:
        """Where artifacts are measured for a target.

        Args:
            name: Name of a further target, `None` for the main one.
            target: The target.

        Raises:
            EngineError: If the engine has no such device.
        """
        ...

    def run(self, desk: Desk, pipeline: Pipeline) -> str:
        """Evaluates what the desk hands out until it has no more, or is told to stop.

        Args:
            desk: Hands out trials, and records what became of them.
            pipeline: Evaluates in this process what an engine has no other place for.

        Returns:
            Why it ended.

        Raises:
            EngineError: If trials cannot be evaluated any more; what was told is safe.
            StorageError: If the storage fails.
        """
        ...
