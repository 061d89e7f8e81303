"""Bias correction: means of layers against those of the float model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import optuna
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from pydantic import ValidationError
from torch import nn

from parefront.spaces.quantization.bias_correction import channel_means, give_biases
from parefront.spaces.quantization.calibration import Feeds, calibration_feeds
from parefront.spaces.quantization.graph import prepared
from parefront.spaces.quantization.onnx_int8 import OnnxInt8, OnnxInt8Choices, OnnxInt8Config
from parefront.spaces.stage import StageContext, TargetTraits
from tests.exporting import SATURATES, export, run
from tests.zoo import MODELS, make

Array = NDArray[Any]
STAGE = OnnxInt8(OnnxInt8Choices(), TargetTraits(format="onnx", channel_multiple=8))
PLAIN = OnnxInt8Config(
    method="static", calibration="minmax", per_channel=False, reduce_range=SATURATES
)
CORRECTED = PLAIN.model_copy(update={"correct_bias": True})
LAYERS = {"cnn": 4, "resnet": 6, "depthwise": 6, "mlp": 3, "transformer": 3}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def feeds(model: onnx.ModelProto, context: StageContext) -> Callable[[], Iterator[Feeds]]:
    return lambda: calibration_feeds(model, context)


def outputs(model: onnx.ModelProto, context: StageContext) -> Array:
    inputs = next(context.calibration.batches(len(context.calibration)))[0]
    return np.asarray(run(model, context, inputs)[0])


def weights(model: onnx.ModelProto) -> dict[str, Array]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


@pytest.mark.parametrize("kind", LAYERS)
def test_the_mean_error_of_every_layer_goes(kind: str) -> None:
    module, context = make(kind)
    model = export(module, context)
    floats = prepared(model)
    names = give_biases(floats)
    assert len(names) == LAYERS[kind]
    expected = channel_means(floats, names, feeds(floats, context))
    largest, shipped = {}, {}
    for config in (PLAIN, CORRECTED):
        applied = STAGE.apply(model, config, context)
        found = channel_means(applied.model, names, feeds(model, context))
        largest[config] = {name: np.abs(found[name] - expected[name]).max() for name in names}
        off = outputs(applied.model, context) - outputs(model, context)
        shipped[config] = np.abs(off.mean(axis=0)).max()
        assert applied.achieved.get("corrected_biases") == (
            LAYERS[kind] if config.correct_bias else None
        )
    held = weights(applied.model)
    made = {node.output[0]: node for node in applied.model.graph.node}
    steps = {
        node.name: float(held[made[node.input[2]].input[1]].max())
        for node in applied.model.graph.node
        if node.name in names
    }
    for name in names:
        # A bias is a whole number of steps, so that half of one may be left.
        assert largest[CORRECTED][name] < 0.6 * steps[name] + 1e-5
        assert largest[CORRECTED][name] < largest[PLAIN][name]
    assert shipped[CORRECTED] < shipped[PLAIN] / 5


@pytest.mark.parametrize("kind", MODELS)
def test_nothing_but_biases_is_touched(kind: str) -> None:
    module, context = make(kind)
    with torch.no_grad():
        for parameter in module.parameters():
            # Biases of zeros are stored once for several layers, until one of them is changed.
            parameter.add_(0.01 * torch.randn(parameter.shape))
    model = export(module, context)
    plain, corrected = (STAGE.apply(model, each, context).model for each in (PLAIN, CORRECTED))

    def others(made: onnx.ModelProto) -> list[bytes]:
        """What nodes read that is no bias."""
        held = weights(made)
        integers = {name for name, value in held.items() if value.dtype == np.int32}
        return sorted(
            held[name].tobytes()
            for node in made.graph.node
            for name in node.input
            if name in held and not integers.intersection(node.input)
        )

    def operators(made: onnx.ModelProto) -> list[str]:
        return sorted(node.op_type for node in made.graph.node)

    assert others(plain) == others(corrected)
    assert operators(plain) == operators(corrected)


def test_a_known_shift_is_taken_out() -> None:
    """Weights of 0.4 steps all round to zero, so that the bias must hold the whole mean."""
    layer = nn.Linear(64, 2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, 1:] = 0.4 / 127
        layer.weight[:, 0] = 1.0
        layer.bias.zero_()
    _, context = make("mlp")
    inputs = torch.rand(64, 64, generator=torch.Generator().manual_seed(1))
    source = type(context.calibration)((inputs,), torch.zeros(64))  # type: ignore[call-arg]
    context = StageContext(
        example=(inputs[:2],),
        train=source,
        calibration=source,
        loss=context.loss,
        teachers=context.teachers,
        seed=0,
        input_names=("input",),
    )
    model = export(layer, context)
    expected = outputs(model, context)
    plain, corrected = (
        outputs(STAGE.apply(model, config, context).model, context) - expected
        for config in (PLAIN, CORRECTED)
    )
    lost = -float(inputs[:, 1:].sum(dim=1).mean()) * 0.4 / 127
    np.testing.assert_allclose(plain.mean(axis=0), lost, atol=2e-3)
    np.testing.assert_allclose(corrected.mean(axis=0), 0, atol=1e-4)


def test_layers_without_a_bias_get_one() -> None:
    layers = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.Flatten(),
        nn.Linear(576, 3, bias=False),
    )
    _, context = make("cnn")
    model = export(layers, context)
    floats = prepared(model)
    before = outputs(floats, context)
    assert len(give_biases(floats)) == 2  # the last layer is a MatMul
    onnx.checker.check_model(floats, full_check=True)
    np.testing.assert_allclose(outputs(floats, context), before, rtol=1e-5, atol=1e-6)
    applied = STAGE.apply(model, CORRECTED, context)
    onnx.checker.check_model(applied.model, full_check=True)
    assert applied.achieved["corrected_biases"] == 2


def test_with_equalisation_too() -> None:
    module, context = make("cnn")
    model = export(module, context)
    both = OnnxInt8Config.model_validate(CORRECTED.model_dump() | {"equalize": True})
    first, second = (STAGE.apply(model, both, context) for _ in range(2))
    assert first.model.SerializeToString() == second.model.SerializeToString()
    assert first.achieved["equalized_pairs"] == 3
    assert first.achieved["corrected_biases"] == 4
    error = np.abs(outputs(first.model, context) - outputs(model, context)).mean(axis=0)
    assert error.max() < 0.1 * np.abs(outputs(model, context)).max()


# Configs


def test_configs_that_do_the_same_are_equal() -> None:
    assert OnnxInt8Config(
        method="static", calibration="minmax", per_channel=False, correct_bias=False
    ) == OnnxInt8Config(method="static", calibration="minmax", per_channel=False)
    assert OnnxInt8Config(method="dynamic", per_channel=True).correct_bias is None
    for config in (PLAIN, CORRECTED, OnnxInt8Config(method="dynamic", per_channel=True)):
        assert OnnxInt8Config.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"method": "dynamic", "correct_bias": False},
            "expected no correct_bias for dynamic quantisation, got False",
        ),
        (
            {"method": "static", "calibration": "minmax", "correct_bias": None},
            "expected correct_bias true or false for static quantisation, got none",
        ),
    ],
)
def test_impossible_configs_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OnnxInt8Config.model_validate({"per_channel": True} | fields)


def test_both_are_drawn_only_where_asked_for() -> None:
    def drawn(**choices: Any) -> set[str]:
        stage = OnnxInt8(OnnxInt8Choices.model_validate(choices), STAGE.target)
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
        stage.draw(trial, {})
        return set(trial.params) - {"quantize.per_channel", "quantize.calibration"}

    both = {"equalize": [False, True], "correct_bias": [False, True]}
    assert drawn(method="static") == set()
    assert drawn(method="static", **both) == {"quantize.equalize", "quantize.correct_bias"}
    assert drawn(method="dynamic", **both) == {"quantize.equalize"}
