"""What every stage promises. A new stage is a new line of `CASES`."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
import pytest
import torch
from torch import nn

from parefront.spaces.distillation.recovery import RecoveryTraining
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.packing.stage import Packing
from parefront.spaces.pruning.channels import ChannelPruning
from parefront.spaces.pruning.depth import DepthPruning
from parefront.spaces.pruning.heads import HeadPruning
from parefront.spaces.pruning.weights import WeightPruning
from parefront.spaces.quantization import adaptive_rounding
from parefront.spaces.quantization.blocks import BlockQuantization
from parefront.spaces.quantization.half import HalfWeights
from parefront.spaces.quantization.level_sets import LEVEL_SETS
from parefront.spaces.quantization.levels import WeightRounding
from parefront.spaces.quantization.onnx_int8 import OnnxInt8
from parefront.spaces.sharing.clusters import WeightClustering
from parefront.spaces.sharing.depth import DepthSharing
from parefront.spaces.stage import Form, Stage, StageConfig, StageContext, TargetTraits
from tests.exporting import SATURATES, assert_ships, export, run
from tests.zoo import MODELS, make


@dataclass(frozen=True)
class Case:
    """A stage on a model of the zoo, with choices that keep the test short."""

    stage: type[Stage[Any, Any]]
    model: str
    choices: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.stage.name}-{self.model}"

    def make(self) -> tuple[Stage[Any, Any], Any, StageContext]:
        """The stage, a model of its form and a context."""
        module, context = make(self.model)
        # The teacher in the context is another model, as it is in a study.
        module = copy.deepcopy(module)
        model = module if self.stage.form is Form.MODULE else export(module, context)
        return self.bind(), model, context

    def bind(self) -> Stage[Any, Any]:
        choices = self.stage.choices_type.model_validate(self.choices)
        return self.stage(
            choices, TargetTraits(format="onnx", channel_multiple=8, saturates=SATURATES)
        )


CASES = [
    Case(DepthPruning, "resnet", {"share": [0.5, 1.0]}),
    Case(DepthPruning, "mlp", {"importance": "random"}),
    Case(DepthPruning, "transformer", {"importance": "similarity", "share": 1.0}),
    Case(HeadPruning, "transformer", {"importance": "taylor", "scope": "global"}),
    *(
        Case(ChannelPruning, model, {"importance": importance})
        for model, importance in (
            ("cnn", "bn_scale"),
            ("resnet", "median"),
            ("depthwise", "taylor"),
            ("mlp", "l2"),
            ("transformer", "taylor"),
            ("lstm", "l1"),
            ("gru", "taylor"),
            ("conv1d", "bn_scale"),
            ("embedding", "taylor"),
            ("two_inputs", "taylor"),
        )
    ),
    Case(Factorization, "cnn", {"convolution": ["spatial", "tucker", "separable"]}),
    Case(Factorization, "resnet", {"convolution": ["spatial", "tucker", "separable"]}),
    Case(Factorization, "depthwise"),
    Case(
        Factorization,
        "resnet",
        {"convolution": ["grouped", "bottleneck"], "rank": ["ratio", "energy"], "energy": 0.7},
    ),
    Case(Factorization, "cnn", {"convolution": "grouped", "layerwise": True, "multiple": 4}),
    Case(DepthSharing, "resnet", {"start": "mean"}),
    Case(DepthSharing, "transformer"),
    Case(Factorization, "mlp"),
    Case(Factorization, "mlp", {"rank": "sensitivity", "multiple": 1}),
    Case(Factorization, "cnn", {"rank": "sensitivity", "convolution": "tucker", "multiple": 1}),
    Case(Factorization, "transformer"),
    Case(Factorization, "lstm"),
    Case(Factorization, "gru"),
    Case(Factorization, "embedding", {"embeddings": True, "rank": ["ratio", "energy"]}),
    Case(Factorization, "two_inputs"),
    *(
        Case(stage, model, choices)
        for stage, choices in (
            (WeightPruning, {"pattern": ["free", "2:4"], "saliency": ["gradient", "random"]}),
            (WeightClustering, {}),
            (
                WeightRounding,
                {"levels": [*LEVEL_SETS], "allocation": ["even", "sensitivity"]},
            ),
            (HalfWeights, {"format": ["float16", "bfloat16", "fixed16"]}),
            (Packing, {}),
        )
        for model in MODELS
    ),
    *(
        Case(
            WeightPruning,
            model,
            {
                "saliency": ["magnitude", "movement"],
                "schedule": ["once", "cubic", "rounds"],
                "scope": ["global", "sensitivity"],
            },
        )
        for model in ("cnn", "transformer", "gru")
    ),
    *(
        Case(ChannelPruning, model, {"scope": ["sensitivity", "uniform"]})
        for model in ("cnn", "resnet", "transformer")
    ),
    *(
        Case(WeightRounding, model, {"levels": "uniform", "rounding": "adaptive"})
        for model in ("cnn", "transformer", "lstm")
    ),
    Case(RecoveryTraining, "cnn", {"epochs": 2, "soft_loss": "mse", "features": "attention"}),
    Case(RecoveryTraining, "resnet", {"epochs": 2, "features": "hint", "average": 0.9}),
    Case(RecoveryTraining, "depthwise", {"epochs": 2, "patience": 1, "schedule": "constant"}),
    Case(RecoveryTraining, "depthwise", {"epochs": 1, "soft_loss": "hard"}),
    Case(RecoveryTraining, "mlp", {"epochs": 2, "features": "relational", "smoothing": 0.1}),
    Case(RecoveryTraining, "transformer", {"epochs": 2}),
    Case(RecoveryTraining, "lstm", {"epochs": 1, "features": "hint"}),
    Case(RecoveryTraining, "gru", {"epochs": 1, "features": "relational", "mutual": True}),
    Case(RecoveryTraining, "conv1d", {"epochs": 1, "features": "attention", "mutual": True}),
    Case(RecoveryTraining, "embedding", {"epochs": 1, "features": "relational"}),
    Case(RecoveryTraining, "two_inputs", {"epochs": 1, "features": "hint"}),
    *(
        Case(BlockQuantization, model, {"size": [16, 32], "symmetric": [True, False]})
        for model in MODELS
        if model not in ("resnet", "depthwise")
    ),
    *(Case(OnnxInt8, model) for model in MODELS),
    *(
        Case(OnnxInt8, model, {"equalize": True, "correct_bias": True})
        for model in ("cnn", "depthwise", "transformer")
    ),
    Case(OnnxInt8, "transformer", {"equalize": [False, True], "correct_bias": [False, True]}),
    *(
        Case(OnnxInt8, model, {"method": "static", "activation_bits": 16, "weight_bits": [8, 16]})
        for model in ("cnn", "transformer", "gru")
    ),
    Case(
        OnnxInt8,
        "mlp",
        {
            "per_channel": [True, False],
            "activation_bits": [16, 8],
            "weight_bits": [16, 8],
            "symmetric_activations": [True, False],
            "symmetric_weights": [False, True],
        },
    ),
]
STAGES = {case.stage: case for case in CASES}.values()  # one case a stage

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_stage = pytest.mark.parametrize("case", STAGES, ids=lambda case: case.stage.name)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is learnt layer by layer is learnt briefly."""
    monkeypatch.setattr(adaptive_rounding, "STEPS", 5)


