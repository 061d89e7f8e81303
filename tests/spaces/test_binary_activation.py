"""Activations of one bit: values, gradients, and networks that are made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

import parefront as pf
from parefront.objectives.targets.onnx_export import export_onnx
from parefront.spaces.distillation.recovery import RecoveryConfig, RecoveryTraining
from parefront.spaces.packing.packer import pack
from parefront.spaces.quantization.levels import RoundingChoices, RoundingConfig, WeightRounding
from parefront.spaces.ruled import baked
from parefront.spaces.stage import StageContext, TargetTraits
from tests.exporting import assert_ships, export, run
from tests.zoo import Memory, make

TRAITS = TargetTraits(format="onnx", channel_multiple=8)


def network() -> tuple[nn.Module, StageContext]:
    """A network of binary activations between wide layers, and random data that it can learn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(64, 128),
            nn.BatchNorm1d(128),
            pf.BinaryActivation(),
            nn.Linear(128, 128),
            nn.BatchNorm1d(128),
            pf.BinaryActivation(),
            nn.Linear(128, 10),
        ).eval()
    _, context = make("mlp")
    return model, context


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20))
def test_values_are_signs_and_the_gradient_is_that_of_a_line_cut_off(values: list[float]) -> None:
    x = torch.tensor(values, requires_grad=True)
    made = pf.BinaryActivation()(x)
    (3 * made).sum().backward()
    assert made.tolist() == [1.0 if value >= 0 else -1.0 for value in values]
    assert x.grad is not None
    assert x.grad.tolist() == [3.0 if abs(value) <= 1 else 0.0 for value in values]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_stays(dtype: torch.dtype) -> None:
    assert pf.BinaryActivation()(torch.randn(3, dtype=torch.float32).to(dtype)).dtype == dtype


def test_a_network_of_them_ships(tmp_path: Path) -> None:
    model, context = network()
    assert_ships(model, context)
    export_onnx(model, context.example, ["input"], tmp_path / "model.onnx")
    held = onnx.load(tmp_path / "model.onnx")
    assert {node.domain for node in held.graph.node} == {""}


@pytest.mark.slow
def test_torch_export_takes_it() -> None:
    x = torch.randn(4, 8)
    program = torch.export.export(nn.Sequential(nn.Flatten(), pf.BinaryActivation()).eval(), (x,))
    assert torch.equal(program.module()(x), torch.where(x >= 0, 1.0, -1.0))


def test_a_network_of_them_learns_with_weights_of_one_bit_that_the_file_stores() -> None:
    model, context = network()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 64, generator=generator)
    targets = (inputs @ torch.randn(64, 10, generator=generator)).argmax(dim=1)
    source = Memory((inputs,), targets)
    context = replace(context, train=source, calibration=source, teachers=(model,))
    config = RoundingConfig(levels="binary", ends=True)
    rounded = WeightRounding(RoundingChoices(), TRAITS).apply(model, config, context).model
    recovery = RecoveryConfig(
        epochs=10, learning_rate=0.01, soft_weight=0.0, temperature=None, batch_size=32
    )
    stage = RecoveryTraining(RecoveryTraining.choices_type(), TRAITS)
    trained = stage.apply(rounded, recovery, context).model.eval()

    def accuracy(module: nn.Module) -> float:
        with torch.no_grad():
            return float((module(inputs).argmax(dim=1) == targets).float().mean())

    assert accuracy(rounded.eval()) < 0.4
    assert accuracy(trained) > 0.6
    assert_ships(trained, context)
    for layer in baked(trained).modules():
        if isinstance(layer, nn.Linear):
            assert all(len(torch.unique(row)) == 2 for row in layer.weight)
    file = export(trained, context)
    packed, _ = pack(file)
    (before,), (after,) = (run(each, context, (inputs,)) for each in (file, packed))
    np.testing.assert_array_equal(np.asarray(before), np.asarray(after))
    # A bit for each weight: those of the middle layer are the largest tensor there is.
    stored = [len(numpy_helper.to_array(each).tobytes()) for each in packed.graph.initializer]
    assert max(stored) == 128 * 128 / 8
    assert packed.ByteSize() < file.ByteSize() / 7
