"""The stage `heads`: what it finds, what it removes and what it leaves alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from parefront.errors import StageError
from parefront.spaces.catalog import STAGES
from parefront.spaces.pruning.attention import Attention
from parefront.spaces.pruning.channels import ChannelPruning
from parefront.spaces.pruning.head_groups import find_heads, remove_heads
from parefront.spaces.pruning.heads import HeadPruning, HeadPruningChoices, HeadPruningConfig
from parefront.spaces.stage import StageContext, TargetTraits
from tests.exporting import assert_ships, export
from tests.spaces.attentions import (
    HAND_WRITTEN,
    HEADS,
    WIDTH,
    HeadsLast,
    Net,
    Positional,
    Separate,
    data,
    net,
    seeded,
)
from tests.spaces.odd_models import Heads
from tests.zoo import make

TARGET = TargetTraits(format="onnx", channel_multiple=8)


def config(ratio: float = 0.5, importance: str = "l2", scope: str = "uniform") -> HeadPruningConfig:
    return HeadPruningConfig.model_validate(
        {"ratio": ratio, "importance": importance, "scope": scope}
    )


def stage(**choices: Any) -> HeadPruning:
    return HeadPruning(HeadPruningChoices.model_validate(choices), TARGET)


def outputs(model: nn.Module, context: StageContext) -> torch.Tensor:
    with torch.no_grad():
        return model(*context.example)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ratio": 1.0}, "less than 1"),
        ({"importance": "l1"}, "'l2', 'taylor' or 'random'"),
        ({"scope": "layer"}, "'global' or 'uniform'"),
    ],
)
def test_an_impossible_config_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**fields)


def test_choices() -> None:
    with pytest.raises(ValidationError, match=r"shares of heads within \[0, 1\), got \[0.2, 1.0\]"):
        stage(ratio=[0.2, 1.0])
    assert "random" not in HeadPruningChoices().importance.options
    assert stage(ratio=[0.1, 0.3], importance="random").anchors() == [config(0.3, "random")]


def test_the_stage_is_before_the_channels() -> None:
    assert STAGES.index(HeadPruning) + 1 == STAGES.index(ChannelPruning)


@pytest.mark.parametrize("kind", HAND_WRITTEN)
def test_hand_written_heads_are_columns_at_zero(kind: str) -> None:
    model, context = net(kind)
    out = HAND_WRITTEN[kind][1]
    applied = stage().apply(model, config(0.5, "random"), context)
    assert applied.achieved["left_alone"] == {}
    assert list(applied.achieved["heads"].values()) == [[HEADS, HEADS // 2]] * 2
    silent = copy.deepcopy(model)
    for (_, gone), layer in zip(applied.achieved["removed"].items(), silent.layers, strict=True):
        weight = layer.get_parameter(f"{out}.weight")
        weight.data.view(WIDTH, HEADS, -1)[:, gone] = 0
    torch.testing.assert_close(outputs(applied.model, context), outputs(silent, context))
    assert not torch.allclose(outputs(model, context), outputs(silent, context), atol=1e-4)
    assert_ships(applied.model, context)
    sizes = [len(export(m, context).SerializeToString()) for m in (model, applied.model)]
    assert sizes[1] < 0.9 * sizes[0]


class Cross(nn.Module):
    """A decoder over a memory, with a causal mask and padding."""

    def __init__(self, *, batch_first: bool, norm_first: bool = False) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.embed = nn.Linear(6, WIDTH)
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(
                WIDTH, HEADS, 48, batch_first=batch_first, norm_first=norm_first
            ),
            2,
        )
        self.head = nn.Linear(WIDTH, 3)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padding = torch.zeros(x.shape[:2]).masked_fill(x[..., 0] > 1.5, -torch.inf)
        x = self.embed(x)
        x = x if self.batch_first else x.transpose(0, 1)
        y = self.decoder(
            x, x.flip(0), self.mask, tgt_is_causal=True, memory_key_padding_mask=padding
        )
        return self.head(y if self.batch_first else y.transpose(0, 1)).mean(dim=1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("batch_first", [True, False])
def test_decoders_lose_heads_of_both_attentions(batch_first: bool) -> None:
    model = seeded(lambda: Cross(batch_first=batch_first))
    applied = stage().apply(model, config(0.5, "random"), data())
    assert set(applied.achieved["heads"]) == {
        f"decoder.layers.{at}.{part}" for at in range(2) for part in ("self_attn", "multihead_attn")
    }
    silent = copy.deepcopy(model)
    for name, gone in applied.achieved["removed"].items():
        weight = silent.get_parameter(f"{name}.out_proj.weight")
        weight.data.view(WIDTH, HEADS, -1)[:, gone] = 0
    torch.testing.assert_close(outputs(applied.model, data()), outputs(silent, data()))


class WithWeights(nn.Module):
    """Self-attention that is called without options, and so computes its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x)[0]  # type: ignore[no-any-return]


