"""Which artifacts an agent takes."""

from __future__ import annotations

from parefront.objectives.targets.agent.refusal import Refusal
from parefront.objectives.targets.catalog import RUNTIMES
from parefront.objectives.targets.catalog import runtime as runtime_of


class Formats:
    """The formats of runtimes that are data, and the others where they are allowed."""

    def __init__(self, *, allow_native: bool) -> None:
        """Allows formats that may bring code of their own, or not."""
        self._allow_native = allow_native

    def of(self, runtime: str) -> str:
        """The format of a runtime.

        Raises:
            UsageError: If there is no such runtime.
            Refusal: If its format is not allowed.
        """
        format_ = runtime_of(runtime).format
        self.check(format_)
        return format_

    def check(self, format_: str) -> None:
        """Refuses a format.

        Raises:
            Refusal: If no runtime reads it, or it may bring code.
        """
        known = {entry.format for entry in RUNTIMES.values()}
        native = {entry.format for entry in RUNTIMES.values() if entry.native}
        if format_ not in known:
            raise Refusal(
                415,
                f"expected an artifact as {', '.join(sorted(known))}, got {format_[:20]!r}: no "
                "runtime reads it",
            )
        if format_ in native and not self._allow_native:
            raise Refusal(
                415,
                f"artifacts in the format {format_!r} may bring code of their own; the agent "
                "takes them only with --allow-native",
            )
