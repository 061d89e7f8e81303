"""Files whose inputs may have other sizes than the example, in more than the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from parefront.errors import BuildError
from parefront.objectives.targets.axes import Axes
from parefront.objectives.targets.catalog import RUNTIMES
from parefront.objectives.targets.onnx_export import export_onnx
from parefront.objectives.targets.shape_checks import only_shapes_decide

NAMES = ("ids", "mask")
DYNAMIC = {"ids": {1: "length"}, "mask": {1: "length"}}


def sequences(count: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(0, 20, (count, length), generator=generator)
    lengths = torch.randint(1, length + 1, (count, 1), generator=generator)
    return ids, (torch.arange(length) < lengths).long()


class Recurrent(nn.Module):
    def __init__(self, tagger: bool = False) -> None:
        super().__init__()
        self.tagger = tagger
        self.embed = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 8, batch_first=True, bidirectional=True)
        self.out = nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.embed(ids))
        weights = mask[..., None].to(states.dtype)
        outputs: torch.Tensor = self.out(states * weights)
        return outputs if self.tagger else outputs.sum(dim=1) / weights.sum(dim=1)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.out = nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = self.encoder(self.embed(ids), src_key_padding_mask=mask == 0)
        weights = mask[..., None].to(states.dtype)
        return self.out((states * weights).sum(dim=1) / weights.sum(dim=1))  # type: ignore[no-any-return]


class Tokens(nn.Module):
    """Knows eight positions, and takes whatever it is given by place."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(20, 8), nn.Embedding(8, 8)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        ids, mask = inputs
        if ids.shape != mask.shape:
            raise ValueError("a mask for each token")
        found = self.embed(ids) + self.places.weight[: ids.shape[1]]
        return (found * mask[..., None]).sum(dim=1)  # type: ignore[no-any-return]


class Fixed(nn.Module):
    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (ids * mask).reshape(-1, 6).float()


def answers(path: Path, inputs: tuple[torch.Tensor, ...]) -> Any:
    """What ONNX Runtime alone gives."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {n: x.numpy() for n, x in zip(NAMES, inputs, strict=True)})
    return output


def shapes(path: Path) -> list[list[Any]]:
    graph = onnx.load(path).graph
    return [
        [size.dim_param or size.dim_value for size in entry.type.tensor_type.shape.dim]
        for entry in (*graph.input, *graph.output)
    ]


@pytest.mark.parametrize(
    ("make", "lengths", "output"),
    [
        (Recurrent, (1, 4, 50), ["batch", 3]),
        (lambda: Recurrent(tagger=True), (1, 4, 50), ["batch", "length", 3]),
        (Tokens, (1, 4, 8), ["batch", 8]),
        pytest.param(Encoder, (1, 4, 50), ["batch", 3], marks=pytest.mark.slow),
    ],
    ids=["lstm", "tagger", "tokens", "attention"],
)
def test_a_file_for_any_length(
    make: Any, lengths: tuple[int, ...], output: list[Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module, path = make().eval(), tmp_path / "m.onnx"
    export_onnx(module, sequences(1, 6), NAMES, path, dynamic=DYNAMIC)
    assert shapes(path) == [["batch", "length"], ["batch", "length"], output]
    for length in lengths:
        inputs = sequences(3, length)
        with torch.no_grad():
            expected = module(*inputs).numpy()
        np.testing.assert_allclose(answers(path, inputs), expected, rtol=1e-3, atol=1e-5)


def test_without_it_only_the_batch_varies(tmp_path: Path) -> None:
    export_onnx(Recurrent().eval(), sequences(1, 6), NAMES, tmp_path / "m.onnx")
    assert shapes(tmp_path / "m.onnx") == [["batch", 6], ["batch", 6], ["batch", 3]]


def test_a_module_for_one_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="dimensions vary, and at smaller sizes .*leave dynamic"):
        export_onnx(Fixed(), sequences(2, 6), NAMES, tmp_path / "m.onnx", dynamic=DYNAMIC)


@pytest.mark.parametrize("name", ["executorch", "litert"])
def test_runtimes_with_fixed_shapes_say_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"inputs of one shape, .*ids \[1\].*onnxruntime"):
        RUNTIMES[name].build(
            Recurrent().eval(), sequences(2, 6), NAMES, tmp_path / "m", dynamic=DYNAMIC
        )


@pytest.mark.parametrize("name", ["openvino", pytest.param("aotinductor", marks=pytest.mark.slow)])
def test_other_runtimes_run_other_lengths(name: str, tmp_path: Path) -> None:
    runtime, module = RUNTIMES[name], Tokens().eval()
    path = tmp_path / f"m.{runtime.format}"
    runtime.build(module, sequences(2, 6), NAMES, path, dynamic=DYNAMIC)
    session = runtime.open(path, 1)
    for length in (3, 8):
        inputs = sequences(4, length)
        (got,) = session.run({n: x.numpy() for n, x in zip(NAMES, inputs, strict=True)})
        with torch.no_grad():
            expected = module(*inputs).numpy()
        np.testing.assert_allclose(np.float64(got), expected, rtol=1e-3, atol=1e-5)


class ByRows(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[0] > 16 else x * 3


class ByWidth(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[1] > 16 else x * 3


class ByValue(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 16 else x * 3


@pytest.mark.parametrize(
    ("module", "trusted"), [(ByRows(), False), (ByWidth(), True), (ByValue(), False)], ids=repr
)
def test_branches_on_fixed_shapes_are_told_from_others(module: nn.Module, trusted: bool) -> None:
    axes: Axes = {"x": {0: "batch"}}
    places = frozenset({type(module).__name__})
    assert only_shapes_decide(module, (torch.ones(2, 4),), ("x",), axes, places) is trusted
