"""Problems whose fronts are known, with the kinds of parameters that compression has.

Each is a family: its seed moves the optimum and turns the weights, so that no constant of a sampler
can fit one of them. All objectives are minimised.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import moocore
import numpy as np
import optuna
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Number = float | Floats

MARGIN = 1.1
"""The reference point, where the best value of an objective is 0 and the worst 1."""


@dataclass(frozen=True)
class Problem:
    """A problem and what is to be found in it.

    Attributes:
        name: Its name.
        draw: Suggests the parameters of a candidate.
        evaluate: All objectives of parameters.
        cheap: Objectives that are known without a trial.
        best: `(m,)` best values.
        worst: `(m,)` worst values.
        front: `(n, m)` points of the front.
    """

    name: str
    draw: Callable[[optuna.trial.BaseTrial], None]
    evaluate: Callable[[Mapping[str, Any]], Floats]
    cheap: tuple[int, ...]
    best: Floats
    worst: Floats
    front: Floats

    @cached_property
    def volume(self) -> float:
        """Hypervolume of the front, scaled so that best is 0 and worst 1."""
        return volume(self.front, self.best, self.worst)

    def share(self, values: Floats) -> float:
        """The share of the front's hypervolume that points reach.

        Args:
            values: `(n, m)` objectives of what was tried.
        """
        return volume(values, self.best, self.worst) / self.volume

    def share_of_few(self, counts: Sequence[int]) -> list[float]:
        """The share that so many points of the front reach, chosen by one who knows them all.

        The next is always the one that adds most, which is rarely far from the best that can be
        done. Who adds least is asked least: gains never grow with what is chosen already.

        Args:
            counts: Numbers of points, ascending.
        """
        waiting = [(-math.inf, index) for index in range(len(self.front))]
        chosen: list[int] = []
        reached, shares = 0.0, list[float]()
        for _ in range(min(counts[-1], len(waiting))):
            asked: set[int] = set()
            while (best := heapq.heappop(waiting))[1] not in asked:
                asked.add(best[1])
                more = volume(self.front[[*chosen, best[1]]], self.best, self.worst) - reached
                heapq.heappush(waiting, (-more, best[1]))
            chosen.append(best[1])
            reached -= best[0]
            shares.append(reached / self.volume)
        return [shares[min(count, len(shares)) - 1] for count in counts]


def volume(values: Floats, best: Floats, worst: Floats) -> float:
    """Hypervolume of points up to `MARGIN`, scaled so that best is 0 and worst 1.

    Args:
        values: `(n, m)` points, smaller is better.
        best: `(m,)` best values.
        worst: `(m,)` worst values.
    """
    scaled = (values - best) / (worst - best)
    return float(moocore.hypervolume(scaled, ref=np.full(len(best), MARGIN)))


def problem_of(
    name: str,
    draw: Callable[[optuna.trial.BaseTrial], None],
    evaluate: Callable[[Mapping[str, Any]], Floats],
    cheap: tuple[int, ...],
    front: Floats,
) -> Problem:
    """The problem with a front, scaled to what is on the front.

    Args:
        name: Its name.
        draw: Suggests the parameters of a candidate.
        evaluate: All objectives of parameters.
        cheap: Objectives that are known without a trial.
        front: `(n, m)` points among which is the front.
    """
    front = front[moocore.is_nondominated(front)]
    best, worst = front.min(axis=0), front.max(axis=0)
    return Problem(name, draw, evaluate, cheap, best, worst, front)


def stages(seed: int) -> Problem:
    """Optional stages with parameters of their own: error, size, latency; 11 parameters.

    What shrinks the model decides size and latency, and how much error is unavoidable. How it is
    trained, and which of three criteria is used, adds error only, and none at its optimum. So the
    front is what shrinking alone can do, listed on a fine grid.
    """
    random = np.random.default_rng([seed, 1])
    rate, decay = random.uniform(-3.5, -1.5), random.uniform(-5.0, -3.0)
    good = int(random.integers(3))
    curve = random.uniform(0.6, 1.4, size=4)
    criteria = ("first", "second", "third")

    def structure(width: Number, bits: Number, ratio: Number, rank: Number) -> Floats:
        """Unavoidable error, size and latency."""
        error = (
            0.04 * curve[0] * (1.0 / width - 1.0)
            + 0.12 * curve[1] * (8.0 / bits - 0.5) ** 2 * (bits < 16)
            + 0.5 * curve[2] * ratio**3
            + 0.06 * curve[3] * (1.0 / rank - 1.0)
        )
        size = width**2 * (bits / 16.0) * (1.0 - ratio) * np.minimum(1.0, 0.1 + rank)
        latency = width**1.5 * (0.4 + 0.6 * bits / 16.0) * (1.0 - 0.8 * ratio) * (0.3 + 0.7 * rank)
        shape = np.broadcast_shapes(*(np.shape(x) for x in (width, bits, ratio, rank)))
        return np.stack(
            [np.broadcast_to(x, shape) for x in (error, np.log(size), np.log(latency))], axis=-1
        )

    def draw(trial: optuna.trial.BaseTrial) -> None:
        trial.suggest_float("width", 0.25, 1.0, log=True)
        trial.suggest_categorical("bits", (4, 8, 16))
        if trial.suggest_categorical("prune", (False, True)):
            trial.suggest_float("ratio", 0.1, 0.9)
            trial.suggest_categorical("criterion", criteria)
        if trial.suggest_categorical("factorize", (False, True)):
            trial.suggest_float("rank", 0.1, 0.9)
        trial.suggest_int("epochs", 1, 8)
        trial.suggest_float("rate", 1e-5, 1e-1, log=True)
        trial.suggest_float("decay", 1e-6, 1e-2, log=True)

    def evaluate(params: Mapping[str, Any]) -> Floats:
        values = structure(
            params["width"], params["bits"], params.get("ratio", 0.0), params.get("rank", 1.0)
        ).copy()
        values[0] += 0.05 * (math.log10(params["rate"]) - rate) ** 2
        values[0] += 0.01 * (math.log10(params["decay"]) - decay) ** 2
        values[0] += 0.02 * (8 - params["epochs"]) / params["epochs"]
        if params["prune"]:
            values[0] += 0.3 * params["ratio"] * (criteria.index(params["criterion"]) != good)
        return values

    grid = structure(
        np.geomspace(0.25, 1.0, 25)[:, None, None, None],
        np.array([4.0, 8.0, 16.0])[None, :, None, None],
        np.concatenate([[0.0], np.linspace(0.1, 0.9, 20)])[None, None, :, None],
        np.concatenate([[1.0], np.linspace(0.1, 0.9, 20)])[None, None, None, :],
    )
    return problem_of("stages", draw, evaluate, (1, 2), grid.reshape(-1, 3))


def layers(seed: int) -> Problem:
    """Ordinal widths of eight layers: error and size.

    Both are sums over the layers, so the front is known exactly by adding layer to layer.
    """
    random = np.random.default_rng([seed, 2])
    gain, cost = random.uniform(0.3, 3.0, size=8), random.integers(1, 6, size=8)
    widths = (8, 16, 24, 32, 48, 64)

    def draw(trial: optuna.trial.BaseTrial) -> None:
        for layer in range(8):
            trial.suggest_categorical(f"width{layer}", widths)

    def point(choice: Mapping[int, int]) -> Floats:
        error = sum(gain[layer] * 8.0 / width for layer, width in choice.items())
        return np.array([error, float(sum(cost[i] * width for i, width in choice.items()))])

    def evaluate(params: Mapping[str, Any]) -> Floats:
        return point({layer: params[f"width{layer}"] for layer in range(8)})

    front = np.zeros((1, 2))
    for layer in range(8):
        steps = np.array([point({layer: width}) for width in widths])
        front = np.array([a + b for a, b in product(front, steps)])
        front = front[moocore.is_nondominated(front)]
    return problem_of("layers", draw, evaluate, (1,), front)


def sphere(seed: int) -> Problem:
    """Six continuous parameters, three objectives on an eighth of a sphere (DTLZ2), moved.

    Two parameters say where on the sphere a candidate is, four how far from it. Nothing about it
    is cheap.
    """
    random = np.random.default_rng([seed, 3])
    centre = random.uniform(0.25, 0.75, size=4)

    def point(first: Floats, second: Floats, away: Floats | float) -> Floats:
        a, b = first * np.pi / 2.0, second * np.pi / 2.0
        radius = 1.0 + away
        return np.stack(
            [np.cos(a) * np.cos(b) * radius, np.cos(a) * np.sin(b) * radius, np.sin(a) * radius],
            axis=-1,
        )

    def draw(trial: optuna.trial.BaseTrial) -> None:
        for axis in range(6):
            trial.suggest_float(f"x{axis}", 0.0, 1.0)

    def evaluate(params: Mapping[str, Any]) -> Floats:
        x = np.array([params[f"x{axis}"] for axis in range(6)])
        return point(x[0], x[1], float(((x[2:] - centre) ** 2).sum()))

    a, b = np.meshgrid(np.linspace(0, 1, 60), np.linspace(0, 1, 60), indexing="ij")
    return problem_of("sphere", draw, evaluate, (), point(a.ravel(), b.ravel(), 0.0))
