"""A pipeline as a launch prepares it, for tests of what it does with candidates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import parefront as pf
from parefront.objectives.objective import Scene
from parefront.objectives.targets.target import Target
from parefront.search.baseline import trained_baseline
from parefront.search.builder import Builder
from parefront.search.measures import measures
from parefront.search.pipeline import Pipeline
from parefront.search.scenes import scene
from parefront.search.stage_cache import StageCache
from parefront.search.store import ArtifactStore
from parefront.search.study_file import StudyFile
from parefront.search.study_record import Calibration
from parefront.search.task import prepare
from parefront.spaces.space import Space
from tests.search.fakes import TRAITS


def pipeline(
    folder: Path,
    task: pf.Task,
    space: Mapping[str, Mapping[str, Any]],
    *,
    objectives: Mapping[str, Any] | None = None,
    cache: StageCache | None = None,
) -> Pipeline:
    """The pipeline of a study with the fixed protocol."""
    prepared = prepare(task, seed=0)
    module = trained_baseline(prepared, folder / "weights.pt", seed=0, tick=lambda: None)
    target = Target(protocol="fixed")
    builder = Builder(
        task=prepared, module=module, space=Space.of(space, TRAITS), target=target, seed=0,
        cache=cache, key="key",
    )  # fmt: skip
    store = ArtifactStore(folder / "artifacts")
    with store.scratch() as scratch:
        builder.build_baseline(scratch / "baseline.onnx")
        baseline = store.add(scratch / "baseline.onnx", "onnx")
    calibration = Calibration(
        reference_ms=1.0, throughput_ms=0.0, fingerprint={}, fingerprint_id="here"
    )
    content: dict[str, object] = {"study": {"name": "x", "task": "x"}}
    if objectives is not None:
        content["objectives"] = objectives
    scenes: dict[str | None, Scene] = {
        None: scene(prepared, target, prepared.validation, baseline, calibration)
    }
    return Pipeline(builder, scenes, store, measures(StudyFile.of(content).objectives, []))
