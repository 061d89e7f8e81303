"""What the stage `quantize` may be told, what it draws, and what it refuses."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from pydantic import ValidationError
from torch import nn

from parefront.spaces.quantization.int8_config import OnnxInt8Choices, OnnxInt8Config
from parefront.spaces.quantization.onnx_int8 import OnnxInt8
from parefront.spaces.stage import TargetTraits
from tests.zoo import make

STATIC = OnnxInt8Config(method="static", calibration="minmax", per_channel=True)
DYNAMIC = OnnxInt8Config(method="dynamic", per_channel=True)


def stage(**choices: Any) -> OnnxInt8:
    traits = TargetTraits(format="onnx", channel_multiple=4)
    return OnnxInt8(OnnxInt8Choices.model_validate(choices), traits)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "static"}, "expected a calibration for static quantisation, got none"),
        (
            {"method": "dynamic", "calibration": "entropy"},
            "expected no calibration for dynamic quantisation, got 'entropy'",
        ),
        ({"method": "none"}, "Input should be 'static' or 'dynamic'"),
    ],
)
def test_impossible_configs_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OnnxInt8Config.model_validate({"per_channel": True} | fields)


def test_a_calibration_is_drawn_only_for_static_quantisation() -> None:
    def drawn(**choices: Any) -> tuple[OnnxInt8Config, set[str]]:
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
        return stage(**choices).draw(trial, {}), set(trial.params)

    config, parameters = drawn(method="dynamic")
    assert config.calibration is None
    assert parameters == {"quantize.per_channel"}
    config, parameters = drawn(method="static", calibration=["entropy", "percentile"])
    assert config.calibration in {"entropy", "percentile"}
    assert parameters == {"quantize.calibration", "quantize.per_channel"}
    assert drawn(method="static", calibration="entropy", per_channel=False) == (
        OnnxInt8Config(method="static", calibration="entropy", per_channel=False),
        set(),
    )


def test_anchors_are_one_of_each_method() -> None:
    assert stage().anchors() == [STATIC, DYNAMIC]
    assert stage(method="dynamic", per_channel=False).anchors() == [
        DYNAMIC.model_copy(update={"per_channel": False})
    ]
    assert stage(method="static", calibration=["percentile", "entropy"]).anchors() == [
        OnnxInt8Config(method="static", calibration="percentile", per_channel=True)
    ]


def test_what_the_target_needs_is_the_default() -> None:
    for needs in (False, True):
        traits = TargetTraits(format="onnx", channel_multiple=4, saturates=needs)
        bound = OnnxInt8(OnnxInt8Choices(), traits)
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
        assert bound.draw(trial, {}).reduce_range is needs
        assert {anchor.reduce_range for anchor in bound.anchors()} == {needs}
        assert "quantize.reduce_range" not in trial.params
    told = OnnxInt8(OnnxInt8Choices.model_validate({"reduce_range": False}), traits)
    assert {anchor.reduce_range for anchor in told.anchors()} == {False}
    with pytest.raises(ValidationError, match="expected reduce_range false beside activation_bits"):
        OnnxInt8Config.model_validate(
            STATIC.model_dump() | {"activation_bits": 16, "reduce_range": True}
        )


def test_nothing_to_do_without_weight_matrices() -> None:
    module, context = make("mlp")
    assert stage().nothing_to_do(module, context) is None
    for empty in (nn.Flatten(), nn.BatchNorm1d(64)):
        reason = stage().nothing_to_do(empty, context)
        assert reason == "the model has no weight matrix or convolution kernel"
