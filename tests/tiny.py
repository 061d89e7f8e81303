"""A task that trains in a fraction of a second: which quarter of an 8x8 image is bright."""

from __future__ import annotations

import torch
from torch import nn

import parefront as pf


def data(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    images = torch.randn(count, 1, 8, 8, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[0, row : row + 4, column : column + 4] += 1.0
    return images, labels


def model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 16, 4),
    )


def make(**changes: object) -> pf.Task:
    parts: dict[str, object] = {
        "model": model,
        "train": data(256, 0),
        "validation": data(128, 1),
        "test": data(128, 2),
        "pretrain": pf.Pretrain(epochs=3, learning_rate=3e-3),
    }
    return pf.Task(**(parts | changes))  # type: ignore[arg-type]


task = make()
