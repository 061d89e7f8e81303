"""Embeddings in two against closed forms, and in a whole model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from parefront.spaces.lowrank.config import FactorizationChoices, FactorizationConfig
from parefront.spaces.lowrank.embedding import factorize_embedding
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.stage import StageContext, TargetTraits
from tests.exporting import assert_ships, export
from tests.zoo import Memory, make

TARGET = TargetTraits(format="onnx", channel_multiple=8)
CONFIG = FactorizationConfig(ratio=0.2, layers="all", multiple=8, embeddings=True)


def bound(**choices: Any) -> Factorization:
    return Factorization(FactorizationChoices.model_validate(choices), TARGET)


def test_it_loses_what_eckart_and_young_say() -> None:
    layer = nn.Embedding(40, 12)
    everything = torch.arange(40)
    for rank in (1, 5, 12):
        with torch.no_grad():
            lost = (factorize_embedding(layer, rank)(everything) - layer.weight).square().sum()
        tail = torch.linalg.svdvals(layer.weight.detach())[rank:].square().sum()
        torch.testing.assert_close(lost, tail, rtol=1e-4, atol=1e-5)


def test_it_takes_over_mode_type_and_padding() -> None:
    layer = nn.Embedding(40, 12, padding_idx=3, dtype=torch.double).eval()
    layer.requires_grad_(False)
    parts = factorize_embedding(layer, 4)
    assert not any(module.training for module in parts.modules())
    assert not any(p.requires_grad or p.dtype != torch.double for p in parts.parameters())
    assert not parts(torch.tensor([3])).any()
    assert isinstance(parts[0], nn.Embedding)
    assert parts[0].padding_idx == 3


class Reader(nn.Module):
    """A large embedding before a small layer."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(2000, 64, **options)
        self.out = nn.Linear(64, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.embed(tokens).mean(dim=1))  # type: ignore[no-any-return]


def reader(**options: Any) -> tuple[nn.Module, StageContext]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Reader(**options).eval()
        tokens = torch.randint(0, 2000, (16, 12))
    source = Memory((tokens,), torch.zeros(16, dtype=torch.long))
    return model, replace(make("embedding")[1], example=(tokens[:2],), calibration=source)


def test_a_model_with_a_large_embedding_is_really_smaller() -> None:
    model, context = reader()
    applied = bound().apply(model, CONFIG, context)
    assert applied.achieved["ranks"] == {"embed": [64, 8]}
    assert applied.achieved["others"] == {}
    assert_ships(applied.model, context)
    before, after = (export(each, context).ByteSize() for each in (model, applied.model))
    assert after < 0.15 * before


def test_it_is_off_unless_asked_for() -> None:
    model, context = make("embedding")
    config = CONFIG.model_copy(update={"embeddings": False})
    achieved = bound().apply(model, config, context).achieved
    assert "embed" not in achieved["ranks"]
    assert achieved["others"] == {"embed": "the weights of Embedding are not factorised"}
    assert not any(config.embeddings for config in bound().anchors())
    assert all(c.embeddings for c in bound(embeddings=[False, True]).anchors())


@pytest.mark.parametrize("option", ["max_norm", "scale_grad_by_freq", "sparse"])
def test_what_a_table_does_besides_is_left_with_its_reason(option: str) -> None:
    model, context = reader(**{option: True})
    left = bound().apply(model, CONFIG, context).achieved["left"]
    assert left["embed"] == f"an embedding with {option} is not factorised"


class Tied(Reader):
    """Reads the table in two places."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.embed(tokens).mean(dim=1) @ self.embed.weight.T  # type: ignore[no-any-return]


def test_a_table_that_is_read_elsewhere_is_left() -> None:
    _, context = reader()
    achieved = bound().apply(Tied().eval(), CONFIG, context).achieved
    assert achieved["ranks"] == {}
    assert achieved["left"]["embed"].startswith("the model needs its dense weight: Attribute")


def test_a_model_of_nothing_but_a_table_has_something_to_do() -> None:
    _, context = reader()
    model = nn.Sequential(nn.Embedding(200, 64))
    assert bound().nothing_to_do(model, context) == "the model has no Conv or Linear layer"
    assert bound(embeddings=True).nothing_to_do(model, context) is None
