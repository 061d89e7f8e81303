"""What every runtime must do.

Three things differ by design and are stated in docs/runtimes.md: a LiteRT model has the batch it
was built for, AOTInductor's packages differ from build to build, and the dear runtimes are tried
on models that are built once for all tests.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from parefront.errors import BuildError, MeasurementError, RuntimeMissingError, UsageError
from parefront.objectives.targets.catalog import RUNTIMES
from parefront.objectives.targets.catalog import runtime as runtime_of
from parefront.objectives.targets.local import LocalDevice
from parefront.objectives.targets.runtime import Runtime
from tests.zoo import make

pytestmark = pytest.mark.parametrize(
    "runtime",
    [
        pytest.param(entry, id=name, marks=[pytest.mark.slow] if entry.dear else [])
        for name, entry in RUNTIMES.items()
    ],
)

FIXED_BATCH = {"litert"}
"""Runtimes whose artifacts always have the example's batch."""

EVER_DIFFERENT = {"aotinductor"}
"""Runtimes whose compiler never writes the same bytes twice."""

LIBRARIES = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "torch": "torch",
    "executorch": "executorch",
    "aotinductor": "torch",
    "litert": "ai_edge_litert",
}

Built = Callable[[Runtime, str], Path]


class Fixed(nn.Module):
    """Two inputs, two outputs of different types, and a batch of two only."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a.reshape(2, 3) * 2 - b, (a - b).argmax(dim=1)


A, B = torch.arange(6.0).reshape(2, 3), torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.0, 9.0]])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Artifacts of zoo models, and of `Fixed`; each is built once."""
    folder = tmp_path_factory.mktemp("artifacts")

    def build(runtime: Runtime, kind: str) -> Path:
        path = folder / f"{runtime.name}-{kind}.{runtime.format}"
        if not path.exists():
            if kind == "fixed":
                runtime.build(Fixed(), (A, B), ["first", "second"], path)
            else:
                module, context = make(kind)
                runtime.build(module, context.example, ["input"], path)
        return path

    return build


def inputs(kind: str, count: int) -> tuple[Any, Any]:
    """Examples for a zoo model, repeated as needed, and the model's outputs on them."""
    module, context = make(kind)
    (x,) = context.train.inputs  # type: ignore[attr-defined]
    x = x[torch.arange(count) % len(x)]
    with torch.no_grad():
        return x.numpy(), module(x).numpy()


def assert_agree(got: Any, expected: Any) -> None:
    """The tolerance a build is held to: 1e-3 of a value and 1e-4 of the largest."""
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_it_is_in_the_catalog_under_its_name(runtime: Runtime) -> None:
    assert runtime_of(runtime.name) is runtime
    assert runtime.format.isalnum()
    assert runtime.channel_multiple >= 1
    assert runtime.version()
    assert isinstance(runtime.dear, bool)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["cnn", "mlp", "transformer"])
def test_build_open_run_agrees_with_torch(
    runtime: Runtime, kind: str, threads: int, built: Built
) -> None:
    session = runtime.open(built(runtime, kind), threads)
    assert session.batch == (2 if runtime.name in FIXED_BATCH else None)
    for count in (session.batch,) if session.batch else (1, 7, 300):
        x, expected = inputs(kind, count)
        outputs: Any = session.run({"input": x})
        assert len(outputs) == 1
        assert_agree(outputs[0], expected)


def test_a_fixed_batch_is_known(runtime: Runtime, built: Built) -> None:
    assert runtime.open(built(runtime, "fixed"), threads=1).batch == 2


def test_inputs_go_by_name_and_outputs_keep_order_and_type(runtime: Runtime, built: Built) -> None:
    session = runtime.open(built(runtime, "fixed"), threads=1)
    outputs: Any = session.run({"second": B.numpy(), "first": A.numpy()})
    assert len(outputs) == 2
    assert_agree(outputs[0], (A * 2 - B).numpy())
    assert outputs[1].dtype == np.int64
    assert outputs[1].tolist() == [2, 1]


