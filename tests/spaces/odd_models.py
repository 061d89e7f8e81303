"""Models whose channels are easily got wrong."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


class Heads(nn.Module):
    """Attention out of Linear layers, with heads of 8 channels, on a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 32)
        self.norm = nn.LayerNorm(32)
        self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))
        self.o = nn.Linear(32, 32)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)
        self.head = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        y = self.norm(x)
        q, k, v = (f(y).unflatten(-1, (-1, 8)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.o(y)
        x = x + self.down(F.gelu(self.up(x)))
        return self.head(x.mean(dim=1))  # type: ignore[no-any-return]


class Fixed(nn.Module):
    """Adds a constant that is no parameter, as sinusoidal positions are, to its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.register_buffer("positions", random(5, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x) + self.positions
        return self.last(F.relu(self.inner(x))).mean(dim=1)  # type: ignore[no-any-return]


class Gated(nn.Module):
    """Multiplies one half of its channels with the other."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.inner, self.head = nn.Linear(6, 32), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.inner(F.glu(self.both(x)))))  # type: ignore[no-any-return]


class Chunked(Gated):
    """The same, with halves that are cut apart before."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.both(x).chunk(2, dim=1)
        return self.head(F.relu(self.inner(value * gate.sigmoid())))  # type: ignore[no-any-return]


class Image(nn.Module):
    """Shapes the channels of a Linear layer into an image."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.inner, self.head = (
            nn.Linear(6, 32),
            nn.Conv2d(2, 16, 1),
            nn.Conv2d(16, 3, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.inner(self.both(x).view(-1, 2, 4, 4))))  # type: ignore[no-any-return]


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.middle, self.head = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = F.relu(self.middle(F.relu(self.body(x))))
        return {"class": self.head(features), "features": features}


class HardCoded(nn.Module):
    """Flattens to a number of features that stands in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8 * 36, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(F.relu(self.first(x))).view(-1, 288))  # type: ignore[no-any-return]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner = nn.Embedding(20, 16), nn.Linear(16, 32)
        self.outer, self.logits = nn.Linear(32, 16), nn.Linear(16, 20, bias=False)
        self.logits.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        x = x + self.outer(F.relu(self.inner(x)))
        return self.logits(x.mean(dim=1))  # type: ignore[no-any-return]


class Joined(nn.Module):
    """Two branches of different width whose channels are concatenated, for two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(2, 16, 1)
        self.norm, self.after = nn.BatchNorm2d(24), nn.Conv2d(24, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(torch.cat([self.left(a), self.right(b)], dim=1)))
        return self.head(self.after(x).mean(dim=(2, 3)))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.first, self.rnn = nn.Linear(6, 16), kind(16, 16, batch_first=True)
        self.inner, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.rnn(F.relu(self.first(x)))
        return self.head(F.relu(self.inner(states[:, -1])))  # type: ignore[no-any-return]


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.spare = nn.Linear(6, 3), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError(f"no luck\nwith {x.shape}")
