from __future__ import annotations

import copy
import logging
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from parefront.errors import ArtifactError, BuildError
from parefront.objectives.targets.onnx_export import export_onnx
from parefront.objectives.targets.onnx_runtime import OnnxRuntime, OnnxSession
from tests.zoo import MODELS, make

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


def exported(
    module: nn.Module, path: Path, *example: torch.Tensor, names: tuple[str, ...] = ("input",)
) -> OnnxSession:
    export_onnx(module, example or (X,), names, path)
    return OnnxRuntime().open(path, threads=1)


def answer(session: OnnxSession, x: torch.Tensor) -> Any:
    (output,) = session.run({"input": x.numpy()})
    return output


def expected(module: nn.Module, *inputs: torch.Tensor) -> Any:
    with torch.no_grad():
        return module(*inputs).numpy()


@pytest.mark.parametrize("kind", MODELS)
def test_the_file_computes_what_the_module_does_at_any_batch_size(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bytes:
        raise BuildError("the slow exporter is not needed")

    monkeypatch.setattr("parefront.objectives.targets.onnx_export.export_program", refuse)
    module, context = make(kind)
    names = context.input_names
    session = exported(module, tmp_path / "m.onnx", *context.example, names=names)
    assert session.batch is None
    for batch in (1, 2, 5):
        inputs, _ = next(context.train.batches(batch))
        (got,) = session.run({n: x.numpy() for n, x in zip(names, inputs, strict=True)})
        np.testing.assert_allclose(np.float64(got), expected(module, *inputs), rtol=1e-4, atol=1e-5)


def test_an_example_of_one_gives_a_file_for_any_batch(tmp_path: Path) -> None:
    module, context = make("cnn")
    session = exported(module, tmp_path / "m.onnx", context.example[0][:1])
    assert session.batch is None
    assert answer(session, context.example[0]).shape == (2, 10)


class OnlyTwo(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 8) * 2


class MixesFour(nn.Module):
    """Runs at every multiple of two, but gives half as many rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1) + 1


@pytest.mark.parametrize("module", [OnlyTwo(), MixesFour()])
def test_a_module_for_one_batch_gives_a_file_for_that_batch(
    module: nn.Module, tmp_path: Path
) -> None:
    session = exported(module, tmp_path / "m.onnx")
    assert session.batch == 2
    np.testing.assert_allclose(answer(session, X), expected(module, X))


class CountsRows(nn.Module):
    """Reads the batch as a Python number, which a trace would freeze."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = int(x.shape[0])
        return torch.cat([x.reshape(rows, -1), torch.ones(rows, 1)], dim=1)


@pytest.mark.slow
def test_a_batch_read_in_python_is_followed_by_the_second_exporter(tmp_path: Path) -> None:
    session = exported(CountsRows(), tmp_path / "m.onnx")
    first = (tmp_path / "m.onnx").read_bytes()
    assert session.batch is None
    x = torch.cat([X, X, X[:1]])
    np.testing.assert_array_equal(answer(session, x), expected(CountsRows(), x))
    exported(CountsRows(), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == first
    assert Path(__file__).name.encode() not in first
    assert b"CountsRows" not in first


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x * 2
        return x * 3


def test_control_flow_on_values_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    match = (
        r"cannot be exported to ONNX: tracing: its control flow depends on tensors at "
        r"test_onnx_export\.py:\d+ .*; torch\.export: .*data-dependent"
    )
    with pytest.raises(BuildError, match=match):
        exported(Branches(), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


class Unsupported(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(x[:, None])  # type: ignore[no-any-return]


@pytest.mark.slow
def test_an_operator_without_counterpart_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BuildError, match=r"aten::linalg_svdvals.*; torch\.export: .*_linalg_svd"):
        exported(Unsupported(), tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")


class FreezesAMean(nn.Module):
    """Makes a constant from a value, which holds for the example only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tensor(float(x.mean()))


@pytest.mark.slow
def test_a_constant_made_from_a_value_is_not_trusted(tmp_path: Path) -> None:
    session = exported(FreezesAMean(), tmp_path / "m.onnx")
    np.testing.assert_allclose(answer(session, X * 9), expected(FreezesAMean(), X * 9), rtol=1e-5)


class Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x)


@pytest.mark.slow
def test_a_file_that_answers_otherwise_is_refused(tmp_path: Path) -> None:
    random = torch.get_rng_state()
    match = r"output 0 of the file differs from the module's by up to \d[\d.]*, where the largest"
    with pytest.raises(BuildError, match=match):
        exported(Noisy(), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), random)


class Returns(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> Any:
        return {
            "dict": {"logits": x},
            "NoneType": None,
            "list": [x],
            "tuple": (x, 3),
            "scalar": x.mean(),
            "transposed": x.T,
        }[self.kind]


@pytest.mark.parametrize("kind", ["dict", "NoneType", "list", "tuple"])
def test_outputs_must_be_tensors(kind: str, tmp_path: Path) -> None:
    match = f"expected the model to return a Tensor or a tuple of Tensors, got {kind}"
    with pytest.raises(BuildError, match=match):
        exported(Returns(kind), tmp_path / "m.onnx")


@pytest.mark.parametrize(("kind", "shape"), [("scalar", r"\(\)"), ("transposed", r"\(8, 2\)")])
def test_outputs_must_have_the_batch_first(kind: str, shape: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=f"to have the batch of 2 first, got shape {shape}"):
        exported(Returns(kind), tmp_path / "m.onnx")


def test_a_module_that_fails_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"the model fails on its example inputs: .*mat1 and mat2"):
        exported(nn.Linear(9, 2), tmp_path / "m.onnx")


@pytest.mark.parametrize("names", [(), ("a", "b"), ("a", "a")])
def test_every_input_has_a_name(names: tuple[str, ...], tmp_path: Path) -> None:
    example = (X,) if len(names) != 2 or names == ("a", "b") else (X, X)
    with pytest.raises(BuildError, match=f"expected {len(example)} different input names"):
        export_onnx(nn.Identity(), example, names, tmp_path / "m.onnx")


class TwoOfThree(nn.Module):
    def forward(
        self, a: torch.Tensor, _: torch.Tensor, c: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return a + c, (a * c).argmax(dim=1)


def test_inputs_and_outputs_keep_their_names_even_unused_ones(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    names = ("third", "unused", "first")
    session = exported(TwoOfThree(), path, X, X.long(), X * 2, names=names)
    graph = onnx.load(path).graph
    assert [entry.name for entry in graph.input] == list(names)
    assert [entry.name for entry in graph.output] == ["output_0", "output_1"]
    x = X.numpy()
    total, best = session.run({"third": x, "unused": x.astype(np.int64), "first": x * 2})
    np.testing.assert_array_equal(total, x + x * 2)
    np.testing.assert_array_equal(best, (x * x).argmax(axis=1))


class Masked(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, torch.tensor(-torch.inf))


def test_infinite_outputs_are_compared_too(tmp_path: Path) -> None:
    session = exported(Masked(), tmp_path / "m.onnx")
    np.testing.assert_array_equal(answer(session, X), expected(Masked(), X))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8, bias=False)
        self.second = nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))  # type: ignore[no-any-return]


def test_shared_weights_are_stored_once_and_used_directly(tmp_path: Path) -> None:
    module = nn.Sequential(Tied(), nn.ReLU(), Tied()).eval()
    module[2].load_state_dict(module[0].state_dict())
    exported(module, tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    large = {tensor.name for tensor in graph.initializer if np.prod(tensor.dims) == 64}
    assert len(large) == 1
    products = [node for node in graph.node if node.op_type in {"MatMul", "Gemm"}]
    assert len(products) == 4
    assert all(large & set(node.input) for node in products)
    assert "Identity" not in {node.op_type for node in graph.node}


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
def test_equal_modules_give_equal_bytes(kind: str, tmp_path: Path) -> None:
    module, context = make(kind)
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    exported(module, first, *context.example)
    exported(copy.deepcopy(module), second, *context.example)
    assert first.read_bytes() == second.read_bytes()
    assert os.fsencode(Path(__file__).parents[2]) not in first.read_bytes()


class WritesIntoItsInput(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.add_(1)


def test_nothing_else_is_changed(tmp_path: Path) -> None:
    module, context = make("transformer")
    module.train()
    module.get_submodule("encoder").eval()
    modes = {name: part.training for name, part in module.named_modules()}
    weights = copy.deepcopy(module.state_dict())
    random = torch.get_rng_state()
    fast = torch.backends.mha.get_fastpath_enabled()
    levels = {name: logging.getLogger(name).level for name in ("torch", "onnxscript")}
    x = X.clone()

    exported(module, tmp_path / "m.onnx", *context.example)
    exported(WritesIntoItsInput(), tmp_path / "n.onnx", x)

    assert {name: part.training for name, part in module.named_modules()} == modes
    assert all(torch.equal(weights[name], tensor) for name, tensor in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.backends.mha.get_fastpath_enabled() is fast
    assert torch.is_grad_enabled()
    assert {name: logging.getLogger(name).level for name in levels} == levels
    assert torch.equal(x, X)


def test_settings_are_restored_after_a_failure(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Dropout(), Returns("dict")).train()
    fast = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(BuildError):
        exported(module, tmp_path / "m.onnx")
    assert module[0].training
    assert torch.backends.mha.get_fastpath_enabled() is fast
    assert torch.is_grad_enabled()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Lets no file grow beyond a size, as a full disk would not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    module, context = make("cnn")
    with largest_file(10_000), pytest.raises(ArtifactError, match=r"cannot write .*m\.onnx"):
        export_onnx(module, context.example, ("input",), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file or directory"):
        exported(nn.Identity(), tmp_path / "none" / "m.onnx")
