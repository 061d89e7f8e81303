"""What every objective must do, and that each measures the file."""

from __future__ import annotations

import re
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from parefront.errors import MeasurementError
from parefront.objectives.artifact import Artifact, sha256_of
from parefront.objectives.catalog import ALL, EXTRAS, OBJECTIVES
from parefront.objectives.latency import Latency
from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.objective import Bound, Objective, Scene
from parefront.objectives.targets.catalog import RUNTIMES
from parefront.objectives.targets.device import Effort, Footprint, Timing
from parefront.objectives.targets.fixed import FixedDevice
from parefront.objectives.targets.local import LocalDevice
from parefront.objectives.targets.runtime import Array, Feeds
from parefront.search.goal import Goal
from parefront.search.measures import measures
from tests.zoo import make

BY_NAME = {objective.name: objective for objective in ALL}

PERCENTILES = {"p50": 1.0, "p90": 2.0, "p99": 3.0}
TIMING = Timing(
    ratio=0.5,
    ratio_low=0.4,
    ratio_high=0.75,
    candidate_ms=PERCENTILES,
    baseline_ms=PERCENTILES,
    blocks=20,
    runs=210,
    clock="cpu",
    rounds=3,
    disturbed=1,
)
DOCS = Path(__file__).parents[2] / "docs" / "objectives.md"


class Steady(FixedDevice):
    """A device without noise that has an energy counter, and counts how often it is asked."""

    def __init__(self, energies: tuple[float, ...] = (2.0,)) -> None:
        self.energies = energies
        self.looks = 0

    def footprint(
        self, artifact: Path, feeds: Feeds, *, runtime: str, threads: int, sessions: int = 5
    ) -> Footprint:
        self.looks += 1
        found = super().footprint(artifact, feeds, runtime=runtime, threads=threads)
        return replace(found, energy_mj=self.energies, energy_note="made up")


class FixedBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 256) * 2


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
        device=Steady(),
        runtime="onnxruntime",
        threads=1,
        effort=Effort(),
        batch={"input": x[:1].numpy()},
        throughput_batch={"input": x[:32].numpy()},
        throughput_reference_ms=80.0,
        examples={"input": x.numpy()},
        batch_size=16,
        score=first_class_share,
    )


def test_the_catalog_in_order() -> None:
    columns = [(entry.name, entry.column, entry.unit, entry.dear) for entry in ALL]
    assert columns == [
        ("accuracy", "accuracy", "", True),
        ("latency", "latency_ms", "ms", False),
        ("size", "size_bytes", "B", False),
        ("throughput", "throughput_per_s", "/s", False),
        ("memory", "peak_memory_bytes", "B", False),
        ("load_time", "load_ms", "ms", False),
        ("energy", "energy_mj", "mJ", False),
        ("download_size", "download_bytes", "B", True),
        ("parameters", "parameters", "", False),
        ("macs", "macs", "", False),
    ]
    assert ALL == OBJECTIVES + EXTRAS
    assert [entry.name for entry in OBJECTIVES] == ["accuracy", "latency", "size"]


def test_names_and_columns_are_identifiers_of_one_objective() -> None:
    names = [each.name for each in ALL]
    columns = [each.column for each in ALL]
    for words in (names, columns):
        assert len(set(words)) == len(words)
        assert all(word.isidentifier() and word == word.lower() for word in words)
    assert not {f"{column}_{end}" for column in columns for end in ("low", "high")} & {*columns}


def test_what_belongs_to_a_device_and_where_ratios_matter() -> None:
    assert {each.name for each in ALL if each.on_device} == {
        *("latency", "throughput", "memory", "load_time", "energy")
    }
    assert {each.name for each in ALL if not each.log} == {"accuracy"}


@pytest.mark.parametrize("objective", ALL, ids=BY_NAME)
def test_every_objective_measures(objective: Objective, artifact: Artifact, scene: Scene) -> None:
    measured = objective.measure(artifact, scene)
    assert measured.low <= measured.value <= measured.high
    assert measured.low > 0 or not objective.log
    assert measured.unit == objective.unit
    assert measured.protocol
    assert Measurement.model_validate_json(measured.model_dump_json()) == measured
    assert objective.measure(artifact, scene) == measured  # nothing is timed here
    if not objective.noisy:
        assert measured.low == measured.high or objective.name == "accuracy"


