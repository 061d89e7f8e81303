"""Attentions written by hand in the ways in which models have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from parefront.spaces.stage import StageContext
from tests.zoo import Memory, make

WIDTH, HEADS = 32, 4


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """What all heads see, side by side, of `(batch, heads, length, channels)`."""
    seen: torch.Tensor = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1) @ v
    return seen.transpose(1, 2).flatten(2)


class Separate(nn.Module):
    """Four layers; forward uses the number of heads and the width, as DistilBERT did."""

    def __init__(self, heads: int = HEADS) -> None:
        super().__init__()
        self.n_heads, self.dim = heads, WIDTH
        self.q_lin, self.k_lin, self.v_lin = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out_lin = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        size = self.dim // self.n_heads
        q, k, v = (
            f(x).view(batch, length, self.n_heads, size).transpose(1, 2)
            for f in (self.q_lin, self.k_lin, self.v_lin)
        )
        return self.out_lin(attend(q, k, v).view(batch, length, self.n_heads * size))  # type: ignore[no-any-return]


class InputWidth(nn.Module):
    """`embed_dim` is the width of the input, which stays, and not that of the heads."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.embed_dim, self.head_dim = HEADS, WIDTH, WIDTH // HEADS
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.o = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(x.shape[0], -1, self.embed_dim)
        q, k, v = (
            f(x).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for f in (self.q, self.k, self.v)
        )
        return self.o(attend(q, k, v))  # type: ignore[no-any-return]


class SelfPart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_attention_heads, self.attention_head_size = HEADS, WIDTH // HEADS
        self.all_head_size = WIDTH
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (*x.shape[:-1], self.num_attention_heads, self.attention_head_size)
        q, k, v = (f(x).view(shape).transpose(1, 2) for f in (self.query, self.key, self.value))
        return attend(q, k, v).view(*x.shape[:-1], self.all_head_size)


class OutputPart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, seen: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.dense(seen) + x)  # type: ignore[no-any-return]


class Bert(nn.Module):
    """The output projection is in a module beside."""

    def __init__(self) -> None:
        super().__init__()
        self.self, self.output = SelfPart(), OutputPart()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.self(x), x)  # type: ignore[no-any-return]


class Fused(nn.Module):
    """One layer for queries, keys and values, as in timm; heads within each of these."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = HEADS, WIDTH // HEADS
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in parts)
        return self.proj(attend(q, k, v))  # type: ignore[no-any-return]


class Interleaved(Fused):
    """The same with queries, keys and values within each head, as in GPT-NeoX."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (-1, 3 * self.head_dim)).transpose(1, 2).chunk(3, -1)
        return self.proj(attend(q, k, v))  # type: ignore[no-any-return]


class KeysWithValues(nn.Module):
    """One layer for keys and values; only the width of a head is known."""

    def __init__(self) -> None:
        super().__init__()
        self.dim_head = WIDTH // HEADS
        self.to_q, self.to_kv = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.to_out = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = (self.to_q(x), *self.to_kv(x).chunk(2, dim=-1))
        q, k, v = (part.unflatten(-1, (-1, self.dim_head)).transpose(1, 2) for part in parts)
        return self.to_out(attend(q, k, v))  # type: ignore[no-any-return]


class Grouped(nn.Module):
    """Two heads of queries for each of four of keys and values, as in Llama."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.num_key_value_heads, self.head_dim = 2 * HEADS, HEADS, 4
        self.q_proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(WIDTH, WIDTH // 2, bias=False) for _ in range(2))
        self.o_proj = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q_proj(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = (
            f(x)
            .unflatten(-1, (self.num_key_value_heads, -1))
            .transpose(1, 2)
            .repeat_interleave(self.num_heads // self.num_key_value_heads, dim=1)
            for f in (self.k_proj, self.v_proj)
        )
        return self.o_proj(attend(q, k, v))  # type: ignore[no-any-return]


class HeadsLast(Separate):
    """Channels of a head are not side by side."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            f(x).unflatten(-1, (-1, self.n_heads)).permute(0, 3, 1, 2)
            for f in (self.q_lin, self.k_lin, self.v_lin)
        )
        seen = F.scaled_dot_product_attention(q, k, v).permute(0, 2, 3, 1).flatten(2)
        return self.out_lin(seen)  # type: ignore[no-any-return]


class Positional(InputWidth):
    """A learnt bias for each head, which keeps their number."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(HEADS, 5, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            f(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for f in (self.q, self.k, self.v)
        )
        seen = F.scaled_dot_product_attention(q, k, v, self.bias)
        return self.o(seen.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Net(nn.Module):
    """Two attentions on a residual stream, with feed-forward layers, to three logits."""

    def __init__(self, attention: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Linear(6, WIDTH)
        self.layers = nn.ModuleList(attention() for _ in range(2))
        self.up, self.down = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = x + layer(x)
        x = x + self.down(F.gelu(self.up(x)))
        return self.head(x.mean(dim=1))  # type: ignore[no-any-return]


HAND_WRITTEN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "separate": (Separate, "out_lin"),
    "input width": (InputWidth, "o"),
    "BERT": (Bert, "output.dense"),
    "fused": (Fused, "proj"),
    "interleaved": (Interleaved, "proj"),
    "keys with values": (KeysWithValues, "to_out.0"),
    "grouped": (Grouped, "o_proj"),
}
"""Attentions with four heads, or groups of heads, and the names of their output projections."""


def seeded(build: Callable[[], nn.Module]) -> Any:
    """A module that is the same every time, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


def data() -> StageContext:
    """A context with random data for a `Net`."""
    x = torch.randn(24, 5, 6, generator=torch.Generator().manual_seed(0))
    source = Memory((x,), torch.arange(24) % 3)
    return replace(make("mlp")[1], example=(x[:2],), train=source, calibration=source)


def net(kind: str) -> tuple[Net, StageContext]:
    """A `Net` of attentions written by hand, and its context."""
    return seeded(lambda: Net(HAND_WRITTEN[kind][0])), data()