def test_outputs_outlive_the_next_run_and_inputs_are_left_alone(
    runtime: Runtime, built: Built
) -> None:
    session = runtime.open(built(runtime, "mlp"), threads=1)
    x, _ = inputs("mlp", 4)
    first, second = np.array(x[:2]), np.array(x[2:])
    (outputs,) = session.run({"input": first})
    before = np.array(outputs)
    session.run({"input": second})
    np.testing.assert_array_equal(outputs, before)
    np.testing.assert_array_equal(first, x[:2])


def test_inputs_may_be_read_only_and_lie_anywhere_in_memory(runtime: Runtime, built: Built) -> None:
    session = runtime.open(built(runtime, "mlp"), threads=1)
    x, expected = inputs("mlp", 2)
    frozen = np.array(x)
    frozen.flags.writeable = False
    strided = np.asfortranarray(x)
    assert not strided.flags.c_contiguous
    for array in (frozen, strided):
        (outputs,) = session.run({"input": array})
        assert_agree(outputs, expected)


def test_sessions_with_different_threads_live_side_by_side(runtime: Runtime, built: Built) -> None:
    path = built(runtime, "cnn")
    before = torch.get_num_threads()
    x, expected = inputs("cnn", 2)
    one, two = runtime.open(path, threads=1), runtime.open(path, threads=2)
    for session in (one, two, one, two, one):
        (outputs,) = session.run({"input": x})
        assert_agree(outputs, expected)
    assert torch.get_num_threads() == before


def test_equal_modules_give_equal_bytes(runtime: Runtime, built: Built, tmp_path: Path) -> None:
    if runtime.name in EVER_DIFFERENT:
        pytest.skip("its compiler never writes the same bytes twice")
    module, context = make("mlp")
    again = tmp_path / f"again.{runtime.format}"
    runtime.build(module, context.example, ["input"], again)
    assert again.read_bytes() == built(runtime, "mlp").read_bytes()


def test_building_leaves_the_module_and_the_folder_as_they_were(
    runtime: Runtime, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if runtime.name == "aotinductor":
        pytest.skip("covered by what all programs share; it would compile for seconds more")
    module, context = make("mlp")
    module.train()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    random = torch.random.get_rng_state()
    runtime.build(module, context.example, ["input"], tmp_path / f"m.{runtime.format}")
    assert module.training
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert [path.name for path in tmp_path.iterdir()] == [f"m.{runtime.format}"]
    assert capfd.readouterr() == ("", "")


def test_a_module_that_returns_no_tensors_is_a_build_error(
    runtime: Runtime, tmp_path: Path
) -> None:
    class Shape(nn.Module):
        def forward(self, x: torch.Tensor) -> str:
            return str(x.shape)

    with pytest.raises(BuildError, match="got str"):
        runtime.build(Shape(), (torch.ones(2, 3),), ["x"], tmp_path / f"m.{runtime.format}")


def test_control_flow_that_depends_on_values_is_a_build_error(
    runtime: Runtime, tmp_path: Path
) -> None:
    class Depends(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.sum() > 0 else x - 1

    with pytest.raises(BuildError, match="the model cannot be"):
        runtime.build(Depends(), (torch.ones(2, 3),), ["x"], tmp_path / f"m.{runtime.format}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names", [[], ["a", "b"]], ids=["none", "too many"])
def test_each_input_needs_a_name(runtime: Runtime, names: list[str], tmp_path: Path) -> None:
    module, context = make("mlp")
    with pytest.raises(BuildError, match="expected 1 different input names"):
        runtime.build(module, context.example, names, tmp_path / f"m.{runtime.format}")


@pytest.mark.parametrize("content", [None, b"", b"garbage" * 1000, "half"])
def test_a_file_that_is_no_model_is_a_measurement_error(
    runtime: Runtime, content: bytes | str | None, built: Built, tmp_path: Path
) -> None:
    path = tmp_path / f"model.{runtime.format}"
    if content == "half":
        whole = built(runtime, "mlp").read_bytes()
        content = whole[: len(whole) // 2]
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(MeasurementError, match=path.name):
        runtime.open(path, threads=1)


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"other": np.zeros((2, 64), np.float32)},
        {"input": np.zeros((2, 63), np.float32)},
        {"input": np.zeros(64, np.float32)},
        {"input": np.zeros((2, 64), np.float64)},
        {"input": np.zeros((2, 64), np.int64)},
    ],
    ids=["missing", "unknown", "shape", "dimensions", "wider", "whole numbers"],
)
def test_wrong_inputs_are_a_measurement_error(
    runtime: Runtime, feeds: dict[str, Any], built: Built
) -> None:
    session = runtime.open(built(runtime, "mlp"), threads=1)
    with pytest.raises(MeasurementError, match="could not run it: .*input"):
        session.run(feeds)


