"""What a study wants of an objective."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from parefront.objectives.measurement import Direction
from parefront.objectives.objective import Bound


class Goal(Bound):
    """An entry of `[objectives]`: a bound, and whether the search optimises the objective.

    An objective that is not optimised is measured, may be bounded, and is a column. One of the
    user's own is a function of the artifact's path in a Python file.

    Example:
        >>> Goal(at_most=2e6, optimize=False).optimize
        False

    Attributes:
        optimize: Whether the search looks for better values.
        function: A user's own objective, as `path/to/file.py:name` or `package.module:name`.
        direction: Which values of the user's own objective are better.
        unit: Its unit.
        dear: Whether it depends on trained weights; what does not is known before training.
        noisy: Whether measuring the same file twice gives different values.
    """

    optimize: bool = Field(default=True, description="Whether the search looks for better values.")
    function: str | None = Field(
        default=None,
        description="An objective of your own: path/to/file.py:name, a function of the "
        "artifact's path that returns a number.",
    )
    direction: Direction | None = Field(
        default=None, description="Which values of your own objective are better."
    )
    unit: str = Field(default="", description="Unit of your own objective.")
    dear: bool = Field(
        default=True,
        description="Whether your own objective depends on trained weights; what does not is "
        "known, and its bound checked, before training.",
    )
    noisy: bool = Field(
        default=False,
        description="Whether your own objective gives different values for the same file.",
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.function is not None and self.direction is None:
            raise ValueError('an objective of your own needs direction = "minimize" or "maximize"')
        own = self.direction is not None or self.unit or not self.dear or self.noisy
        if self.function is None and own:
            raise ValueError(
                "direction, unit, dear and noisy belong to an objective with its own function"
            )
        return self

    @property
    def bounded(self) -> bool:
        """Whether there is a limit."""
        return self.at_least is not None or self.at_most is not None
