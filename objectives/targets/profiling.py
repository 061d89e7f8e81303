"""Measuring the profile of a device."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from parefront.errors import UsageError
from parefront.objectives.targets.catalog import runtime as runtime_of
from parefront.objectives.targets.device import Device, Effort
from parefront.objectives.targets.fingerprint import fingerprint_id
from parefront.objectives.targets.profile import Kind, Point, Profile
from parefront.objectives.targets.runtime import Feeds

if TYPE_CHECKING:
    import torch
    from torch import nn

REFERENCE = 64

WIDTHS = (
    *(32, 64, 96, 48, 80, 40, 56, 72, 88),  # steps of 32, 16, 8
    *(36, 44, 52, 60, 34, 42, 50, 62, 33, 49, 63),  # of 4, 2, 1
)
"""Widths that tell the multiples apart: of each multiple some that no coarser one has.

Widths just above a step waste most of it, so they say most about it; below 32 the layers would be
so small that the fixed cost of a run hides the rest.
"""

EFFORT = Effort(runs=50, precision=0.05, seconds=1.0)

KINDS: tuple[Kind, ...] = ("conv", "depthwise", "linear")

Progress = Callable[[int, int, str], None]
"""Told how many timings are done, of how many, and what is timed next."""


def measure_profile(
    device: Device,
    runtime: str,
    threads: int,
    *,
    widths: Sequence[int] = WIDTHS,
    kinds: Sequence[Kind] = KINDS,
    reference: int = REFERENCE,
    effort: Effort = EFFORT,
    progress: Progress = lambda done, total, what: None,  # noqa: ARG005
) -> Profile:
    """Measures how latency steps with width.

    Every width is the inner width of a small model (`small_model`) and is timed against the same
    model of the reference width, in an order that keeps a slow drift of the machine from looking
    like a step.

    Args:
        device: Where to measure.
        runtime: Name of the runtime.
        threads: Threads the runtime may use.
        widths: Widths to measure; the reference is always among them.
        kinds: Kinds of layers to measure.
        reference: Width to compare with.
        effort: What each timing may cost.
        progress: Called before each timing and after the last.

    Raises:
        UsageError: If there is no such runtime, no kind, or a width is below 1.
        BuildError: If the runtime cannot build one of the models.
        MeasurementError: If the device cannot time one of them.
    """
    if not kinds or min((reference, *widths)) < 1:
        raise UsageError(
            f"expected a kind of layer and widths of at least 1, got kinds {list(kinds)} and "
            f"widths {[reference, *widths]}"
        )
    facts = dict(device.fingerprint(runtime, threads))
    others = sorted({*widths} - {reference})
    total = len(kinds) * len(others)
    found: dict[Kind, tuple[Point, ...]] = {}
    with tempfile.TemporaryDirectory(prefix="parefront-") as name:
        for position, kind in enumerate(kinds):
            baseline, feeds = _build(runtime, kind, reference, Path(name))
            points = [Point(width=reference, ratio=1.0, low=1.0, high=1.0)]
            shuffled = random.Random(0).sample(others, len(others))
            for index, width in enumerate(shuffled):
                progress(position * len(others) + index, total, f"{kind} {width}")
                candidate, _ = _build(runtime, kind, width, Path(name))
                timing = device.time(
                    candidate, baseline, feeds, runtime=runtime, threads=threads, effort=effort
                )
                points.append(
                    Point(
                        width=width,
                        ratio=timing.ratio,
                        low=timing.ratio_low,
                        high=timing.ratio_high,
                    )
                )
            found[kind] = tuple(sorted(points, key=lambda point: point.width))
    progress(total, total, "")
    return Profile(
        fingerprint=facts,
        fingerprint_id=fingerprint_id(facts),
        created=datetime.now(UTC).replace(microsecond=0),
        reference=reference,
        kinds=found,
    )


def _build(runtime: str, kind: Kind, width: int, folder: Path) -> tuple[Path, Feeds]:
    """The artifact of a small model, and a batch of one for it."""
    chosen = runtime_of(runtime)
    module, example = small_model(kind, width)
    path = folder / f"{kind}-{width}.{chosen.format}"
    chosen.build(module, (example,), ("input",), path)
    return path, {"input": example.numpy()}


def small_model(kind: Kind, width: int) -> tuple[nn.Module, torch.Tensor]:
    """A model with one inner width, as pruning would change it, and a batch of one for it.

    The width is what the first layer gives and the last takes, between two fixed outer widths, so
    that the work is proportional to it: two 3x3 convolutions with 64 outer channels, the inverted
    bottleneck of mobile networks with 16, or two Linear layers with 512 outer features.

    Args:
        kind: What stands at the width.
        width: The inner width.

    Returns:
        A module in evaluation mode with the same weights in each call, and its input.
    """
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "conv":
            layers: list[nn.Module] = [
                nn.Conv2d(64, width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(width, 64, 3, padding=1),
            ]
            example = torch.randn(1, 64, 20, 20)
        elif kind == "depthwise":
            layers = [
                nn.Conv2d(16, width, 1),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1, groups=width),
                nn.ReLU(),
                nn.Conv2d(width, 16, 1),
            ]
            example = torch.randn(1, 16, 48, 48)
        else:
            layers = [nn.Linear(512, width), nn.ReLU(), nn.Linear(width, 512)]
            example = torch.randn(1, 128, 512)
        return nn.Sequential(*layers).eval(), example
