"""The stage `factorize`: choices, what is replaced and what is left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from parefront.errors import StageError
from parefront.spaces.lowrank.config import FactorizationChoices, FactorizationConfig
from parefront.spaces.lowrank.layers import matrix_shape
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.pruning.channels import ChannelPruning, ChannelPruningChoices
from parefront.spaces.stage import Stage, StageContext, TargetTraits
from tests.exporting import assert_ships, export
from tests.zoo import MODELS, make

TARGET = TargetTraits(format="onnx", channel_multiple=8)


def config(ratio: float = 0.5, layers: str = "all", multiple: int = 8) -> FactorizationConfig:
    return FactorizationConfig.model_validate(
        {"ratio": ratio, "layers": layers, "multiple": multiple}
    )


def stage(**choices: Any) -> Factorization:
    return Factorization(FactorizationChoices.model_validate(choices), TARGET)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def context_for(*example: torch.Tensor) -> StageContext:
    return replace(make("mlp")[1], example=example)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ratio": 0.0}, "greater than 0"),
        ({"ratio": 1.1}, "less than or equal to 1"),
        ({"layers": "embedding"}, "'linear', 'conv' or 'all'"),
        ({"multiple": 0}, "greater than or equal to 1"),
    ],
)
def test_an_impossible_config_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**fields)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"ratio": [0.0, 0.5]}, r"within \(0, 1\], got \[0.0, 0.5\]"),
        ({"ratio": [0.5, 1.5]}, r"within \(0, 1\], got \[0.5, 1.5\]"),
        ({"layers": ["all", "rnn"]}, "'linear', 'conv' or 'all'"),
        ({"multiple": 0}, "greater than or equal to 1"),
    ],
)
def test_impossible_choices_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FactorizationChoices.model_validate(choices)


def test_the_anchors_fit_the_ranges() -> None:
    assert stage().anchors() == [config(0.5), config(0.2)]
    assert stage(ratio=[0.1, 0.3], layers=["conv", "linear"], multiple=[2, 4]).anchors() == [
        config(0.3, "linear", 2),
        config(0.1, "linear", 2),
    ]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("ratio", "multiple"), [(0.3, 8), (1.0, 1)])
def test_what_is_recorded_is_what_is_there(kind: str, ratio: float, multiple: int) -> None:
    model, context = make(kind)
    applied = stage().apply(model, config(ratio, multiple=multiple), context)
    achieved, result = applied.achieved, applied.model
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d
    dense = {n for n, m in model.named_modules() if isinstance(m, kinds)}
    assert achieved["ranks"].keys() | achieved["left"].keys() == dense
    assert achieved["ranks"].keys().isdisjoint(achieved["left"])
    saved = 0
    for name, (full, rank) in achieved["ranks"].items():
        original, parts = model.get_submodule(name), result.get_submodule(name)
        assert isinstance(original, nn.Linear | nn.Conv2d)
        assert isinstance(parts, nn.Sequential)
        rows, columns = matrix_shape(original)
        assert full == min(rows, columns)
        assert parts.get_parameter("0.weight").shape[0] == rank
        assert parts.get_parameter("1.weight").shape[1] == rank
        assert rank * (rows + columns) < rows * columns
        saved += rows * columns - rank * (rows + columns)
    assert (saved > 0) == (kind != "conv1d" or multiple == 1)
    assert achieved["parameters_before"] == sum(p.numel() for p in model.parameters())
    assert achieved["parameters_after"] == sum(p.numel() for p in result.parameters())
    assert achieved["parameters_before"] - achieved["parameters_after"] == saved
    for name in achieved["left"]:
        assert str(result.get_submodule(name)) == str(model.get_submodule(name))


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_model_ships_at_the_smallest_rank(kind: str) -> None:
    model, context = make(kind)
    applied = stage().apply(model, config(0.001, multiple=1), context)
    assert {rank for _, rank in applied.achieved["ranks"].values()} == {1}
    assert_ships(applied.model, context)


@pytest.mark.parametrize(("layers", "kept"), [("linear", nn.Conv2d), ("conv", nn.Linear)])
def test_only_the_kinds_asked_for_are_replaced(layers: str, kept: type[nn.Module]) -> None:
    model, context = make("cnn")
    achieved = stage().apply(model, config(0.5, layers), context).achieved
    assert achieved["ranks"]
    assert not any(isinstance(model.get_submodule(name), kept) for name in achieved["ranks"])
    assert f"a {kept.__name__} was not asked for" in achieved["left"].values()


class Wrapped(nn.Module):
    """Passes a padding mask to an encoder, so that torch wants nested tensors for it."""

    def __init__(self, *, nested: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 128, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padding = torch.zeros(x.shape[:2], dtype=torch.bool)
        padding[1:, 4:] = True
        return self.encoder(x, src_key_padding_mask=padding)[:, :4]  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_transformer_layers_run_without_the_fused_kernel(nested: bool, grad: bool) -> None:
    torch.manual_seed(0)
    model = Wrapped(nested=nested).eval()
    x = random(2, 6, 32)
    applied = stage().apply(model, config(1.0, multiple=1), context_for(x))
    assert len(applied.achieved["ranks"]) == 4
    assert applied.achieved["left"] == dict.fromkeys(
        [f"encoder.layers.{i}.self_attn.out_proj" for i in (0, 1)],
        "MultiheadAttention reads its weight directly",
    )
    # Where the factors are put back together, the model is a plain one again: a second
    # implementation that does take the fused kernel.
    plain = Wrapped(nested=nested).eval()
    state = dict(applied.model.state_dict())
    for name in applied.achieved["ranks"]:
        left, right = state.pop(f"{name}.1.weight"), state.pop(f"{name}.0.weight")
        state[f"{name}.weight"], state[f"{name}.bias"] = left @ right, state.pop(f"{name}.1.bias")
    plain.load_state_dict(state)
    with torch.no_grad():
        expected = plain(x)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(applied.model(x).detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("prune_first", [True, False])
def test_it_composes_with_pruning(kind: str, prune_first: bool) -> None:
    model, context = make(kind)
    prune = ChannelPruning(ChannelPruningChoices(), TARGET)
    stages: list[Stage[Any, nn.Module]] = [prune, stage(multiple=1)]
    sizes = [sum(p.numel() for p in model.parameters())]
    for each in stages if prune_first else reversed(stages):
        model = each.apply(model, each.anchors()[0], context).model
        sizes.append(sum(p.numel() for p in model.parameters()))
    assert sizes[0] > sizes[1] > sizes[2]
    assert_ships(model, context)


def test_low_rank_reaches_the_exported_file() -> None:
    model, context = make("resnet")
    applied = stage().apply(model, config(0.2), context)
    bytes_of = [export(m, context).ByteSize() for m in (model, applied.model)]
    saved = 4 * (applied.achieved["parameters_before"] - applied.achieved["parameters_after"])
    assert bytes_of[0] - bytes_of[1] > 0.9 * saved


class Odd(nn.Module):
    """Layers that must stay as they are, and two that need not."""

    def __init__(self) -> None:
        super().__init__()
        self.free = nn.Linear(32, 32)
        self.read = nn.Linear(32, 32)
        self.twice = self.again = nn.Linear(32, 32)
        self.tied, self.other = nn.Linear(32, 32, bias=False), nn.Linear(32, 32)
        self.other.weight = self.tied.weight
        self.hooked = nn.Linear(32, 32)
        self.hooked.register_forward_hook(lambda *call: call[2] * 2)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(32, 32))
        self.thin = nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.free(x) @ self.read.weight
        for layer in (self.twice, self.again, self.tied, self.other, self.hooked, self.normed):
            x = layer(x)
        return self.thin(x)  # type: ignore[no-any-return]


def test_what_must_stay_is_left_with_its_reason() -> None:
    applied = stage().apply(Odd(), config(), context_for(random(2, 32)))
    assert applied.achieved["ranks"] == {"free": [32, 8]}
    assert applied.achieved["left"] == {
        "read": "the model needs its dense weight: AttributeError: "
        "'Sequential' object has no attribute 'weight'",
        "twice": "its weight is shared with again",
        "tied": "its weight is shared with other",
        "other": "its weight is shared with tied",
        "hooked": "it has hooks",
        "normed": "a ParametrizedLinear is not factorised",
        "thin": "no rank that is a multiple of 8 saves parameters",
    }


def test_a_weight_that_is_not_finite_fails_by_name() -> None:
    model, context = make("mlp")
    with torch.no_grad():
        model.get_parameter("layers.2.weight")[0, 0] = torch.nan
    with pytest.raises(StageError, match=r"cannot factorise layers\.2: its weight is not finite"):
        stage().apply(model, config(), context)


def test_a_model_that_does_not_run_fails() -> None:
    model, context = make("mlp")
    with pytest.raises(StageError, match="the model does not run: RuntimeError: mat1 and mat2"):
        stage().apply(model, config(), replace(context, example=(random(2, 3),)))


@pytest.mark.parametrize(
    ("model", "choices", "reason"),
    [
        (nn.Embedding(9, 4), {}, "the model has no Conv or Linear layer"),
        (
            nn.Sequential(nn.Linear(8, 8)),
            {},
            "no layer can be factorised, such as 0: "
            "no rank that is a multiple of 8 saves parameters",
        ),
        (nn.Sequential(nn.Linear(8, 8)), {"multiple": 1}, None),
        (
            nn.Sequential(nn.Linear(64, 64)),
            {"layers": "conv"},
            "no layer can be factorised, such as 0: a Linear was not asked for",
        ),
        (
            nn.Sequential(nn.Conv1d(64, 64, 3)),
            {},
            "no layer can be factorised, such as 0: a Conv1d is not factorised",
        ),
    ],
)
def test_nothing_to_do_says_why(
    model: nn.Module, choices: dict[str, Any], reason: str | None
) -> None:
    assert stage(**choices).nothing_to_do(model, make("mlp")[1]) == reason