def contents(model: Any) -> dict[str, Any]:
    """Everything about a model that a stage must not change, in comparable values."""
    if not isinstance(model, nn.Module):
        return {"bytes": model.SerializeToString(deterministic=True)}
    return {
        "text": str(model),
        "modes": {name: module.training for name, module in model.named_modules()},
        "frozen": {name: p.requires_grad for name, p in model.named_parameters()},
        "state": {
            name: (tuple(value.shape), value.dtype, value.detach().numpy().tobytes())
            for name, value in model.state_dict().items()
        },
    }


def as_parameters(stage: Stage[Any, Any], config: StageConfig) -> dict[str, Any]:
    return {f"{stage.name}.{name}": value for name, value in config.model_dump().items()}


def drawn(stage: Stage[Any, Any], seed: int) -> tuple[StageConfig, dict[str, Any]]:
    """A random config, and the trial's parameters it was drawn from."""
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    config = stage.draw(trial, {})
    return config, trial.params


@every_stage
def test_types_belong_together(case: Case) -> None:
    stage = case.bind()
    assert stage.name.isidentifier()
    assert all(type(config) is stage.config_type for config in stage.anchors())
    assert type(drawn(stage, 0)[0]) is stage.config_type


@every_stage
def test_configs_survive_json_and_are_frozen(case: Case) -> None:
    stage = case.bind()
    for config in (*stage.anchors(), *(drawn(stage, seed)[0] for seed in range(10))):
        text = config.model_dump_json()
        again = stage.config_type.model_validate_json(text)
        assert again == config
        assert again.model_dump_json() == text
        assert hash(again) == hash(config)
        for name in type(config).model_fields:
            with pytest.raises(ValueError, match="frozen"):
                setattr(config, name, None)


