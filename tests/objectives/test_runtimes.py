"""What single runtimes promise beyond the contract."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import openvino
import pytest
import torch
from torch import nn

from parefront.errors import BuildError, RuntimeMissingError
from parefront.objectives.targets.aot_inductor import AotInductorRuntime
from parefront.objectives.targets.catalog import RUNTIMES
from parefront.objectives.targets.libraries import library
from parefront.objectives.targets.litert import LiteRtRuntime
from parefront.objectives.targets.onnx_runtime import OnnxRuntime
from parefront.objectives.targets.openvino import OpenVinoRuntime
from parefront.spaces.quantization.onnx_int8 import OnnxInt8, OnnxInt8Choices, OnnxInt8Config
from parefront.spaces.stage import TargetTraits
from tests.exporting import SATURATES
from tests.zoo import make


def printed(program: str) -> str:
    """What a program writes in a process of its own."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_only_builds_that_take_seconds_are_dear() -> None:
    assert {name for name, entry in RUNTIMES.items() if entry.dear} == {
        "executorch",
        "aotinductor",
        "litert",
    }


def test_the_catalog_imports_no_library() -> None:
    program = (
        "import sys, parefront.objectives.targets.catalog\n"
        "print(sorted({'torch', 'openvino', 'executorch', 'ai_edge_litert', 'litert_torch', 'jax',"
        " 'onnxruntime'} & sys.modules.keys()))"
    )
    assert printed(program) == "[]\n"


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "litert"])
def test_running_needs_no_torch(name: str, tmp_path: Path) -> None:
    runtime = RUNTIMES[name]
    path = tmp_path / f"m.{runtime.format}"
    module, context = make("mlp")
    runtime.build(module, context.example, ["input"], path)
    program = (
        "import sys, pathlib, numpy as np\n"
        "from parefront.objectives.targets.catalog import runtime\n"
        f"session = runtime({name!r}).open(pathlib.Path({str(path)!r}), 1)\n"
        "session.run({'input': np.zeros((2, 64), np.float32)})\n"
        "print('torch' in sys.modules)"
    )
    assert printed(program).endswith("False\n")


def test_openvino_reads_the_very_file_of_onnx_runtime(tmp_path: Path) -> None:
    module, context = make("cnn")
    paths = tmp_path / "a.onnx", tmp_path / "b.onnx"
    OnnxRuntime().build(module, context.example, ["input"], paths[0])
    OpenVinoRuntime().build(module, context.example, ["input"], paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_openvino_computes_in_fp32_for_latency(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, context = make("mlp")
    OnnxRuntime().build(module, context.example, ["input"], tmp_path / "m.onnx")
    seen = []
    compile_model = openvino.Core.compile_model

    def spy(*arguments: object) -> object:
        seen.append(compile_model(*arguments))
        return seen[-1]

    monkeypatch.setattr(openvino.Core, "compile_model", spy)
    OpenVinoRuntime().open(tmp_path / "m.onnx", threads=1)
    (compiled,) = seen
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("PERFORMANCE_HINT") == "LATENCY"
    assert compiled.get_property("EXECUTION_DEVICES") == ["CPU"]


@pytest.mark.parametrize("method", ["static", "dynamic"])
@pytest.mark.parametrize("kind", ["cnn", "transformer"])
def test_openvino_and_onnx_runtime_agree_on_quantised_files(
    kind: str, method: Literal["static", "dynamic"], tmp_path: Path
) -> None:
    module, context = make(kind)
    path = tmp_path / "m.onnx"
    OnnxRuntime().build(module, context.example, ["input"], path)
    config = OnnxInt8Config(
        method=method,
        calibration="minmax" if method == "static" else None,
        per_channel=True,
        reduce_range=SATURATES,
    )
    stage = OnnxInt8(OnnxInt8Choices(), TargetTraits(format="onnx", channel_multiple=8))
    path.write_bytes(stage.apply(onnx.load(path), config, context).model.SerializeToString())
    (x,) = context.train.inputs  # type: ignore[attr-defined]
    found: list[Any] = []
    for runtime in (OnnxRuntime(), OpenVinoRuntime()):
        session = runtime.open(path, threads=1)
        assert session.batch is None
        found += session.run({"input": x.numpy()})
    assert np.abs(found[0] - found[1]).max() < 0.03 * np.abs(found[0]).max()


def test_aotinductor_without_a_compiler_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, context = make("mlp")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        BuildError, match=r"needs a C\+\+ compiler and there is no 'g\+\+'; install"
    ):
        AotInductorRuntime().build(module, context.example, ["input"], tmp_path / "m.pt2")
    assert not list(tmp_path.iterdir())


def test_litert_wants_names_that_python_could_have(tmp_path: Path) -> None:
    module, context = make("mlp")
    with pytest.raises(BuildError, match=r"could be names in Python.*got \['my input'\]"):
        LiteRtRuntime().build(module, context.example, ["my input"], tmp_path / "m.tflite")


@pytest.mark.slow
def test_a_model_whose_batch_is_baked_in_is_built_for_that_batch(tmp_path: Path) -> None:
    class Baked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.reshape(4, 64))  # type: ignore[no-any-return]

    module, x = Baked().eval(), torch.ones(4, 64)
    for name in ("openvino", "torch", "executorch"):
        runtime = RUNTIMES[name]
        path = tmp_path / f"m.{runtime.format}"
        runtime.build(module, (x,), ["x"], path)
        session = runtime.open(path, threads=1)
        assert session.batch == 4
        (got,) = session.run({"x": x.numpy()})
        np.testing.assert_allclose(np.float64(got), module(x).detach().double(), rtol=1e-5)


def test_a_library_that_lacks_a_part_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("import no_such_part\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        RuntimeMissingError,
        match=r"^runtime 'half' cannot be imported \(No module named 'no_such_part'\); "
        r"pip install 'parefront\[half\]'$",
    ):
        library("half_installed", "half", "parefront[half]")
