"""What artifacts are measured with: a scene for each target of a study."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from parefront.objectives.artifact import Artifact
from parefront.objectives.measurement import Measurement
from parefront.objectives.objective import Scene
from parefront.objectives.targets.catalog import runtime
from parefront.objectives.targets.device import Device
from parefront.objectives.targets.fingerprint import saturates
from parefront.objectives.targets.profile_cache import profiled_multiple
from parefront.objectives.targets.runtime import Feeds
from parefront.objectives.targets.target import Target
from parefront.search.builder import tiled
from parefront.search.data import Split
from parefront.search.study_file import StudyFile
from parefront.search.study_record import BaselineRecord, Calibration
from parefront.search.task import PreparedTask
from parefront.spaces.stage import Inputs, TargetTraits

Devices = Mapping[str | None, Device]
"""Where the artifacts of each target are measured."""

SCORING_BATCH = 128
"""Examples in one run when accuracy is computed; fixed, so that figures repeat exactly."""


def named(task: PreparedTask, inputs: Inputs) -> Feeds:
    """Inputs as arrays by the names they have in an exported file."""
    return {name: x.numpy() for name, x in zip(task.input_names, inputs, strict=True)}


def scene(
    task: PreparedTask,
    target: Target,
    split: Split,
    baseline: Artifact,
    calibration: Calibration,
    device: Device | None = None,
) -> Scene:
    """What objectives measure with on a target, accuracy on the examples of `split`.

    Without a `device` the target opens its own.
    """
    targets = split.targets.numpy()

    def score(outputs: Sequence[Any]) -> Measurement:
        return task.metric.measure(outputs, targets)

    return Scene(
        baseline=baseline,
        reference_ms=calibration.reference_ms,
        device=device or target.open(),
        runtime=target.runtime,
        threads=target.threads,
        effort=target.effort,
        batch=named(task, tiled(task.example, target.batch_size)),
        throughput_batch=named(task, tiled(task.example, target.throughput_batch_size)),
        throughput_reference_ms=calibration.throughput_ms,
        examples=split.feeds(task.input_names),
        batch_size=SCORING_BATCH,
        score=score,
    )


def scenes(
    task: PreparedTask,
    settings: StudyFile,
    split: Split,
    baseline: Artifact,
    record: BaselineRecord,
    devices: Devices | None = None,
) -> dict[str | None, Scene]:
    """A scene for each target, the main one under `None`; devices as in `scene`."""
    return {
        name: scene(
            task, target, split, baseline, record.on(name), devices[name] if devices else None
        )
        for name, target in settings.everywhere.items()
    }


def traits(targets: Iterable[Target], home: Path, devices: Iterable[Device]) -> TargetTraits:
    """What stages may know of the targets of a search.

    Widths are rounded to what every device's profile asks for, or the runtime's usual multiple
    where the device was not profiled. Weights have 7 bits if one of the devices needs that.

    Args:
        targets: The targets, the main one first; all run one format.
        home: Folder of the studies, where the profiles are.
        devices: Where each is measured.
    """
    each = list(targets)
    multiples, narrow = [], False
    for target, device in zip(each, devices, strict=True):
        facts = device.fingerprint(target.runtime, target.threads)
        usual = runtime(target.runtime).channel_multiple
        multiples.append(profiled_multiple(home, facts) or usual)
        narrow = narrow or saturates(facts)
    return TargetTraits(
        format=runtime(each[0].runtime).format,
        channel_multiple=math.lcm(*multiples),
        saturates=narrow,
    )