@every_stage
def test_anchors_are_different_and_can_be_drawn(case: Case) -> None:
    stage = case.bind()
    anchors = stage.anchors()
    assert len(set(anchors)) == len(anchors) >= 1
    for config in anchors:
        trial = optuna.trial.FixedTrial(as_parameters(stage, config))
        assert stage.draw(trial, {}) == config


@every_stage
def test_parameters_are_named_after_the_fields_they_become(case: Case) -> None:
    stage = case.bind()
    for seed in range(10):
        config, parameters = drawn(stage, seed)
        fields = as_parameters(stage, config)
        assert parameters.items() <= fields.items()
        # Whatever is not a parameter is fixed, so that the fields give the config back.
        assert stage.draw(optuna.trial.FixedTrial(fields), {}) == config


@every_case
def test_equal_config_and_seed_give_an_equal_model(case: Case) -> None:
    stage, model, context = case.make()
    for config in stage.anchors():
        first = stage.apply(model, config, context)
        torch.rand(7)  # moves the global random state
        second = stage.apply(model, config, context)
        assert contents(first.model) == contents(second.model)
        assert first.achieved == second.achieved


@every_case
def test_the_given_model_and_the_random_state_stay(case: Case) -> None:
    stage, model, context = case.make()
    if isinstance(model, nn.Module):
        # A mixture of modes and frozen weights shows what is put back wrongly.
        model.train()
        next(model.children()).eval()
        next(model.parameters()).requires_grad_(False)
    before, random = contents(model), torch.get_rng_state()
    applied = stage.apply(model, stage.anchors()[0], context)
    assert applied.model is not model
    assert contents(model) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert contents(context.teachers[0]) == contents(make(case.model)[0])


@every_case
def test_the_result_shares_no_weight_with_the_given_model(case: Case) -> None:
    stage, model, context = case.make()
    applied = stage.apply(model, stage.anchors()[0], context)
    if isinstance(model, nn.Module):
        before = contents(model)
        with torch.no_grad():
            for parameter in applied.model.parameters():
                parameter.fill_(0.5)
        assert contents(model) == before


@every_case
def test_the_result_ships(case: Case) -> None:
    stage, model, context = case.make()
    for config in stage.anchors():
        result = stage.apply(model, config, context).model
        if isinstance(result, nn.Module):
            assert_ships(result, context)
        else:
            (before,) = run(model, context, context.example)
            (after,) = run(result, context, context.example)
            assert after.shape == before.shape
            assert after.dtype == before.dtype


@every_case
def test_what_was_achieved_is_json(case: Case) -> None:
    stage, model, context = case.make()
    achieved = dict(stage.apply(model, stage.anchors()[0], context).achieved)
    assert achieved
    assert json.loads(json.dumps(achieved, allow_nan=False)) == achieved


@every_case
def test_there_is_something_to_do(case: Case) -> None:
    module, context = make(case.model)
    before = contents(module)
    assert case.bind().nothing_to_do(module, context) is None
    assert contents(module) == before


@every_stage
def test_nothing_to_do_is_said(case: Case) -> None:
    _, context = make("mlp")
    reason = case.bind().nothing_to_do(nn.Flatten(), context)
    assert reason
    assert not reason.endswith(".")


class StopError(Exception):
    """Ends a trial from a tick."""


@every_stage
def test_a_tick_can_end_the_work(case: Case) -> None:
    stage, model, context = case.make()
    ticks = 0

    def count() -> None:
        nonlocal ticks
        ticks += 1

    def stop() -> None:
        raise StopError

    config = stage.anchors()[0]
    stage.apply(model, config, replace(context, tick=count))
    assert ticks >= 1
    before = contents(model)
    with pytest.raises(StopError):
        stage.apply(model, config, replace(context, tick=stop))
    assert contents(model) == before


@every_case
def test_results_can_be_copied(case: Case) -> None:
    stage, model, context = case.make()
    result = stage.apply(model, stage.anchors()[0], context).model
    assert contents(copy.deepcopy(result)) == contents(result)
