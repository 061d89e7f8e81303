"""Jobs that benchmarks share: three kinds of networks on the MNIST digits of `examples/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn

import parefront as pf


class RowTransformer(nn.Module):
    """A transformer encoder that reads an image row by row; 106,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(28, 64)
        self.place = nn.Parameter(torch.zeros(28, 64))
        layer = nn.TransformerEncoderLayer(64, 4, 192, batch_first=True, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of images, `(n, 1, 28, 28)`."""
        rows = self.embed(images.squeeze(1)) + self.place
        logits: torch.Tensor = self.head(self.encoder(rows).mean(dim=1))
        return logits


def lenet() -> nn.Module:
    """LeNet-300-100, the fully connected network of Deep Compression (Han et al. 2016)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def cnn_job() -> pf.Task:
    """The convolutional network of the example."""
    # Imported by name, as the process of a launch does it again.
    from examples.mnist_cnn import task

    return task


def transformer_job() -> pf.Task:
    """A small transformer encoder."""
    return replace(
        cnn_job(), model=RowTransformer, pretrain=pf.Pretrain(epochs=25, learning_rate=2e-3)
    )


def lenet_job() -> pf.Task:
    """The fully connected LeNet."""
    return replace(cnn_job(), model=lenet, pretrain=pf.Pretrain(epochs=15, learning_rate=2e-3))


JOBS: Mapping[str, Callable[[], pf.Task]] = {
    "cnn": cnn_job,
    "transformer": transformer_job,
    "lenet": lenet_job,
}
