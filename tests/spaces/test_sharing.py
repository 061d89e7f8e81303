"""The stage `share`: what blocks have the same form, and what becomes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from parefront.errors import SpaceError, StageError
from parefront.objectives.targets.onnx_export import export_onnx
from parefront.spaces.catalog import STAGES
from parefront.spaces.distillation.recovery import RecoveryConfig, RecoveryTraining
from parefront.spaces.lowrank.config import FactorizationChoices
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.packing.packer import pack
from parefront.spaces.quantization.onnx_int8 import OnnxInt8, OnnxInt8Choices, OnnxInt8Config
from parefront.spaces.ruled import baked
from parefront.spaces.sharing.blocks import equal_blocks
from parefront.spaces.sharing.depth import DepthSharing, SharingChoices, SharingConfig
from parefront.spaces.space import Space
from parefront.spaces.stage import StageContext, TargetTraits
from tests.exporting import SATURATES, assert_ships, run
from tests.zoo import MODELS, Memory, Residual, make

TARGET = TargetTraits(format="onnx", channel_multiple=8)


def bound(**choices: Any) -> DepthSharing:
    return DepthSharing(SharingChoices.model_validate(choices), TARGET)


class Net(nn.Module):
    """Transformer layers, as many as told."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        for parameter in self.encoder.parameters():
            nn.init.normal_(parameter, std=0.1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.encoder(x).mean(dim=1))  # type: ignore[no-any-return]


def net(depth: int = 5) -> tuple[nn.Module, StageContext]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Net(depth).eval()
        x = torch.randn(16, 6, 32)
    with torch.no_grad():
        source = Memory((x,), model(x).argmax(dim=1))
    context = replace(make("mlp")[1], example=(x[:2],), train=source, calibration=source)
    return model, replace(context, teachers=(model,))


def names(*numbers: int) -> list[str]:
    return [f"encoder.layers.{number}" for number in numbers]


@pytest.mark.parametrize(
    ("group", "groups", "alone"),
    [
        (2, [names(0, 1), names(2, 3)], 4),
        (3, [names(0, 1, 2), names(3, 4)], None),
        (4, [names(0, 1, 2, 3)], 4),
        (9, [names(0, 1, 2, 3, 4)], None),
    ],
)
def test_blocks_in_a_row_become_one(group: int, groups: list[list[str]], alone: int | None) -> None:
    model, context = net()
    applied = bound().apply(model, SharingConfig(group=group), context)
    achieved = applied.achieved
    assert achieved["groups"] == groups
    left = {f"encoder.layers.{alone}": "the others are in whole groups"} if alone else {}
    assert achieved["left_alone"] == left
    for each in groups:
        assert len({applied.model.get_submodule(name) for name in each}) == 1
    one = sum(p.numel() for p in model.get_submodule("encoder.layers.0").parameters())
    saved = one * sum(len(each) - 1 for each in groups)
    assert achieved["parameters_before"] - achieved["parameters_after"] == saved
    assert_ships(applied.model, context)


def test_it_begins_with_the_first_or_the_mean() -> None:
    model, context = net(3)
    weights = [
        model.get_parameter(f"encoder.layers.{at}.linear1.weight").detach() for at in range(3)
    ]
    first = bound().apply(model, SharingConfig(group=3), context).model
    mean = bound().apply(model, SharingConfig(group=3, start="mean"), context).model
    name = "encoder.layers.2.linear1.weight"
    torch.testing.assert_close(first.get_parameter(name).detach(), weights[0], rtol=0, atol=0)
    torch.testing.assert_close(mean.get_parameter(name).detach(), sum(weights) / 3)


def test_equal_blocks_lose_nothing() -> None:
    model, context = net(4)
    state = model.get_submodule("encoder.layers.0").state_dict()
    for name in names(1, 2, 3):
        model.get_submodule(name).load_state_dict(state)
    for start in ("first", "mean"):
        config = SharingConfig.model_validate({"group": 4, "start": start})
        shared = bound().apply(model, config, context).model
        with torch.no_grad():
            torch.testing.assert_close(shared(*context.example), model(*context.example))


def size(module: nn.Module, context: StageContext, path: Path) -> int:
    export_onnx(module.eval(), context.example, context.input_names, path)
    return path.stat().st_size


