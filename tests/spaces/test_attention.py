"""The attention that stands for `nn.MultiheadAttention`, against that layer."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from parefront.spaces.pruning.attention import Attention
from parefront.spaces.pruning.head_groups import find_heads, remove_heads

BATCH, QUERIES, KEYS, WIDTH, HEADS = 3, 5, 7, 24, 4


def made(**options: Any) -> nn.MultiheadAttention:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.MultiheadAttention(WIDTH, HEADS, **options).eval()
        for parameter in layer.parameters():  # its biases are zero by default
            nn.init.normal_(parameter, std=0.3)
    return layer


def inputs(kdim: int, vdim: int, *, batch_first: bool, batched: bool) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(QUERIES, WIDTH), (KEYS, kdim), (KEYS, vdim)]
    found = [torch.randn(BATCH, *shape, generator=generator) for shape in shapes]
    if not batched:
        return [each[0] for each in found]
    return found if batch_first else [each.transpose(0, 1) for each in found]


def masks(kind: str, padding: str, *, batched: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    given: dict[str, torch.Tensor] = {}
    rows = HEADS * (BATCH if batched else 1)
    shape = (QUERIES, KEYS) if kind.endswith("2d") else (rows, QUERIES, KEYS)
    if kind.startswith("bool"):
        given["attn_mask"] = torch.rand(shape, generator=generator) < 0.4
        given["attn_mask"][..., 0] = False  # a query that sees nothing gives nan
    elif kind.startswith("float"):
        given["attn_mask"] = torch.randn(shape, generator=generator)
    if padding != "none":
        hidden = torch.rand((BATCH, KEYS) if batched else (KEYS,), generator=generator) < 0.4
        hidden[..., 0] = False
        added = torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)
        given["key_padding_mask"] = hidden if padding == "bool" else added
    return given


calls = given(
    bias=st.booleans(),
    batch_first=st.booleans(),
    widths=st.sampled_from([(WIDTH, WIDTH), (10, 14)]),
    kind=st.sampled_from(["none", "bool 2d", "float 2d", "bool 3d", "float 3d"]),
    padding=st.sampled_from(["none", "bool", "float"]),
    batched=st.booleans(),
    need_weights=st.booleans(),
    average=st.booleans(),
)


def both(
    first: nn.Module, second: nn.Module, arguments: list[torch.Tensor], options: dict[str, Any]
) -> list[Any]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Support for mismatched")  # of two kinds of masks
        return [layer(*arguments, **options) for layer in (first, second)]


@calls
@settings(max_examples=60, deadline=None)
def test_it_gives_what_the_layer_gives(
    bias: bool,
    batch_first: bool,
    widths: tuple[int, int],
    kind: str,
    padding: str,
    batched: bool,
    need_weights: bool,
    average: bool,
) -> None:
    kdim, vdim = widths
    layer = made(bias=bias, batch_first=batch_first, kdim=kdim, vdim=vdim)
    options = {"need_weights": need_weights, "average_attn_weights": average}
    (expected, weights), (output, ours) = both(
        layer,
        Attention.of(layer),
        inputs(kdim, vdim, batch_first=batch_first, batched=batched),
        options | masks(kind, padding, batched=batched),
    )
    torch.testing.assert_close(output, expected)
    if need_weights:
        torch.testing.assert_close(ours, weights)
    else:
        assert ours is weights is None


class Model(nn.Module):
    """A layer in a model, called with fixed masks."""

    def __init__(self, layer: nn.Module, options: dict[str, Any]) -> None:
        super().__init__()
        self.attention, self.options = layer, options

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        return self.attention(*given, **self.options)[0]  # type: ignore[no-any-return]


@calls
@settings(max_examples=30, deadline=None)
def test_heads_that_are_gone_are_columns_at_zero(
    bias: bool,
    batch_first: bool,
    widths: tuple[int, int],
    kind: str,
    padding: str,
    batched: bool,
    need_weights: bool,
    average: bool,
) -> None:
    kdim, vdim = widths
    layer = made(bias=bias, batch_first=batch_first, kdim=kdim, vdim=vdim)
    options = {"need_weights": need_weights, "average_attn_weights": average}
    model = Model(layer, options | masks(kind, padding, batched=batched)).eval()
    example = tuple(inputs(kdim, vdim, batch_first=batch_first, batched=batched))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Support for mismatched")
        _, groups, left = find_heads(model, example, lambda: None)
        assert left == {}
        # In two steps: masks for each head are of all that there were at first.
        pruned = remove_heads(model, groups, {"attention": [2]})
        _, groups, _ = find_heads(pruned, example, lambda: None)
        pruned = remove_heads(pruned, groups, {"attention": [0]})
    size = WIDTH // HEADS
    with torch.no_grad():
        columns = layer.out_proj.weight.view(WIDTH, HEADS, size)
        columns[:, [0, 2]] = 0
    expected, output = both(model, pruned, list(example), {})
    torch.testing.assert_close(output, expected)
    attention = pruned.get_submodule("attention")
    shapes = {n: tuple(p.shape) for n, p in attention.named_parameters() if "weight" in n}
    assert shapes == {
        "q_proj.weight": (2 * size, WIDTH),
        "k_proj.weight": (2 * size, kdim),
        "v_proj.weight": (2 * size, vdim),
        "out_proj.weight": (WIDTH, 2 * size),
    }
    assert all(m.weight.shape == (m.out_features, m.in_features) for m in linears(attention))


def linears(module: nn.Module) -> list[nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def test_mode_frozen_weights_and_dropout_stay() -> None:
    layer = made(dropout=0.5).train()
    layer.in_proj_weight.requires_grad_(False)
    attention = Attention.of(layer)
    assert all(module.training for module in attention.modules())
    frozen = {n for n, p in attention.named_parameters() if not p.requires_grad}
    assert frozen == {"q_proj.weight", "k_proj.weight", "v_proj.weight"}
    x = torch.randn(QUERIES, BATCH, WIDTH)
    for need_weights in (True, False):
        drawn = [attention(x, x, x, need_weights=need_weights)[0] for _ in range(2)]
        assert not torch.equal(*drawn)


def test_a_causal_hint_needs_a_mask() -> None:
    attention = Attention.of(made())
    x = torch.randn(QUERIES, BATCH, WIDTH)
    with pytest.raises(RuntimeError, match="expected an attn_mask beside is_causal, got none"):
        attention(x, x, x, is_causal=True)
    mask = nn.Transformer.generate_square_subsequent_mask(QUERIES)
    options = {"attn_mask": mask, "is_causal": True, "need_weights": False}
    (expected, _), (output, _) = both(made(), attention, [x, x, x], options)
    torch.testing.assert_close(output, expected)
