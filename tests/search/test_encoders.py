"""Real encoders of Hugging Face, with random weights, through all that a search does with them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from parefront.objectives.targets.target import Target
from parefront.search.builder import Builder
from parefront.search.scenes import named
from parefront.search.stage_cache import Cached, StageCache
from parefront.search.stage_code import object_digest
from parefront.search.task import PreparedTask, prepare
from parefront.spaces.space import Candidate, Space
from parefront.spaces.stage import Form, TargetTraits
from tests.search.encoders import ENCODERS, padded, task

SMALLER = (
    "drop",
    "heads",
    "prune",
    "factorize",
    "sparsify",
    "cluster",
    "round",
    "half",
    "quantize",
    "blocks",
)


class Built:
    """A kind of encoder prepared, with the sizes and outputs of its files."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.task: PreparedTask = prepare(task(kind), seed=0)
        space = Space.of(None, TargetTraits(format="onnx", channel_multiple=8))
        target = Target(protocol="fixed")
        builder = Builder(
            task=self.task, module=self.task.baseline, space=space, target=target, seed=0
        )
        fitted, self.left_out = space.fitted(self.task.baseline, builder.context(Candidate()))
        self.builder = Builder(
            task=self.task, module=self.task.baseline, space=fitted, target=target, seed=0
        )
        self.baseline = self.build(Candidate(), "baseline")[0]

    def build(self, candidate: Candidate, name: str) -> tuple[Path, dict[str, Any]]:
        path = self.folder / f"{self.kind}-{name}.onnx"
        return path, dict(self.builder.build(candidate, path, trained=True))

    @cache  # noqa: B019 - for as long as the tests run
    def with_stage(self, name: str) -> tuple[Path, dict[str, Any]]:
        (stage,) = (each for each in self.builder.space.stages if each.name == name)
        config = stage.anchors()[0]
        if name == "recover":
            config = config.model_copy(update={"epochs": 1})
        return self.build(self.builder.space.completed({name: config}), name)


@pytest.fixture(scope="module", params=ENCODERS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(request.param, tmp_path_factory.mktemp("encoders"))


def answers(path: Path, feeds: Any) -> Any:
    """What ONNX Runtime alone gives."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, dict(feeds))
    return output


def expected(module: nn.Module, inputs: Any) -> Any:
    with torch.no_grad():
        return module(*inputs).numpy()


@pytest.mark.slow
def test_the_file_has_the_models_names_and_answers(built: Built) -> None:
    prepared = built.task
    session = onnxruntime.InferenceSession(str(built.baseline), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == list(prepared.input_names)
    assert [entry.name for entry in session.get_outputs()] == ["output"]
    inputs = prepared.validation.inputs
    got = answers(built.baseline, named(prepared, inputs))
    np.testing.assert_allclose(got, expected(prepared.baseline, inputs), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_every_stage_fits(built: Built) -> None:
    assert built.left_out == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLER)
def test_a_stage_makes_the_file_smaller(built: Built, name: str) -> None:
    path, achieved = built.with_stage(name)
    assert achieved[name]
    assert path.stat().st_size < 0.95 * built.baseline.stat().st_size
    feeds = named(built.task, built.task.validation.inputs)
    assert answers(path, feeds).shape == (32, 3)
    assert np.isfinite(answers(path, feeds)).all()


@pytest.mark.slow
def test_recovery_training_moves_it_and_keeps_its_size(built: Built) -> None:
    path, achieved = built.with_stage("recover")
    assert achieved["recover"]["epochs"] == 1
    assert path.stat().st_size == pytest.approx(built.baseline.stat().st_size, rel=0.02)
    feeds = named(built.task, built.task.validation.inputs)
    assert not np.allclose(answers(path, feeds), answers(built.baseline, feeds))


@pytest.mark.slow
def test_attention_heads_are_not_mixed(built: Built) -> None:
    _, achieved = built.with_stage("prune")
    attention = ("query", "key", "value", "q_lin", "k_lin", "v_lin", "q_proj", "k_proj", "v_proj")
    assert not [name for name in achieved["prune"]["channels"] if name.endswith(attention)]


@pytest.mark.slow
def test_what_was_made_of_it_is_kept_and_found(built: Built, tmp_path: Path) -> None:
    module, other = built.task.baseline, prepare(task(built.kind), seed=0).baseline
    assert object_digest(module) == object_digest(other)
    kept = StageCache(tmp_path, keys=tmp_path / "keys")
    kept.put("ab", Cached(module, {}), 1.0)
    found = kept.get("ab", Form.MODULE)
    assert found is not None
    assert isinstance(found.model, nn.Module)
    inputs = built.task.validation.inputs
    np.testing.assert_array_equal(expected(found.model, inputs), expected(module, inputs))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_a_file_for_any_length(kind: str, tmp_path: Path) -> None:
    given = {"input_ids": [1], "attention_mask": [1]}
    prepared = prepare(task(kind, dynamic=given, test=padded(32, 2, length=7)), seed=0)
    builder = Builder(
        task=prepared,
        module=prepared.baseline,
        space=Space([]),
        target=Target(protocol="fixed"),
        seed=0,
    )
    builder.build_baseline(tmp_path / "any.onnx")
    for length in (3, 7, 16):
        inputs = tuple(padded(5, length, length)[0].values())
        got = answers(tmp_path / "any.onnx", named(prepared, inputs))
        np.testing.assert_allclose(got, expected(prepared.baseline, inputs), rtol=1e-3, atol=1e-4)