@pytest.mark.parametrize("kind", ["resnet", "net"])
def test_the_file_holds_the_weights_once(kind: str, tmp_path: Path) -> None:
    model, context = net(4) if kind == "net" else make(kind)
    applied = bound().apply(model, SharingConfig(group=2), context)
    before, after = (size(each, context, tmp_path / "m") for each in (model, applied.model))
    saved = applied.achieved["parameters_before"] - applied.achieved["parameters_after"]
    assert saved > 8_000
    assert before - after > 0.95 * 4 * saved


def test_what_is_shared_is_trained_as_one() -> None:
    model, context = net(4)
    shared = bound().apply(model, SharingConfig(group=2), context).model
    stage = RecoveryTraining(RecoveryTraining.choices_type(), TARGET)
    config = RecoveryConfig(epochs=2, learning_rate=0.01, batch_size=8)
    trained = stage.apply(shared, config, context).model
    moved = trained.get_parameter("encoder.layers.1.linear1.weight")
    assert moved is trained.get_parameter("encoder.layers.0.linear1.weight")
    assert not torch.equal(moved, shared.get_parameter("encoder.layers.0.linear1.weight"))
    assert_ships(trained, context)


def test_int8_of_shared_blocks_is_near(tmp_path: Path) -> None:
    model, context = net(4)
    shared = bound().apply(model, SharingConfig(group=4), context).model
    path = tmp_path / "model.onnx"
    export_onnx(shared, context.example, context.input_names, path)
    stage = OnnxInt8(OnnxInt8Choices(), TARGET)
    config = OnnxInt8Config(
        method="static", calibration="minmax", per_channel=True, reduce_range=SATURATES
    )
    quantised = stage.apply(onnx.load(path), config, context).model
    (inputs, _), *_ = context.calibration.batches(2)
    (found,) = run(quantised, context, inputs)
    with torch.no_grad():
        wanted = shared(*inputs).numpy()
    assert np.abs(np.asarray(found) - wanted).mean() < 0.1 * np.abs(wanted).max()


class Odd(nn.Module):
    """Blocks that look alike and are not."""

    def __init__(self) -> None:
        super().__init__()
        self.strides = nn.ModuleList([nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)])
        hooked = nn.Conv2d(8, 8, 3, padding=1)
        hooked.register_forward_hook(lambda *call: call[2] * 2)
        self.hooked = nn.Sequential(hooked, nn.Conv2d(8, 8, 3, padding=1))
        again = nn.Conv2d(8, 8, 3, padding=1)
        self.again = nn.Sequential(again, nn.ReLU(), again)
        tied, other = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        other.weight = tied.weight
        self.tied = nn.Sequential(tied, other)
        self.scales = nn.ModuleList([Scaled(1.0), Scaled(2.0)])
        self.small = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))


class Scaled(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.conv, self.scale = nn.Conv2d(8, 8, 3, padding=1), scale


def test_what_is_not_of_one_form_is_left_with_its_reason() -> None:
    alone = "no other block beside it has the same form"
    twice = "it is used in several places already"
    assert equal_blocks(Odd()) == (
        [],
        {
            "strides.0": alone,
            "strides.1": alone,
            "hooked.0": "it has hooks",
            "hooked.1": alone,
            "again.0": twice,
            "tied.0": "a weight of it is also that of tied.1",
            "tied.1": "a weight of it is also that of tied.0",
            "scales.0": alone,
            "scales.1": alone,
        },
    )


def test_of_blocks_within_each_other_the_outermost_are_shared() -> None:
    inner = [nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)) for _ in range(3)]
    assert equal_blocks(nn.Sequential(*inner)) == ([["0", "1", "2"]], {})
    assert equal_blocks(nn.Sequential(inner[0], nn.Linear(32, 16))) == (
        [["0.0", "0.2"]],
        {"1": "no other block beside it has the same form"},
    )
    rows = nn.Sequential(Residual(16), Residual(16), nn.Conv2d(16, 32, 1), Residual(32))
    assert equal_blocks(rows)[0] == [["0", "1"]]


class Language(nn.Module):
    """Tokens to logits of the next one."""

    def __init__(self, entries: int = 200) -> None:
        super().__init__()
        self.embed = nn.Embedding(200, 32)
        self.hidden = nn.Linear(32, 32)
        self.out = nn.Linear(32, entries)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.hidden(self.embed(tokens))))  # type: ignore[no-any-return]


