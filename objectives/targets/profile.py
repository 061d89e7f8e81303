"""The profile of a device: how latency steps with the widths of layers, and what to round to.

Kernels work on channels in groups: of 4, 8 or 16 at a time on a CPU. A layer whose width is not
a multiple of the group pays for channels it does not have, or falls back to a slower kernel. Which
multiple that is differs between devices, runtimes and their versions, so it is measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from parefront.objectives.targets.fingerprint import fingerprint_id

Kind = Literal["conv", "depthwise", "linear"]

MULTIPLES = (1, 2, 4, 8, 16, 32)
"""What widths may be rounded to, finest first."""

TIE = 0.03
"""Waste too small to count, as a share of the latency: one that timing cannot tell from none."""

CERTAINTY = 2.6
"""Standard errors by which waste must exceed zero to be more than noise.

A profile asks up to 15 such questions (three kinds, five multiples), each of which noise alone
answers wrongly in 1 of 200 cases.
"""

_SIGMAS = 2 * 1.96
"""Width of a 95 % interval in standard deviations."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Point(BaseModel):
    """The latency of one width.

    Attributes:
        width: Channels or features.
        ratio: Latency divided by that of the reference width; lower is faster.
        low: Lower end of the 95 % interval of `ratio`.
        high: Upper end of the 95 % interval of `ratio`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Annotated[int, Field(ge=1)]
    ratio: Positive
    low: Positive
    high: Positive

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.ratio <= self.high:
            raise ValueError(
                f"expected low <= ratio <= high, got {self.low}, {self.ratio}, {self.high}"
            )
        return self


class Profile(BaseModel):
    """How latency steps with width on one device, by kind of layer.

    Attributes:
        version: Version of this form; another one is measured again.
        fingerprint: What was measured, see `Device.fingerprint`.
        fingerprint_id: Its name.
        created: When.
        reference: Width whose latency is 1.
        kinds: Points of each kind of layer, by ascending width.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    fingerprint: Mapping[str, Any]
    fingerprint_id: str
    created: AwareDatetime
    reference: Annotated[int, Field(ge=1)]
    kinds: Annotated[Mapping[Kind, tuple[Point, ...]], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        own = fingerprint_id(self.fingerprint)
        if own != self.fingerprint_id:
            raise ValueError(f"expected the id {own} of the fingerprint, got {self.fingerprint_id}")
        for kind, points in self.kinds.items():
            widths = [point.width for point in points]
            if widths != sorted(set(widths)) or self.reference not in widths:
                raise ValueError(
                    f"expected ascending widths with the reference {self.reference} among those "
                    f"of {kind}, got {widths}"
                )
        return self


def channel_multiple(profile: Profile, kind: Kind | None = None) -> int:
    """The finest multiple that widths can be rounded to without wasting latency.

    A width is wasteful when it costs more than its share: more than the straight line between the
    nearest coarser multiples below and above it. On a device that works on 16 channels at a time,
    56 channels cost as much as 64, which is 14 % above the line from 48 to 64; a model with some
    layers of 48 and some of 64 channels would have as many channels for less. The line also goes
    through what a run costs at any width, so a fixed cost of each run is no waste.

    Multiples are tried from the coarsest, 32, on. The next finer one is accepted if its new widths
    are, in the mean, not above the line between the widths accepted so far, by more than noise
    (`CERTAINTY`) and more than `TIE`; the first that is wasteful ends it, since all finer
    multiples contain its widths. A multiple of which the profile has no width between two coarser
    ones is passed over, and never the answer.

    Args:
        profile: What was measured.
        kind: One kind of layer; by default the multiple suits all of them, so it is the largest
            of theirs.

    Returns:
        One of `MULTIPLES`; 1 where every width pays only for itself.

    Raises:
        KeyError: If the profile has no such kind.
    """
    if kind is None:
        return max(channel_multiple(profile, each) for each in profile.kinds)
    points = {point.width: point for point in profile.kinds[kind]}
    accepted = MULTIPLES[-1]
    for multiple in reversed(MULTIPLES[:-1]):
        found = waste(points, multiple, accepted)
        if found is None:
            continue
        mean, error = found
        if mean > max(math.log1p(TIE), CERTAINTY * error):
            break
        accepted = multiple
    return accepted


def waste(points: Mapping[int, Point], fine: int, coarse: int) -> tuple[float, float] | None:
    """How much more multiples of `fine` cost than the line between multiples of `coarse`.

    Args:
        points: Points by width.
        fine: A multiple.
        coarse: A multiple of `fine`.

    Returns:
        The mean, over the widths that are multiples of `fine` but not of `coarse`, of the
        logarithm of latency over line, and the standard error of that mean; `None` if no such
        width lies between two multiples of `coarse`.
    """
    grid = [width for width in points if width % coarse == 0]
    total, count = 0.0, 0
    # Neighbours are shared, so errors are added up by width before they are squared.
    slopes = dict.fromkeys(points, 0.0)
    for width in points:
        if width % fine or width % coarse == 0:
            continue
        below = max((each for each in grid if each < width), default=None)
        above = min((each for each in grid if each > width), default=None)
        if below is None or above is None:
            continue
        share = (width - below) / (above - below)
        first, last = (1 - share) * points[below].ratio, share * points[above].ratio
        total += math.log(points[width].ratio / (first + last))
        slopes[width] += 1
        slopes[below] -= first / (first + last)
        slopes[above] -= last / (first + last)
        count += 1
    if count == 0:
        return None
    variance = sum((slope * _deviation(points[width])) ** 2 for width, slope in slopes.items())
    return total / count, math.sqrt(variance) / count


def _deviation(point: Point) -> float:
    """Standard deviation of the logarithm of a ratio."""
    return math.log(point.high / point.low) / _SIGMAS
