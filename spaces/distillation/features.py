"""Losses on what happens inside a student and its teacher, layer by layer.

Layers are compared that both models have under one name, and whose outputs differ in nothing but
the number of channels: so a pruned or factorised student is compared where it was made of its
teacher. A new comparison is a class and a line in `COMPARISONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from parefront.errors import StageError
from parefront.spaces.inspection import run
from parefront.spaces.stage import Inputs

Features = Literal["attention", "hint", "relational"]
_MOST = 3
"""Layers that are compared, evenly spaced, the last among them."""
_TINY = 1e-8


class Taps:
    """The outputs of some layers in the latest forward pass.

    Args:
        model: The model.
        names: Names of the layers.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self.outputs: dict[str, torch.Tensor] = {}
        self._handles = [
            model.get_submodule(name).register_forward_hook(self._keeper(name)) for name in names
        ]

    def _keeper(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def keep(module: nn.Module, inputs: object, output: object) -> None:  # noqa: ARG001
            if isinstance(output, torch.Tensor):
                self.outputs[name] = output

        return keep

    def close(self) -> None:
        """Takes the hooks away."""
        for handle in self._handles:
            handle.remove()


@contextmanager
def tapped(model: nn.Module, names: Sequence[str]) -> Iterator[Taps]:
    """Keeps the outputs of layers while inside."""
    taps = Taps(model, names)
    try:
        yield taps
    finally:
        taps.close()


def compared_layers(
    student: nn.Module, teacher: nn.Module, example: Inputs, *, places: bool = False
) -> list[str]:
    """The layers to compare, in the order in which they run.

    Args:
        student: The student.
        teacher: The teacher.
        example: Example inputs of both.
        places: Whether only outputs with places count, such as images and sequences.
    """
    outputs = []
    for model in (student, teacher):
        names = [name for name, _ in model.named_modules() if name]
        with tapped(model, names) as taps:
            run(model, example)
        outputs.append(dict(taps.outputs))
    ours, theirs = outputs
    alike = [
        name for name, output in ours.items() if name in theirs and _alike(output, theirs[name])
    ]
    # What the model itself gives is compared by the loss on its outputs.
    wide = [name for name in alike if theirs[name].ndim > 2]
    alike = wide if wide or places else alike[:-1]
    if len(alike) <= _MOST:
        return alike
    return [alike[round((place + 1) * len(alike) / _MOST) - 1] for place in range(_MOST)]


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two outputs have the same shape but for their channels."""
    if a.ndim != b.ndim or a.ndim < 2 or not a.is_floating_point() or len(a) != len(b):
        return False
    return len(_differing(a, b)) <= 1


def _differing(a: torch.Tensor, b: torch.Tensor) -> list[int]:
    """The dimensions in which two outputs differ."""
    pairs = enumerate(zip(a.shape, b.shape, strict=True))
    return [at for at, (x, y) in pairs if x != y]


def _channels(a: torch.Tensor, b: torch.Tensor) -> int:
    """The dimension of the channels of two outputs.

    The one in which they differ; else the second of images, and the last of sequences and vectors.
    """
    differing = _differing(a, b)
    if differing:
        return differing[0]
    return 1 if a.ndim > 3 else a.ndim - 1


def _rows(output: torch.Tensor, channels: int) -> torch.Tensor:
    """`(places, channels)`: every place of every example."""
    return output.movedim(channels, -1).flatten(0, -2)


class Attention(nn.Module):
    """Where the activations are, whatever the channels: the difference of normalised maps.

    Zagoruyko and Komodakis, "Paying more attention to attention" (2017), equation 2, with squares.
    Layers without places, such as Linear layers on vectors, have nothing to compare.
    """

    def __init__(self, student: torch.Tensor, teacher: torch.Tensor) -> None:  # noqa: ARG002
        super().__init__()

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Mean squared distance of two maps, each of length 1 for each example."""
        channels = _channels(student, teacher)
        maps = [
            functional.normalize(each.square().mean(dim=channels).flatten(1), dim=1)
            for each in (student, teacher)
        ]
        return (maps[0] - maps[1]).square().sum(dim=1).mean()


class Hint(nn.Module):
    """What the activations are, through a linear map that is learnt beside.

    Romero et al., "FitNets: hints for thin deep nets" (2015), in relation to the variance of the
    teacher's activations so that layers weigh alike. The map is dropped after training.
    """

    def __init__(self, student: torch.Tensor, teacher: torch.Tensor) -> None:
        super().__init__()
        channels = _channels(student, teacher)
        ours, theirs = student.shape[channels], teacher.shape[channels]
        self.map = nn.Linear(ours, theirs, dtype=student.dtype)
        if ours == theirs:
            with torch.no_grad():
                nn.init.eye_(self.map.weight)
                nn.init.zeros_(self.map.bias)

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Mean squared difference over the teacher's variance."""
        channels = _channels(student, teacher)
        wanted = _rows(teacher, channels)
        error = (self.map(_rows(student, channels)) - wanted).square().mean()
        relative: torch.Tensor = error / (wanted.var(unbiased=False) + _TINY)
        return relative


class Relational(nn.Module):
    """How far examples are from each other, and at which angles.

    Park, Kim, Lu, Cho, "Relational knowledge distillation" (2019): Huber losses of distances, over
    their mean, and of the cosines of all triplets, weighed 1 to 2 as in the paper. Outputs with
    places count with their means over them. All is made of the products of pairs of examples, so
    that memory grows with the batch and not with the channels.
    """

    def __init__(self, student: torch.Tensor, teacher: torch.Tensor) -> None:  # noqa: ARG002
        super().__init__()

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """The distance loss and twice the angle loss."""
        channels = _channels(student, teacher)
        ours, theirs = (_relations(_pooled(each, channels)) for each in (student, teacher))
        distance = functional.smooth_l1_loss(ours[0], theirs[0])
        angle = functional.smooth_l1_loss(ours[1], theirs[1])
        return distance + 2 * angle


def _pooled(output: torch.Tensor, channels: int) -> torch.Tensor:
    """`(examples, channels)`, centred, which moves no distance and no angle."""
    rows = output.movedim(channels, -1).flatten(1, -2).mean(dim=1) if output.ndim > 2 else output
    return rows - rows.mean(dim=0)


def _relations(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances of all pairs over their mean, and cosines of all triplets at the first of each."""
    products = rows @ rows.T
    lengths = products.diagonal()
    squared = lengths[:, None] + lengths[None] - 2 * products
    # The root has no slope at 0, and what is alike has no angle.
    far = squared > _TINY * (lengths.mean() + _TINY)
    distance = torch.where(far, squared.clamp_min(_TINY * _TINY).sqrt(), 0.0)
    mean = distance.sum() / far.sum().clamp_min(1)
    # (a - b) (c - b) of all triplets, at b.
    inner = products[None] - products[:, :, None] - products[:, None] + lengths[:, None, None]
    sides = torch.where(far, distance, 1.0)
    both = far[:, :, None] & far[:, None]
    cosine = torch.where(both, inner / (sides[:, :, None] * sides[:, None]), 0.0)
    return distance / (mean + _TINY), cosine


COMPARISONS: Mapping[Features, Callable[[torch.Tensor, torch.Tensor], nn.Module]] = {
    "attention": Attention,
    "hint": Hint,
    "relational": Relational,
}


class FeatureLoss:
    """The mean of a comparison over layers, in the latest forward passes of both models.

    Args:
        kind: The comparison.
        student: The student; it is tapped until `close`.
        teacher: The teacher.
        example: Example inputs of both.
        seed: Seed of what is learnt beside.

    Attributes:
        names: The layers that are compared.
        parameters: What is learnt beside the student.

    Raises:
        StageError: If the models have no layer to compare.
    """

    def __init__(
        self, kind: Features, student: nn.Module, teacher: nn.Module, example: Inputs, seed: int
    ) -> None:
        self.names = compared_layers(student, teacher, example, places=kind == "attention")
        if not self.names:
            raise StageError(
                f"no layer of the model can be compared with one of its teacher for '{kind}' "
                "features; leave them out"
            )
        if kind == "relational":  # of the deepest features, as in the paper
            self.names = self.names[-1:]
        self._student, self._teacher = Taps(student, self.names), Taps(teacher, self.names)
        run(student, example)
        run(teacher, example)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self._losses = {
                name: COMPARISONS[kind](self._student.outputs[name], self._teacher.outputs[name])
                for name in self.names
            }
        self.parameters = [p for loss in self._losses.values() for p in loss.parameters()]

    def __call__(self) -> torch.Tensor:
        """The loss of the latest passes; lower is better."""
        each = [
            loss(self._student.outputs[name], self._teacher.outputs[name].detach())
            for name, loss in self._losses.items()
        ]
        return torch.stack(each).mean()

    def close(self) -> None:
        """Takes the taps away."""
        self._student.close()
        self._teacher.close()