def test_an_output_layer_takes_the_table(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Language().eval()
    context = replace(make("embedding")[1], example=(torch.arange(24).reshape(2, 12),))
    stage = bound(tie=True)
    assert stage.nothing_to_do(model, context) is None
    applied = stage.apply(model, SharingConfig(group=2, tie=True), context)
    assert applied.achieved["tied"] == ["out", "embed"]
    assert applied.achieved["parameters_before"] - applied.achieved["parameters_after"] == 6_400
    result = applied.model
    assert result.get_parameter("out.weight") is result.get_parameter("embed.weight")
    assert size(model, context, tmp_path / "a") - size(result, context, tmp_path / "b") > 25_000
    assert_ships(result, context)


def test_why_nothing_is_tied_is_said() -> None:
    _, context = make("embedding")
    applied = bound().apply(net()[0], SharingConfig(group=2, tie=True), net()[1])
    assert applied.achieved["tied"] == "the model has no embedding whose table could be shared"
    with pytest.raises(StageError, match="no nn.Sequential or nn.ModuleList holds blocks"):
        bound().apply(Language(100), SharingConfig(group=2, tie=True), context)


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_model_is_shared_or_says_why(kind: str) -> None:
    model, context = make(kind)
    reason = bound().nothing_to_do(model, context)
    assert (reason is None) == (kind in ("resnet", "transformer"))
    if reason is not None:
        with pytest.raises(StageError, match="no blocks can be shared|holds blocks of some size"):
            bound().apply(model, SharingConfig(group=2), context)


def test_factorised_blocks_are_shared_too() -> None:
    model, context = make("transformer")
    factorize = Factorization(FactorizationChoices(), TARGET)
    thin = factorize.apply(model, factorize.anchors()[0], context).model
    applied = bound().apply(thin, SharingConfig(group=2), context)
    assert applied.achieved["groups"] == [names(0, 1)]
    assert_ships(applied.model, context)


def test_it_comes_before_what_gives_weights_rules_and_is_off_by_default() -> None:
    order = [stage.name for stage in STAGES]
    assert order.index("factorize") < order.index("share") < order.index("sparsify")
    assert "share" not in [stage.name for stage in Space.of(None, TARGET).stages]
    assert [s.name for s in Space.of({"share": {}}, TARGET).stages] == ["share"]


def test_impossible_choices_are_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        SharingConfig(group=1)
    with pytest.raises(ValidationError, match=r"at least 2 blocks, got \[1, 4\]"):
        SharingChoices.model_validate({"group": [1, 4]})


@pytest.mark.parametrize("rule", ["sparsify", "cluster", "round"])
def test_weights_of_shared_blocks_have_rules_wherever_they_are_used(
    rule: str, tmp_path: Path
) -> None:
    model, context = net(4)
    model.fc = nn.Identity()  # so that only the shared block has weights of some size
    shared = bound().apply(model, SharingConfig(group=4), context).model
    stage = Space.of({rule: {}}, TARGET).stages[0]
    applied = stage.apply(shared, stage.anchors()[0], context)
    assert not any("place" in reason for reason in applied.achieved["left_alone"].values())
    # One module, under four names.
    assert len(list(applied.model.get_submodule("encoder.layers").children())) == 1
    path = tmp_path / "model.onnx"
    export_onnx(baked(applied.model), context.example, context.input_names, path)
    packed, ways = pack(onnx.load(path))
    assert sum(ways.values()) >= 4
    plain = tmp_path / "plain.onnx"
    export_onnx(shared, context.example, context.input_names, plain)
    # Most of the 32,768 bytes of the block; the rest of the file are nodes.
    assert packed.ByteSize() < plain.stat().st_size - 18_000


def test_a_layer_that_is_itself_used_several_times_is_left_alone_by_rules() -> None:
    _, context = make("mlp")
    layer = nn.Linear(64, 64)
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(64, 64))
    stage = Space.of({"cluster": {}}, TARGET).stages[0]
    achieved = stage.apply(model, stage.anchors()[0], context).achieved
    assert achieved["left_alone"] == {"0": "it is also 2, and a rule would hold in one place only"}


def test_layers_that_lost_heads_are_not_shared() -> None:
    both: dict[str, dict[str, Any]] = {
        "heads": {"ratio": 0.5, "importance": "l2", "scope": "uniform"},
        "share": {"group": 2},
    }
    space = Space.of({"heads": {}, "share": {}}, TARGET)
    with pytest.raises(SpaceError, match="'share' cannot be on beside .*lost different heads"):
        space.candidate(both)
    assert all(len({"heads", "share"} & set(a.as_dict())) < 2 for a in space.anchors())