@pytest.mark.parametrize("objective", ALL, ids=BY_NAME)
def test_every_objective_is_documented(objective: Objective) -> None:
    better = {Direction.MINIMIZE: "lower", Direction.MAXIMIZE: "higher"}
    directions = {better[objective.direction(metric)] for metric in Direction}
    direction = directions.pop() if len(directions) == 1 else "the metric's"
    start = (
        f"| `{objective.name}` | `{objective.column}` | {objective.unit or 'none'} | {direction} |"
    )
    assert start in DOCS.read_text()


def test_the_example_in_the_docs_works(artifact: Artifact, scene: Scene, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (table,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (tmp_path / "mine.py").write_text(code)
    goals = tomllib.loads(table)["objectives"]
    found = measures(
        {name: Goal.model_validate(goal) for name, goal in goals.items()}, [], tmp_path
    )
    assert found[-1].column == "flash_pages"
    assert not found[-1].objective.dear
    assert found[-1].objective.measure(artifact, scene).value == -(-artifact.size_bytes // 4096)


@pytest.mark.parametrize("objective", ALL, ids=BY_NAME)
def test_a_file_that_is_no_model_is_a_measurement_error(
    objective: Objective, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # a lock of its own
    (tmp_path / "garbage.onnx").write_bytes(b"garbage" * 1000)
    garbage = Artifact.of(tmp_path / "garbage.onnx", "onnx")
    real = replace(scene, device=LocalDevice())
    if objective.name in {"size", "download_size"}:  # they take a file for what it is
        assert objective.measure(garbage, real).value > 0
    else:
        with pytest.raises(MeasurementError, match="garbage"):
            objective.measure(garbage, real)


@pytest.mark.parametrize("metric", Direction)
def test_directions(metric: Direction) -> None:
    assert BY_NAME["accuracy"].direction(metric) is metric
    for name in {*BY_NAME} - {"accuracy", "throughput"}:
        assert BY_NAME[name].direction(metric) is Direction.MINIMIZE
    assert BY_NAME["throughput"].direction(metric) is Direction.MAXIMIZE


def test_size_is_the_length_of_the_file(artifact: Artifact, scene: Scene) -> None:
    measured = BY_NAME["size"].measure(artifact, scene)
    assert measured.value == measured.low == measured.high == len(artifact.path.read_bytes())


def test_latency_is_the_ratio_times_the_reference(artifact: Artifact, scene: Scene) -> None:
    measured = BY_NAME["latency"].measure(artifact, scene)
    assert measured.value == pytest.approx(8.0 * artifact.size_bytes / scene.baseline.size_bytes)
    assert measured.details["clock"] == "fixed"


class Timed(FixedDevice):
    """A device that times as it is told, once it is asked for the right thing."""

    def __init__(self, artifact: Artifact, scene: Scene, batch: Feeds) -> None:
        self.expected = artifact.path, scene.baseline.path, batch, "onnxruntime", 1, scene.effort

    def time(
        self,
        candidate: Path,
        baseline: Path,
        feeds: Feeds,
        *,
        runtime: str,
        threads: int,
        effort: Effort,
    ) -> Timing:
        assert feeds is self.expected[2]
        assert (candidate, baseline, feeds, runtime, threads, effort) == self.expected
        return TIMING


def test_latency_keeps_the_interval_and_the_percentiles(artifact: Artifact, scene: Scene) -> None:
    device = Timed(artifact, scene, scene.batch)
    measured = Latency().measure(artifact, replace(scene, device=device))
    assert (measured.value, measured.low, measured.high) == (4.0, 3.2, 6.0)
    assert measured.samples == 210
    assert measured.details["candidate_ms"] == PERCENTILES
    assert measured.protocol == "block ratios to the baseline, cpu time"


def test_throughput_turns_the_interval_over(artifact: Artifact, scene: Scene) -> None:
    device = Timed(artifact, scene, scene.throughput_batch)
    measured = BY_NAME["throughput"].measure(artifact, replace(scene, device=device))
    # 32 examples in half of 80 ms
    assert measured.value == pytest.approx(800)
    assert (measured.low, measured.high) == pytest.approx((400 / 0.75, 1000))
    assert measured.details["batch_size"] == 32
    assert measured.details["candidate_ms"] == PERCENTILES
    assert measured.protocol.startswith("batches of 32, ")


def test_throughput_needs_a_calibrated_baseline(artifact: Artifact, scene: Scene) -> None:
    changes: list[dict[str, Any]] = [{"throughput_reference_ms": 0.0}, {"throughput_batch": {}}]
    for change in changes:
        with pytest.raises(MeasurementError, match="the baseline was not calibrated"):
            BY_NAME["throughput"].measure(artifact, replace(scene, **change))


def test_throughput_needs_files_that_take_its_batch(
    artifact: Artifact, scene: Scene, tmp_path: Path
) -> None:
    path = tmp_path / "fixed.onnx"
    RUNTIMES["onnxruntime"].build(FixedBatch(), (torch.ones(2, 256),), ["input"], path)
    fixed = Artifact.of(path, "onnx")
    throughput = BY_NAME["throughput"]
    match = "in batches of 32, but the {} only takes batches of 2: .*throughput_batch_size to 2"
    with pytest.raises(MeasurementError, match=match.format("artifact")):
        throughput.measure(fixed, scene)
    with pytest.raises(MeasurementError, match=match.format("baseline")):
        throughput.measure(artifact, replace(scene, baseline=fixed))
    two = {"input": scene.throughput_batch["input"][:2]}
    assert throughput.measure(fixed, replace(scene, throughput_batch=two)).value > 0
    unknown = replace(artifact, format="elsewhere", path=tmp_path / "missing")
    with pytest.raises(MeasurementError, match="in batches of 32: cannot read missing"):
        throughput.measure(unknown, scene)


def test_memory_load_and_energy_share_a_look(artifact: Artifact, scene: Scene) -> None:
    device = Steady()
    here = replace(scene, device=device)
    three = [BY_NAME[name] for name in ("memory", "load_time", "energy")]
    first = {each.name: each.measure(artifact, here) for each in three}
    assert device.looks == 1
    assert first["memory"].value == artifact.size_bytes
    assert first["load_time"].value == pytest.approx(artifact.size_bytes * 1e-6)
    assert first["energy"].value == 2.0
    assert {each.name: each.measure(artifact, here) for each in three} == first
    assert device.looks == 2  # measuring again is measuring again
    BY_NAME["memory"].measure(scene.baseline, here)
    BY_NAME["energy"].measure(artifact, here)
    BY_NAME["load_time"].measure(artifact, replace(here))
    assert device.looks == 5  # neither another artifact's nor another scene's


def test_several_processes_give_a_median_and_an_interval(artifact: Artifact, scene: Scene) -> None:
    device = Steady((4.0, 3.0, 5.0, 4.2, 3.9))
    measured = BY_NAME["energy"].measure(artifact, replace(scene, device=device))
    assert measured.value == pytest.approx(4.0)
    assert measured.low < 4.0 < measured.high
    assert (measured.samples, measured.unit) == (5, "mJ")
    assert measured.details["energy_mj"] == [4.0, 3.0, 5.0, 4.2, 3.9]


def test_energy_that_was_not_measured_is_said(artifact: Artifact, scene: Scene) -> None:
    energy = BY_NAME["energy"]
    with pytest.raises(MeasurementError, match="energy cannot be measured: made up"):
        energy.measure(artifact, replace(scene, device=Steady(())))
    match = "cannot be told from idle power: in 2 of 3 processes"
    with pytest.raises(MeasurementError, match=match):
        energy.measure(artifact, replace(scene, device=Steady((1.0, 0.0, -1.0))))


@pytest.mark.parametrize("name", ["parameters", "macs"])
def test_counts_need_an_onnx_file_with_something_to_count(
    name: str, artifact: Artifact, scene: Scene, tmp_path: Path
) -> None:
    with pytest.raises(MeasurementError, match="counted in ONNX files only, got the format 'pte'"):
        BY_NAME[name].measure(replace(artifact, format="pte"), scene)
    path = tmp_path / "empty.onnx"
    RUNTIMES["onnxruntime"].build(nn.ReLU(), (torch.ones(2, 1, 16, 16),), ["input"], path)
    with pytest.raises(MeasurementError, match="empty.onnx has no(ne of the operators| weights)"):
        BY_NAME[name].measure(Artifact.of(path, "onnx"), scene)


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
