"""What every runtime must do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from parefront.errors import BuildError, MeasurementError, UsageError
from parefront.objectives.targets.catalog import RUNTIMES
from parefront.objectives.targets.catalog import runtime as runtime_of
from parefront.objectives.targets.runtime import Runtime
from tests.zoo import make

pytestmark = pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)


class Fixed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 3) * 2


def test_it_is_in_the_catalog_under_its_name(runtime: Runtime) -> None:
    assert runtime_of(runtime.name) is runtime
    assert runtime.format.isalnum()
    assert runtime.channel_multiple >= 1
    assert runtime.version()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["cnn", "mlp", "transformer"])
def test_build_open_run_agrees_with_torch(
    runtime: Runtime, kind: str, threads: int, tmp_path: Path
) -> None:
    module, context = make(kind)
    path = tmp_path / f"model.{runtime.format}"
    runtime.build(module, context.example, ["input"], path)
    session = runtime.open(path, threads)
    assert session.batch is None
    inputs = context.train.batches(7)
    (x,), _ = next(inputs)
    with torch.no_grad():
        expected = module(x).numpy()
    outputs: Any = session.run({"input": x.numpy()})
    assert len(outputs) == 1
    np.testing.assert_allclose(outputs[0], expected, rtol=1e-3, atol=1e-4)


def test_a_fixed_batch_is_known(runtime: Runtime, tmp_path: Path) -> None:
    path = tmp_path / f"model.{runtime.format}"
    runtime.build(Fixed(), (torch.ones(2, 3),), ["x"], path)
    assert runtime.open(path, threads=1).batch == 2


def test_equal_modules_give_equal_bytes(runtime: Runtime, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.{runtime.format}" for name in "ab"]
    for path in paths:
        module, context = make("cnn")
        runtime.build(module, context.example, ["input"], path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_module_that_returns_no_tensors_is_a_build_error(
    runtime: Runtime, tmp_path: Path
) -> None:
    class Shape(nn.Module):
        def forward(self, x: torch.Tensor) -> str:
            return str(x.shape)

    with pytest.raises(BuildError, match="got str"):
        runtime.build(Shape(), (torch.ones(2, 3),), ["x"], tmp_path / f"m.{runtime.format}")


@pytest.mark.parametrize("content", [None, b"", b"garbage" * 1000, "half"])
def test_a_file_that_is_no_model_is_a_measurement_error(
    runtime: Runtime, content: bytes | str | None, tmp_path: Path
) -> None:
    path = tmp_path / f"model.{runtime.format}"
    if content == "half":
        module, context = make("cnn")
        runtime.build(module, context.example, ["input"], path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(MeasurementError, match=path.name):
        runtime.open(path, threads=1)


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"other": np.zeros((1, 64), np.float32)},
        {"input": np.zeros((1, 63), np.float32)},
        {"input": np.zeros((1, 64), np.float64)},
    ],
    ids=["missing", "unknown", "shape", "type"],
)
def test_wrong_inputs_are_a_measurement_error(
    runtime: Runtime, feeds: dict[str, Any], tmp_path: Path
) -> None:
    module, context = make("mlp")
    path = tmp_path / f"model.{runtime.format}"
    runtime.build(module, context.example, ["input"], path)
    with pytest.raises(MeasurementError, match="could not run it: .*input"):
        runtime.open(path, threads=1).run(feeds)


def test_unknown_names_are_answered_with_the_known_and_the_nearest(runtime: Runtime) -> None:
    wrong = runtime.name[:-1]
    match = f"expected a runtime of .*{runtime.name}.*, got '{wrong}'; did you mean '"
    with pytest.raises(UsageError, match=match):
        runtime_of(wrong)
    with pytest.raises(UsageError, match=r"got 'zzz'$"):
        runtime_of("zzz")
