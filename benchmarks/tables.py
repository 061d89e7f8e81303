"""Tables of networks made up, of other shapes than the one that was trained.

What samplers are judged by must hold for tables that nobody has seen. In each family a network's
quality follows from its layers, from what pairs of neighbours do together, and from a little
chance; its error falls with quality and levels off at both ends. Parameters, and multiplications or
latency, follow from the layers. The seed draws all of it, so each seed is another table. All
networks are listed, so the fronts are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import optuna

from benchmarks.synthetic import Floats, Problem, problem_of

_CHANCE = 0.03
"""Spread of what training adds by chance, as a share of the spread of quality."""


def _levelled(quality: Floats, random: np.random.Generator) -> Floats:
    """Errors that level off where quality is high or low, `(n,)`."""
    standard = (quality - quality.mean()) / quality.std()
    standard = standard + _CHANCE * random.normal(size=len(quality))
    errors: Floats = 0.05 + 0.6 / (1.0 + np.exp(random.uniform(0.8, 1.6) * (standard + 1.0)))
    return errors


def cells(seed: int) -> Problem:
    """Six layers of five operations each: error, parameters, multiplications; 15,625 networks.

    The first operation does nothing and costs nothing; the others are better the more they cost,
    but for chance, and less so in later layers.
    """
    random = np.random.default_rng([seed, 4])
    depth, operations = 6, ("skip", "thin", "plain", "wide", "double")
    power = np.array([0.0, 0.5, 1.0, 1.4, 2.0])
    gain = (
        power**0.6 * random.uniform(0.3, 1.5, (depth, 1)) * random.lognormal(0.0, 0.3, (depth, 5))
    )
    pair = 0.15 * random.normal(size=(depth - 1, 5, 5))
    stage = np.arange(depth) // 2
    parameters = 2.0 ** stage[:, None] * power * random.lognormal(0.0, 0.2, (depth, 5)) + 0.2
    work = 2.0 ** (2 - stage)[:, None] * power * random.lognormal(0.0, 0.2, (depth, 5)) + 0.2
    rows = np.array(list(product(range(5), repeat=depth)))
    layer = np.arange(depth)
    quality = gain[layer, rows].sum(axis=1)
    quality += pair[layer[:-1], rows[:, :-1], rows[:, 1:]].sum(axis=1)
    values = np.column_stack(
        [
            _levelled(quality, random),
            parameters[layer, rows].sum(axis=1),
            work[layer, rows].sum(axis=1),
        ]
    )

    def draw(trial: optuna.trial.BaseTrial) -> None:
        for i in range(depth):
            trial.suggest_categorical(f"layer{i}", operations)

    def evaluate(params: Mapping[str, Any]) -> Floats:
        chosen = [operations.index(params[f"layer{i}"]) for i in range(depth)]
        row: Floats = values[int(np.dot(chosen, 5 ** np.arange(depth)[::-1]))]
        return row

    return problem_of("cells", draw, evaluate, (1, 2), values)


def blocks(seed: int) -> Problem:
    """Four optional blocks with a kernel size, and a width: error, parameters, latency.

    A block that is left out has no kernel size. 9,604 networks. Latency is no sum: a block waits
    for memory or for arithmetic, whichever takes longer.
    """
    random = np.random.default_rng([seed, 5])
    depth, kinds, kernels, widths = 4, ("dense", "separable"), (3, 5, 7), (0.5, 0.75, 1.0, 1.5)
    # A kernel of size 0 stands for no block.
    options = [("none", 0), *product(kinds, kernels)]
    size = np.array([k**2.0 if kind == "dense" else k + 4.0 * (k > 0) for kind, k in options])
    good = np.array([k**0.5 * (0.8 if kind == "separable" else 1.0) for kind, k in options])
    gain = good * random.uniform(0.3, 1.0, (depth, 1)) * random.lognormal(0.0, 0.2, (depth, 7))
    pair = 0.15 * random.normal(size=(depth - 1, 7, 7))
    memory = random.uniform(2.0, 12.0, (depth, 1)) * (size > 0.0)
    wide = random.uniform(0.6, 1.2)
    rows = np.array(list(product(range(4), *[range(7)] * depth)))
    width, block, layer = np.array(widths)[rows[:, 0]], rows[:, 1:], np.arange(depth)
    quality = gain[layer, block].sum(axis=1) * width ** (0.3 * wide) + wide * np.log(width)
    quality += pair[layer[:-1], block[:, :-1], block[:, 1:]].sum(axis=1)
    arithmetic = size[block] * width[:, None] ** 2
    waiting = memory[layer, block] * width[:, None]
    values = np.column_stack(
        [
            _levelled(quality, random),
            (arithmetic * 2.0**layer).sum(axis=1) + 10.0 * width,
            np.maximum(arithmetic, waiting).sum(axis=1) + 5.0,
        ]
    )
    indices = {tuple(row): index for index, row in enumerate(rows.tolist())}

    def draw(trial: optuna.trial.BaseTrial) -> None:
        trial.suggest_categorical("width", widths)
        for i in range(depth):
            if trial.suggest_categorical(f"block{i}", (*kinds, "none")) != "none":
                trial.suggest_categorical(f"kernel{i}", kernels)

    def evaluate(params: Mapping[str, Any]) -> Floats:
        chosen = [params[f"block{i}"] for i in range(depth)]
        sizes = [0 if kind == "none" else params[f"kernel{i}"] for i, kind in enumerate(chosen)]
        pairs = zip(chosen, sizes, strict=True)
        index = indices[widths.index(params["width"]), *map(options.index, pairs)]
        row: Floats = values[index]
        return row

    return problem_of("blocks", draw, evaluate, (1, 2), values)


def chains(seed: int) -> Problem:
    """Seven layers of four operations: error, parameters, latency; 16,384 networks.

    The weakest layer decides most of the quality, and what an operation is worth in one layer says
    nothing of the next. Going over from one operation to another takes time.
    """
    random = np.random.default_rng([seed, 6])
    depth, operations = 7, ("a", "b", "c", "d")
    worth = random.uniform(0.0, 1.0, (depth, 4))
    parameters = worth**1.5 * random.uniform(0.5, 4.0, (depth, 1)) + 0.1
    parameters *= random.lognormal(0.0, 0.3, (depth, 4))
    latency = random.uniform(0.2, 1.0, (depth, 4)) * (0.3 + worth)
    change = random.uniform(0.0, 0.3, (4, 4)) * (1.0 - np.eye(4))
    rows = np.array(list(product(range(4), repeat=depth)))
    layer = np.arange(depth)
    weakest = -np.log(np.exp(-4.0 * worth[layer, rows]).sum(axis=1))
    quality = weakest + 0.15 * (rows[:, 1:] == rows[:, :-1]).sum(axis=1)
    values = np.column_stack(
        [
            _levelled(quality, random),
            parameters[layer, rows].sum(axis=1),
            latency[layer, rows].sum(axis=1) + change[rows[:, :-1], rows[:, 1:]].sum(axis=1),
        ]
    )

    def draw(trial: optuna.trial.BaseTrial) -> None:
        for i in range(depth):
            trial.suggest_categorical(f"layer{i}", operations)

    def evaluate(params: Mapping[str, Any]) -> Floats:
        chosen = [operations.index(params[f"layer{i}"]) for i in range(depth)]
        row: Floats = values[int(np.dot(chosen, 4 ** np.arange(depth)[::-1]))]
        return row

    return problem_of("chains", draw, evaluate, (1, 2), values)
