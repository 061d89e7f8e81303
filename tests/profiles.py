"""Device profiles with a known truth."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from parefront.objectives.targets.fingerprint import fingerprint_id
from parefront.objectives.targets.profile import Kind, Point, Profile
from parefront.objectives.targets.profiling import REFERENCE, WIDTHS

Cost = Callable[[int], float]
"""Latency of a width, in any unit."""

FACTS = {"cpu": "Imagined 9000", "runtime": "onnxruntime", "threads": 1, "isa": ["avx2"]}


def steps(size: int, fixed: float = 0.0) -> Cost:
    """A device that works on `size` channels at a time, after a fixed cost."""
    return lambda width: fixed + math.ceil(width / size) * size


def cliff(multiple: int, factor: float = 1.7) -> Cost:
    """A device that is slower by a factor where the width is no multiple."""
    return lambda width: width * (factor if width % multiple else 1.0)


def points(
    cost: Cost,
    *,
    widths: Sequence[int] = WIDTHS,
    reference: int = REFERENCE,
    noise: float = 0.0,
    seed: int = 0,
) -> tuple[Point, ...]:
    """Points of a device.

    Args:
        cost: Its latencies.
        widths: Widths; the reference is always among them.
        reference: The reference width.
        noise: Standard deviation of the logarithm of each ratio; the intervals know it.
        seed: Seed of the noise.
    """
    rng = random.Random(seed)
    found = []
    for width in sorted({*widths, reference}):
        spread = 0.0 if width == reference else noise
        ratio = cost(width) / cost(reference) * math.exp(rng.gauss(0, 1) * spread)
        half = math.exp(1.96 * spread)
        found.append(Point(width=width, ratio=ratio, low=ratio / half, high=ratio * half))
    return tuple(found)


def profile(
    kinds: dict[Kind, tuple[Point, ...]] | None = None, facts: dict[str, object] | None = None
) -> Profile:
    """A profile of the points, or of a device with steps of 16."""
    facts = FACTS if facts is None else facts
    return Profile(
        fingerprint=facts,
        fingerprint_id=fingerprint_id(facts),
        created=datetime(2026, 3, 5, 14, 30, tzinfo=UTC),
        reference=REFERENCE,
        kinds=kinds or {"conv": points(steps(16))},
    )
