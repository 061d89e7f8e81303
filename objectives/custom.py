"""An objective of the user's own: any figure that a function finds in the file."""

from __future__ import annotations

import keyword
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from parefront.errors import MeasurementError, UsageError
from parefront.objectives.artifact import Artifact
from parefront.objectives.catalog import ALL
from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.objective import Scene

Function = Callable[[Path], float | Measurement]

_NUMBERS = (int, float, np.integer, np.floating)


class FunctionObjective:
    """What a function says of the artifact's file.

    Example:
        >>> FunctionObjective("pages", lambda path: path.stat().st_size / 4096, unit="4KiB").column
        'pages_4KiB'
    """

    on_device = False

    def __init__(
        self,
        name: str,
        function: Function,
        unit: str = "",
        direction: Direction | str = Direction.MINIMIZE,
        dear: bool = True,
        noisy: bool = False,
        log: bool = False,
    ) -> None:
        """Makes an objective of a function.

        Args:
            name: Key of the objective in a study file: an identifier that no other objective has.
            function: Takes the path of the file, which it must not change; returns a finite
                number, or a `Measurement` in `unit` where it knows the interval.
            unit: Unit of the value. The column is the name, with the unit behind it where that
                consists of letters and digits.
            direction: Which values are better, `"minimize"` or `"maximize"`.
            dear: Whether the value depends on trained weights. If not, it is also asked for files
                that are not trained yet, to skip training what breaks a bound.
            noisy: Whether the function gives different values for the same file.
            log: Whether values are positive and ratios between them matter.

        Raises:
            UsageError: If the name or the direction cannot be used, or `function` is no function.
        """
        if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
            raise UsageError(
                f"expected the name of an objective to be an identifier such as 'flash_pages', "
                f"got {name!r}"
            )
        column = f"{name}_{unit}" if unit.isascii() and unit.isalnum() else name
        taken = {word for known in ALL for word in (known.name, known.column)}
        if {name, column} & taken:
            word = name if name in taken else column
            raise UsageError(
                f"expected a name that no objective has, got {name!r}: {word!r} is one of "
                f"parefront's own, {', '.join(known.name for known in ALL)}"
            )
        if not callable(function):
            raise UsageError(
                f"expected a function of a path for the objective {name!r}, "
                f"got {type(function).__name__}"
            )
        try:
            self._direction = Direction(direction)
        except ValueError as error:
            raise UsageError(
                f"expected the direction of the objective {name!r} to be 'minimize' or "
                f"'maximize', got {direction!r}"
            ) from error
        self.name = name
        self.column = column
        self.unit = unit
        self.dear = dear
        self.noisy = noisy
        self.log = log
        self._function = function

    def direction(self, metric: Direction) -> Direction:  # noqa: ARG002
        """The direction it was made with."""
        return self._direction

    def measure(self, artifact: Artifact, scene: Scene) -> Measurement:  # noqa: ARG002
        """Calls the function.

        Raises:
            MeasurementError: If the function raises, or returns anything but a finite number or
                a measurement in the objective's unit.
        """
        try:
            answer: object = self._function(artifact.path)
        except Exception as error:
            raise MeasurementError(
                f"{self.name}: the function raised {type(error).__name__}: {error}"
            ) from error
        if isinstance(answer, Measurement):
            if answer.unit != self.unit:
                raise MeasurementError(
                    f"{self.name}: expected a measurement in the unit {self.unit!r}, "
                    f"got {answer.unit!r}"
                )
            return self._checked(answer)
        if isinstance(answer, bool) or not isinstance(answer, _NUMBERS):
            raise MeasurementError(
                f"{self.name}: expected the function to return a number or a Measurement, "
                f"got {type(answer).__name__}"
            )
        value = float(answer)
        if not math.isfinite(value):
            raise MeasurementError(f"{self.name}: expected a finite number, got {value}")
        return self._checked(Measurement.exact(value, self.unit, "the user's function"))

    def _checked(self, measured: Measurement) -> Measurement:
        if self.log and measured.low <= 0:
            raise MeasurementError(
                f"{self.name}: expected values above 0, for ratios between them are to matter, "
                f"got {measured.low}"
            )
        return measured
