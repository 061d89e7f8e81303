"""Small untrained models of several kinds that every stage is tried on, with matching data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

from parefront.spaces.stage import Inputs, StageContext


class PlainCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32 * 4, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))  # type: ignore[no-any-return]


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(y)))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(Residual(32), Residual(32))
        self.fc = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.blocks(F.relu(self.stem(x)))
        return self.fc(y.mean(dim=(2, 3)))  # type: ignore[no-any-return]


class DepthwiseCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()

        def separable(inp: int, out: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inp, inp, 3, stride, 1, groups=inp, bias=False),
                nn.BatchNorm2d(inp),
                nn.ReLU6(),
                nn.Conv2d(inp, out, 1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU6(),
            )

        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), separable(16, 32, 1), separable(32, 64, 2)
        )
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layers(x).mean(dim=(2, 3)))  # type: ignore[no-any-return]


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Token ids to class logits through `nn.TransformerEncoder`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.fc = nn.Linear(64, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.fc(self.encoder(self.embed(tokens)).mean(dim=1))  # type: ignore[no-any-return]


class LSTM(nn.Module):
    """Sequences to class logits through the last state of `nn.LSTM`."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True)
        self.fc = nn.Linear(16, 32)
        self.out = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(x)
        return self.out(F.relu(self.fc(states[:, -1])))  # type: ignore[no-any-return]


class GRU(nn.Module):
    """Sequences to class logits through both directions of two layers of `nn.GRU`."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 16, num_layers=2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(32, 32)
        self.out = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(x)
        return self.out(F.relu(self.fc(states.mean(dim=1))))  # type: ignore[no-any-return]


class Conv1dNet(nn.Module):
    """Sequences, channels first, to class logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(8, 16, 5, padding=2),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(16, 32, 3, padding=1),
            nn.BatchNorm1d(32),
            nn.ReLU(),
        )
        self.fc = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x).mean(dim=2))  # type: ignore[no-any-return]


class Embedded(nn.Module):
    """Token ids to class logits through the mean of their embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, 32)
        self.hidden = nn.Linear(32, 64)
        self.out = nn.Linear(64, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mean = self.embed(tokens).mean(dim=1)
        return self.out(F.relu(self.hidden(mean)))  # type: ignore[no-any-return]


class TwoInputs(nn.Module):
    """An image and a vector of the same example to class logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 32, 3, stride=2, padding=1)
        self.vector = nn.Linear(64, 32)
        self.hidden = nn.Linear(64, 32)
        self.out = nn.Linear(32, 10)

    def forward(self, image: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        seen = F.relu(self.conv(image)).mean(dim=(2, 3))
        joined = torch.cat([seen, F.relu(self.vector(vector))], dim=1)
        return self.out(F.relu(self.hidden(joined)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Memory:
    """A batch source over tensors."""

    inputs: Inputs
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def batches(
        self, batch_size: int, *, seed: int | None = None
    ) -> Iterator[tuple[Inputs, torch.Tensor]]:
        order = torch.arange(len(self))
        if seed is not None:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        for index in torch.split(order, batch_size):
            yield tuple(x[index] for x in self.inputs), self.targets[index]


def _images(count: int) -> Inputs:
    return (torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(0)),)


def _vectors(count: int) -> Inputs:
    return (torch.randn(count, 64, generator=torch.Generator().manual_seed(0)),)


def _tokens(count: int) -> Inputs:
    return (torch.randint(0, 100, (count, 24), generator=torch.Generator().manual_seed(0)),)


def _few_tokens(count: int) -> Inputs:
    return (torch.randint(0, 64, (count, 12), generator=torch.Generator().manual_seed(0)),)


def _steps(count: int) -> Inputs:
    return (torch.randn(count, 6, 8, generator=torch.Generator().manual_seed(0)),)


def _signals(count: int) -> Inputs:
    return (torch.randn(count, 8, 24, generator=torch.Generator().manual_seed(0)),)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Inputs]]] = {
    "cnn": (PlainCNN, _images),
    "resnet": (ResNet, _images),
    "depthwise": (DepthwiseCNN, _images),
    "mlp": (MLP, _vectors),
    "transformer": (Transformer, _tokens),
    "lstm": (LSTM, _steps),
    "gru": (GRU, _steps),
    "conv1d": (Conv1dNet, _signals),
    "embedding": (Embedded, _few_tokens),
    "two_inputs": (TwoInputs, lambda count: (*_images(count), *_vectors(count))),
}


def make(kind: str, *, examples: int = 64, seed: int = 0) -> tuple[nn.Module, StageContext]:
    """An untrained model of a kind in evaluation mode, and a context with random data for it."""
    build, data = MODELS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build().eval()
    inputs = data(examples)
    with torch.no_grad():
        targets = module(*inputs).argmax(dim=1)  # learnable by construction
    source = Memory(inputs, targets)
    context = StageContext(
        example=tuple(x[:2] for x in inputs),
        train=source,
        calibration=source,
        loss=F.cross_entropy,
        teachers=(module,),
        seed=seed,
        input_names=("input",)
        if len(inputs) == 1
        else tuple(f"input{i}" for i in range(len(inputs))),
    )
    return module, context


def weight(module: nn.Module) -> torch.Tensor:
    """The weight of a layer."""
    return module.get_parameter("weight")


def taught(model: nn.Module) -> StageContext:
    """A context whose labels are what the model says."""
    context = make("mlp")[1]
    ((x,), _) = next(context.calibration.batches(64))
    with torch.no_grad():
        known = Memory((x,), model(x).argmax(dim=1))
    return replace(context, example=(x[:2],), calibration=known, train=known)
