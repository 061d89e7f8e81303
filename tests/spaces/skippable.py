"""Networks whose parts can be skipped, for tests of depth pruning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from parefront.spaces.pruning.depth import (
    DepthPruning,
    DepthPruningChoices,
    DepthPruningConfig,
)
from parefront.spaces.pruning.parts import dense, find_parts
from parefront.spaces.stage import StageContext, TargetTraits
from tests.zoo import Memory, make

TARGET = TargetTraits(format="onnx", channel_multiple=8)
STAGE = DepthPruning(DepthPruningChoices(), TARGET)


def config(share: float = 0.5, importance: str = "loss") -> DepthPruningConfig:
    return DepthPruningConfig.model_validate({"share": share, "importance": importance})


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def context_for(*inputs: torch.Tensor, classes: int = 3) -> StageContext:
    """A context with these examples, and random targets of some classes."""
    targets = torch.randint(
        0, classes, (len(inputs[0]),), generator=torch.Generator().manual_seed(1)
    )
    source = Memory(inputs, targets)
    return replace(
        make("mlp")[1], example=tuple(x[:2] for x in inputs), train=source, calibration=source
    )


def seeded(build: type[nn.Module], *args: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(*args).eval()


def block(width: int = 16) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU())


class Hidden(nn.Module):
    """Blocks of Linear and ReLU between equal widths."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 16)
        self.blocks = nn.Sequential(*(block() for _ in range(depth)))
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(F.relu(self.stem(x))))  # type: ignore[no-any-return]


def hidden(depth: int = 4, identity: int | None = None) -> tuple[Hidden, StageContext]:
    """The model, with one block that changes nothing, as its inputs are not below 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Hidden(depth).eval()
    if identity is not None:
        with torch.no_grad():
            model.get_parameter(f"blocks.{identity}.0.weight").copy_(torch.eye(16))
            model.get_parameter(f"blocks.{identity}.0.bias").zero_()
    return model, context_for(random(150, 8))


def names(model: nn.Module, context: StageContext) -> list[str]:
    return [part.name for part in find_parts(dense(model), context.example, context.tick)[0]]
