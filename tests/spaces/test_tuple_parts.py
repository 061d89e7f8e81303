"""Blocks that give their output in a tuple, as those of some libraries do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.exporting import assert_ships
from tests.spaces.skippable import STAGE, config, context_for, names, random, seeded


class Telling(nn.Module):
    """A block that gives its output in a tuple, with what it may be asked for besides."""

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)
        self.fields: int = fields

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[Any, ...]:
        return (x + self.layer(x), *[None] * (self.fields - 1))


class Told(nn.Module):
    def __init__(self, fields: int) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(8, 16), nn.Linear(16, 3)
        self.fields = fields
        self.blocks = nn.ModuleList(Telling(fields) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for each in self.blocks:
            x, *rest = each(x, mask=None)
            assert rest == [None] * (self.fields - 1)
        return self.head(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("importance", ["loss", "similarity"])
@pytest.mark.parametrize("fields", [1, 2])
def test_blocks_that_give_tuples_can_be_skipped(fields: int, importance: str) -> None:
    context = context_for(random(16, 8))
    model = seeded(Told, fields)
    with torch.no_grad():
        model.get_parameter("blocks.1.layer.weight").zero_()
        model.get_parameter("blocks.1.layer.bias").zero_()
    applied = STAGE.apply(model, config(0.3, importance), context)
    assert names(model, context) == ["blocks.0", "blocks.1", "blocks.2"]
    if importance == "similarity":  # a block that changes nothing goes first
        assert applied.achieved["removed"] == ["blocks.1"]
        torch.testing.assert_close(applied.model(*context.example), model(*context.example))
    assert_ships(applied.model, context)