def test_attentions_that_compute_weights_ship() -> None:
    model = seeded(lambda: Net(WithWeights))
    applied = stage().apply(model, config(0.75), data())
    assert list(applied.achieved["heads"].values()) == [[HEADS, 1]] * 2
    assert_ships(applied.model, data())


class Padded(nn.Module):
    """An encoder that takes torch's fused path, with nested tensors for padded sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 48, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = (torch.arange(5) > 2).expand(len(x), 5)
        return self.encoder(self.embed(x), src_key_padding_mask=hidden)[:, 0]  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")
def test_the_fused_path_is_left_for_good() -> None:
    model = seeded(Padded)
    before = outputs(model, data())
    applied = stage().apply(model, config(0.25), data())
    assert not applied.model.get_submodule("encoder").use_nested_tensor
    assert model.encoder.use_nested_tensor
    silent = copy.deepcopy(model)
    for name, gone in applied.achieved["removed"].items():
        weight = silent.get_parameter(f"{name}.out_proj.weight")
        weight.data.view(WIDTH, HEADS, -1)[:, gone] = 0
    torch.testing.assert_close(outputs(applied.model, data()), outputs(silent, data()))
    assert torch.equal(outputs(model, data()), before)
    kept = stage().apply(model, config(0.0), data())
    assert "nothing_removed" in kept.achieved
    assert str(kept.model) == str(model)
    assert kept.model.get_submodule("encoder").use_nested_tensor


def test_attentions_that_keep_all_heads_stay_what_they_were() -> None:
    model, context = make("transformer")
    _, groups, _ = find_heads(model, context.example, context.tick)
    pruned = remove_heads(model, groups, {"encoder.layers.1.self_attn": [0]})
    kinds = [type(pruned.get_submodule(f"encoder.layers.{at}.self_attn")) for at in range(2)]
    assert kinds == [nn.MultiheadAttention, Attention]


class Tied(Separate):
    def __init__(self) -> None:
        super().__init__()
        self.k_lin.weight = self.q_lin.weight


class Silent(Separate):
    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.out_lin.weight)


class Extra(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, add_zero_attn=True, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("attention", "name", "reason"),
    [
        (HeadsLast, "layers.0", "without one of its heads the outputs are not those of the model"),
        (Positional, "layers.0", "without one of its heads the model does not run: RuntimeError"),
        (Tied, "layers.0", "the weight of layers.0.q_lin is shared with layers.0.k_lin"),
        (lambda: Separate(heads=1), "layers.0", "it has one head"),
        (Silent, "layers.0", "no output depends on one of its heads"),
        (Extra, "layers.0.attention", "it has keys and values of its own"),
    ],
)
def test_what_is_left_alone_is_said(attention: Any, name: str, reason: str) -> None:
    model = seeded(lambda: Net(attention))
    _, groups, left = find_heads(model, data().example, lambda: None)
    assert groups == []
    assert left[name].startswith(reason)
    said = stage().nothing_to_do(model, data())
    assert said is not None
    assert said.startswith(f"no head can be removed, such as in {name}: {reason}")
    with pytest.raises(StageError, match="no head can be removed, such as in"):
        stage().apply(model, config(), data())


def test_an_attention_that_does_not_say_its_heads_is_said() -> None:
    model = seeded(Heads)
    reason = "it has no attribute that says how many heads it has"
    said = stage().nothing_to_do(model, data())
    assert said == f"no head can be removed, such as in the model: {reason}"


@pytest.mark.parametrize("kind", ["cnn", "mlp", "lstm", "two_inputs"])
def test_models_without_attention_have_nothing_to_do(kind: str) -> None:
    model, context = make(kind)
    assert stage().nothing_to_do(model, context) == "the model has no attention with several heads"
