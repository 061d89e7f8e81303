"""Hugging Face encoders with random weights, as tasks on data that a model can learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

import parefront as pf

TOKENS, LENGTH, WIDTH, CLASSES = 60, 10, 64, 3
LARGE = 0.2
"""Spread of the first weights, for attention that does something before it is trained."""


@torch.no_grad()
def _moved(model: nn.Module) -> nn.Module:
    """The model with biases and scales that differ: files hold those that are equal once."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def bert() -> nn.Module:
    config = BertConfig(
        vocab_size=TOKENS,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=16,
        num_labels=CLASSES,
        initializer_range=LARGE,
    )
    return _moved(BertForSequenceClassification(config))


def distilbert() -> nn.Module:
    config = DistilBertConfig(
        vocab_size=TOKENS,
        dim=WIDTH,
        n_layers=2,
        n_heads=4,
        hidden_dim=2 * WIDTH,
        max_position_embeddings=16,
        num_labels=CLASSES,
        initializer_range=LARGE,
    )
    return _moved(DistilBertForSequenceClassification(config))


def vit() -> nn.Module:
    config = ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        image_size=8,
        patch_size=4,
        num_channels=1,
        num_labels=CLASSES,
        initializer_range=LARGE,
    )
    return _moved(ViTForImageClassification(config))


def padded(count: int, seed: int, length: int = LENGTH) -> tuple[Any, torch.Tensor]:
    """Sequences of 3 to `length` tokens, padded; the class is the first token's."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, TOKENS, (count, length), generator=generator)
    lengths = torch.randint(3, length + 1, (count,), generator=generator)
    mask = (torch.arange(length) < lengths[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}, ids[:, 0] % CLASSES


def images(count: int, seed: int) -> tuple[Any, torch.Tensor]:
    """Images whose brightness is their class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    noise = torch.randn(count, 1, 8, 8, generator=generator)
    return {"pixel_values": noise + labels[:, None, None, None]}, labels


ENCODERS: dict[str, tuple[Callable[[], nn.Module], Callable[[int, int], Any]]] = {
    "bert": (bert, padded),
    "distilbert": (distilbert, padded),
    "vit": (vit, images),
}


def task(kind: str, **changes: Any) -> pf.Task:
    model, data = ENCODERS[kind]
    parts: dict[str, Any] = {
        "model": model,
        "train": data(64, 0),
        "validation": data(32, 1),
        "test": data(32, 2),
        "output": "logits",
    }
    return pf.Task(**(parts | changes))
