"""Engines by name; a module is loaded when its engine is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from parefront.errors import EngineError

if TYPE_CHECKING:
    from parefront.search.engines.engine import Engine
    from parefront.search.launch import Stop
    from parefront.search.plan import Plan


@dataclass(frozen=True)
class EngineKind:
    """An engine that a study can name.

    Attributes:
        place: Where it is made, as `module:function` of the launch's `Plan` and `Stop`.
        about: What it does, in a line.
        supervised: Whether the launch runs in a process of its own, which is watched, and begun
            again if it dies.
        evaluates: Whether trials run in that very process, one at a time, so that what becomes of
            it is the doing of the trial under way.
        takes: Keys of `[engine]` that mean something to it, besides `name`.
        extra: The extra of parefront that installs what it needs.
    """

    place: str
    about: str
    supervised: bool = False
    evaluates: bool = False
    takes: frozenset[str] = field(default_factory=frozenset)
    extra: str | None = None

    def make(self, plan: Plan, stop: Stop) -> Engine:
        """The engine of a launch, not entered yet.

        Args:
            plan: The launch.
            stop: A request to end it.

        Raises:
            EngineError: If its package is missing.
        """
        module, _, name = self.place.partition(":")
        try:
            made: Callable[[Plan, Stop], Any] = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if self.extra is None:
                raise
            raise EngineError(
                f"the engine needs the package {error.name}; "
                f"try: pip install 'parefront[{self.extra}]'"
            ) from error
        engine: Engine = made(plan, stop)
        return engine


ENGINES: Mapping[str, EngineKind] = {
    "process": EngineKind(
        "parefront.search.engines.inline:InlineEngine",
        "trials run in a process of their own, whose crash, hang or lack of memory ends a trial "
        "and not the study",
        supervised=True,
        evaluates=True,
        takes=frozenset({"hang", "memory_mb"}),
    ),
    "inline": EngineKind(
        "parefront.search.engines.inline:InlineEngine",
        "trials run in the launched process itself, as a debugger wants them",
    ),
    "ray": EngineKind(
        "parefront.search.engines.ray.engine:RayEngine",
        "trials run at once on the workers of a Ray cluster, or of this machine",
        supervised=True,
        takes=frozenset({"address", "workers", "cpus", "gpus", "memory_mb", "resources", "hang"}),
        extra="ray",
    ),
}
"""All engines by name."""
