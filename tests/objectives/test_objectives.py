"""What every objective must do, and that each measures the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parefront.objectives.artifact import Artifact, sha256_of
from parefront.objectives.catalog import OBJECTIVES
from parefront.objectives.latency import Latency
from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.objective import Bound, Objective, Scene
from parefront.objectives.targets.catalog import RUNTIMES
from parefront.objectives.targets.device import Timing
from parefront.objectives.targets.fixed import FixedDevice
from parefront.objectives.targets.runtime import Array, Feeds
from tests.zoo import make

BY_NAME = {objective.name: objective for objective in OBJECTIVES}


def first_class_share(outputs: Sequence[Array]) -> Measurement:
    values: Any = outputs[0]
    share = float(np.mean(values.argmax(axis=1) == 0))
    return Measurement(value=share, low=share / 2, high=1.0, samples=len(values), protocol="share")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    module, context = make("cnn")
    path = tmp_path_factory.mktemp("artifacts") / "model.onnx"
    RUNTIMES["onnxruntime"].build(module, context.example, ["input"], path)
    return Artifact.of(path, "onnx")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    module, context = make("resnet")
    path = tmp_path_factory.mktemp("artifacts") / "baseline.onnx"
    RUNTIMES["onnxruntime"].build(module, context.example, ["input"], path)
    ((x,), _), *_ = context.train.batches(50)
    return Scene(
        baseline=Artifact.of(path, "onnx"),
        reference_ms=8.0,
        device=FixedDevice(),
        runtime="onnxruntime",
        threads=1,
        runs=200,
        batch={"input": x[:1].numpy()},
        examples={"input": x.numpy()},
        batch_size=16,
        score=first_class_share,
    )


def test_the_catalog_in_order() -> None:
    columns = [(entry.name, entry.column, entry.unit, entry.dear) for entry in OBJECTIVES]
    assert columns == [
        ("accuracy", "accuracy", "", True),
        ("latency", "latency_ms", "ms", False),
        ("size", "size_bytes", "B", False),
    ]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=BY_NAME)
def test_every_objective_measures(objective: Objective, artifact: Artifact, scene: Scene) -> None:
    measured = objective.measure(artifact, scene)
    assert measured.low <= measured.value <= measured.high
    assert measured.unit == objective.unit
    assert measured.protocol
    assert Measurement.model_validate_json(measured.model_dump_json()) == measured
    assert objective.measure(artifact, scene) == measured  # nothing is timed here


@pytest.mark.parametrize("metric", Direction)
def test_directions(metric: Direction) -> None:
    assert BY_NAME["accuracy"].direction(metric) is metric
    assert BY_NAME["latency"].direction(metric) is Direction.MINIMIZE
    assert BY_NAME["size"].direction(metric) is Direction.MINIMIZE


def test_size_is_the_length_of_the_file(artifact: Artifact, scene: Scene) -> None:
    measured = BY_NAME["size"].measure(artifact, scene)
    assert measured.value == measured.low == measured.high == len(artifact.path.read_bytes())


def test_latency_is_the_ratio_times_the_reference(artifact: Artifact, scene: Scene) -> None:
    measured = BY_NAME["latency"].measure(artifact, scene)
    assert measured.value == pytest.approx(8.0 * artifact.size_bytes / scene.baseline.size_bytes)
    assert measured.details["clock"] == "fixed"


def test_latency_keeps_the_interval_and_the_percentiles(artifact: Artifact, scene: Scene) -> None:
    percentiles = {"p50": 1.0, "p90": 2.0, "p99": 3.0}
    timing = Timing(0.5, 0.4, 0.75, percentiles, percentiles, 20, 210, "cpu")

    class Timed(FixedDevice):
        def time(
            self,
            candidate: Path,
            baseline: Path,
            feeds: Feeds,
            *,
            runtime: str,
            threads: int,
            runs: int,
        ) -> Timing:
            assert (candidate, baseline) == (artifact.path, scene.baseline.path)
            assert feeds is scene.batch
            assert (runtime, threads, runs) == ("onnxruntime", 1, 200)
            return timing

    measured = Latency().measure(artifact, replace(scene, device=Timed()))
    assert (measured.value, measured.low, measured.high) == (4.0, 3.2, 6.0)
    assert measured.samples == 210
    assert measured.details["candidate_ms"] == percentiles
    assert measured.protocol == "block ratios to the baseline, cpu time"


def test_accuracy_is_the_score_of_what_the_file_answers(artifact: Artifact, scene: Scene) -> None:
    session = RUNTIMES["onnxruntime"].open(artifact.path, threads=1)
    expected = first_class_share(session.run(scene.examples))
    measured = BY_NAME["accuracy"].measure(artifact, scene)
    assert measured == expected
    assert measured.samples == 50


def test_an_artifact_is_named_by_its_content(artifact: Artifact, tmp_path: Path) -> None:
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(artifact.path.read_bytes())
    assert Artifact.of(copy, "onnx").sha256 == artifact.sha256 == sha256_of(artifact.path)
    copy.write_bytes(b"abc")
    assert Artifact.of(copy, "onnx").sha256 == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_measurement_lies_in_its_interval() -> None:
    with pytest.raises(ValueError, match=r"expected low <= value <= high, got 2\.0, 1\.0, 3\.0"):
        Measurement(value=1.0, low=2.0, high=3.0, protocol="made up")
    with pytest.raises(ValueError, match="finite"):
        Measurement.exact(float("nan"), "", "made up")


def test_a_bound_says_how_far_a_value_is_outside() -> None:
    assert Bound(at_most=3.0).violation(5.0) == 2.0
    assert Bound(at_least=3.0).violation(1.0) == 2.0
    assert Bound(at_least=1.0, at_most=3.0).violation(2.0) <= 0
    assert Bound().violation(1e9) == 0.0
    with pytest.raises(ValueError, match=r"expected at_least <= at_most, got 2\.0 and 1\.0"):
        Bound(at_least=2.0, at_most=1.0)
