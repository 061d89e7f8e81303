"""What stages leave alone, or have nothing to do on, is said with its reason."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from torch import nn

from parefront.spaces.lowrank.config import FactorizationChoices
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.pruning.channels import ChannelPruning, ChannelPruningChoices
from parefront.spaces.pruning.weights import WeightPruning
from parefront.spaces.quantization.blocks import BlockQuantization
from parefront.spaces.quantization.half import HalfWeights
from parefront.spaces.quantization.levels import RoundingChoices, WeightRounding
from parefront.spaces.quantization.onnx_int8 import OnnxInt8, OnnxInt8Choices
from parefront.spaces.ranges import Choice
from parefront.spaces.stage import Form, Stage, TargetTraits
from tests.exporting import export
from tests.zoo import make

TRAITS = TargetTraits(format="onnx", channel_multiple=8)


def achieved(kind: type[Stage[Any, Any]], model: str) -> Mapping[str, Any]:
    """What the first anchor of a stage does on a model of the zoo."""
    stage = kind(kind.choices_type(), TRAITS)
    module, context = make(model)
    given = module if stage.form is Form.MODULE else export(module, context)
    return stage.apply(given, stage.anchors()[0], context).achieved


@pytest.mark.parametrize(
    ("model", "others"),
    [
        ("lstm", {"lstm": "LSTM is not narrowed"}),
        ("gru", {"gru": "GRU is not narrowed"}),
        ("embedding", {"embed": "Embedding is not narrowed"}),
        ("conv1d", {}),
        ("two_inputs", {}),
    ],
)
def test_pruning_says_what_it_never_narrows(model: str, others: dict[str, str]) -> None:
    result = achieved(ChannelPruning, model)
    assert result["others"] == others
    assert result["channels"]


def test_an_embedding_that_is_narrowed_is_not_said_to_be_left() -> None:
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(64, 32)
            self.beside, self.out = nn.Linear(32, 32), nn.Linear(32, 4)
            self.first = nn.Embedding(64, 32)

        def forward(self, tokens: Any) -> Any:
            both = self.embed(tokens) + self.beside(self.first(tokens))
            return self.out(both.mean(dim=1))

    _, context = make("embedding")
    stage = ChannelPruning(ChannelPruningChoices(), TRAITS)
    applied = stage.apply(Added(), stage.anchors()[0], context)
    assert applied.model.get_parameter("embed.weight").shape == (64, 16)
    assert applied.achieved["others"] == {"first": "Embedding is not narrowed"}


@pytest.mark.parametrize(
    ("model", "others"),
    [
        ("lstm", {"lstm": "the weights of LSTM are not factorised"}),
        ("gru", {"gru": "the weights of GRU are not factorised"}),
        ("embedding", {"embed": "the weights of Embedding are not factorised"}),
        ("two_inputs", {}),
    ],
)
def test_factorising_says_what_it_never_factorises(model: str, others: dict[str, str]) -> None:
    result = achieved(Factorization, model)
    assert result["others"] == others
    assert result["ranks"]


def test_kernels_along_one_dimension_are_not_factorised() -> None:
    module, context = make("conv1d")
    stage = Factorization(FactorizationChoices(), TRAITS)
    assert stage.nothing_to_do(module, context) == (
        "no layer can be factorised, such as features.0: a Conv1d is not factorised"
    )


@pytest.mark.parametrize(
    ("model", "matrices", "left"),
    [
        ("lstm", 2, {"LSTM": 1}),
        ("gru", 2, {"GRU": 2}),
        ("conv1d", 1, {"Conv": 2}),
        ("embedding", 2, {"Gather": 1}),
        ("two_inputs", 3, {"Conv": 1}),
        ("mlp", 3, {}),
    ],
)
def test_blocks_say_which_operators_are_left(
    model: str, matrices: int, left: dict[str, int]
) -> None:
    assert achieved(BlockQuantization, model) == {"matrices": matrices, "left": left}


def test_static_quantisation_leaves_recurrent_layers() -> None:
    assert achieved(OnnxInt8, "lstm")["float_nodes"] == {"LSTM": 1}
    assert achieved(OnnxInt8, "gru")["float_nodes"] == {"GRU": 2}


def test_dynamic_quantisation_takes_an_lstm_and_leaves_a_gru() -> None:
    for model, left in (("lstm", {}), ("gru", {"GRU": 2})):
        stage = OnnxInt8(OnnxInt8Choices.model_validate({"method": "dynamic"}), TRAITS)
        module, context = make(model)
        applied = stage.apply(export(module, context), stage.anchors()[0], context)
        assert applied.achieved["float_nodes"] == left


def test_half_says_how_many_were_too_small() -> None:
    result = achieved(HalfWeights, "conv1d")
    module, context = make("conv1d")
    floats = [t for t in export(module, context).graph.initializer if t.data_type == 1]
    assert result["tensors"] == 3
    assert result["small"] == len(floats) - 3 > 0


def test_rules_take_recurrent_layers_and_say_what_is_small() -> None:
    result = achieved(WeightPruning, "gru")
    assert len(result["layers"]) == 8 + 2
    assert result["left_alone"] == {}


def test_rounding_has_nothing_to_do_between_two_layers() -> None:
    module, context = make("mlp")
    two = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 10))
    only_inner = RoundingChoices(ends=Choice[bool](options=(False,)))
    stage = WeightRounding(only_inner, TRAITS)
    reason = stage.nothing_to_do(two, context)
    assert reason == "no layer with a weight that is large enough is neither the first nor the last"
    assert stage.nothing_to_do(module, context) is None
    assert WeightRounding(RoundingChoices(), TRAITS).nothing_to_do(two, context) is None


def test_the_ends_are_layers_with_all_their_weights() -> None:
    module, context = make("lstm")
    stage = WeightRounding(RoundingChoices(ends=Choice[bool](options=(False,))), TRAITS)
    result = stage.apply(module, stage.anchors()[0], context).achieved
    assert list(result["levels"]) == ["fc"]
    assert result["left_alone"] == dict.fromkeys(
        ["lstm.weight_ih_l0", "lstm.weight_hh_l0", "out"], "it is the first or the last layer"
    )


def test_stages_leave_the_logging_of_a_program_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    achieved(BlockQuantization, "mlp")
    assert caplog.messages == []
    program = "import logging, parefront.spaces.catalog; print(logging.getLogger().handlers)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