def test_a_fresh_process_runs_it(
    runtime: Runtime, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # a lock of its own
    x, expected = inputs("mlp", 5)
    (outputs,) = LocalDevice().run(
        built(runtime, "mlp"), {"input": x}, runtime=runtime.name, threads=1, batch_size=4
    )
    assert_agree(outputs, expected)


def test_its_script_runs_the_file_without_parefront(
    runtime: Runtime, built: Built, tmp_path: Path
) -> None:
    x, expected = inputs("mlp", 5)
    check: dict[str, Any] = {"input": x, "output:0": expected}
    (tmp_path / f"model.{runtime.format}").write_bytes(built(runtime, "mlp").read_bytes())
    (tmp_path / "run.py").write_text(runtime.script())
    np.savez(tmp_path / "check.npz", **check)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "run.py", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("outputs differ by ")
    assert done.stdout.endswith("they agree\n")
    if runtime.format != "onnx":  # what follows is shared, and torch takes seconds to start
        return
    assert run("check.npz", "outputs.npz").returncode == 0
    with np.load(tmp_path / "outputs.npz") as file:
        assert_agree(file["output:0"], expected)
    np.savez(tmp_path / "check.npz", **check | {"output:0": -expected})
    done = run()
    assert done.returncode == 1
    assert done.stdout.endswith("they DISAGREE\n")


def test_its_script_needs_only_the_runtime_and_numpy(runtime: Runtime) -> None:
    imported = set()
    for node in ast.walk(ast.parse(runtime.script())):
        if isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
    needed = {"numpy", LIBRARIES[runtime.name]} | ({"torch"} & imported)
    assert imported - sys.stdlib_module_names == needed
    assert ("torch" in imported) == (runtime.format in {"ep", "pt2", "pte"})
    assert f'"""Runs model.{runtime.format} with nothing but' in runtime.script()
    assert "parefront" not in runtime.script()


@pytest.mark.parametrize("step", ["version", "build", "open"])
def test_a_missing_library_is_named_with_how_to_install_it(
    runtime: Runtime, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, context = make("mlp")
    path = tmp_path / f"model.{runtime.format}"
    hidden = LIBRARIES[runtime.name]
    if (runtime.name, step) == ("litert", "build"):
        hidden = "litert_torch"
    steps: dict[str, Callable[[], object]] = {
        "version": runtime.version,
        "build": lambda: runtime.build(module, context.example, ["input"], path),
        "open": lambda: runtime.open(path, threads=1),
    }
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, hidden, None)
        with pytest.raises(RuntimeMissingError) as caught:
            steps[step]()
    shipped = {"onnxruntime": "onnxruntime", "torch": "torch", "aotinductor": "torch"}
    requirement = shipped.get(runtime.name, f"parefront[{runtime.name}]")
    said = f"runtime '{runtime.name}' is not installed; pip install '{requirement}'"
    assert str(caught.value) == said


def test_unknown_names_are_answered_with_the_known_and_the_nearest(runtime: Runtime) -> None:
    wrong = runtime.name[:-1]
    match = f"expected a runtime of .*{runtime.name}.*, got '{wrong}'; did you mean '"
    with pytest.raises(UsageError, match=match):
        runtime_of(wrong)
    with pytest.raises(UsageError, match=r"got 'zzz'$"):
        runtime_of("zzz")
