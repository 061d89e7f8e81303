"""Learning curves of compressed models: made up, with known crossings, or of real trainings."""

from __future__ import annotations

import runpy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from parefront.errors import TrialError
from parefront.spaces.catalog import STAGES
from parefront.spaces.distillation.training import rate_at, train
from parefront.spaces.space import Space
from parefront.spaces.stage import Form, StageContext, TargetTraits

Floats = NDArray[np.float64]

SHARES = tuple(step / 8 for step in range(1, 8))
"""Shares of a training at which accuracy is known besides its end."""

Kind = Literal["random", "guided", "even"]

LEARNT = 70
"""Trials after which a sampler that learns would have found out everything."""

EPOCHS = {"epochs": [2, 5]}
"""Choices of the trainings that are really run."""


@dataclass(frozen=True)
class Curves:
    """Trials in the order in which they run.

    Attributes:
        cheap: `(n, 2)` latency and size, in any unit.
        errors: `(n, 8)` 1 - accuracy at each of `SHARES`, and at the end.
        costs: `(n,)` what a whole training costs, in any unit.
    """

    cheap: Floats
    errors: Floats
    costs: Floats

    def ordered(self, order: NDArray[np.intp]) -> Curves:
        """The same trials in another order, or some of them."""
        return Curves(self.cheap[order], self.errors[order], self.costs[order])


def made_up(seed: int, trials: int, crossing: float, kind: Kind) -> Curves:
    """Trials whose final error depends on how much of the model is left and on how it was trained.

    Three things make curves cross, each in proportion to `crossing`: some learn faster than others,
    a high learning rate costs accuracy that comes back as the rate falls, and accuracy is noisy
    while the rate is high.

    Args:
        seed: Seed of everything.
        trials: How many.
        crossing: 0 for curves that keep their order but for the noise of validation.
        kind: How candidates come: at random; guided, so that later ones are better, as a sampler
            that learns proposes them; or each as good as its size allows, so that in the end none
            beats another.
    """
    rng = np.random.default_rng(seed)
    width, rank = rng.uniform(0.1, 1.0, (2, trials))
    rank = np.where(rng.random(trials) < 0.5, 1.0, rank)
    quantised = rng.random(trials) < 0.4
    uneven, scars = rng.normal(0.0, 0.08, trials), rng.uniform(0.6, 1.0, trials)
    flaw = rng.exponential(1.0, trials)
    if kind == "guided":
        flaw *= np.maximum(1.0 - np.arange(trials) / LEARNT, 0.15)
    if kind == "even":
        rank, quantised = np.ones(trials), np.zeros(trials, dtype=bool)
        uneven, scars, flaw = np.zeros(trials), np.full(trials, 0.8), np.zeros(trials)
    size = width**1.5 * rank * np.where(quantised, 0.27, 1.0)
    latency = width**0.8 * rank**0.6 * np.where(quantised, 0.6, 1.0)
    latency *= np.exp(uneven)
    left = width * rank**0.7
    final = (0.07 + 0.25 * np.exp(-4.0 * left) + 0.01 * quantised) * (1.0 + 0.5 * flaw)
    damage = (0.9 - final) * (1.0 - left) ** 0.7 * scars
    pace = 5.0 * np.exp(crossing * rng.normal(0.0, 1.0, trials))
    hot = 0.06 * crossing * np.abs(rng.normal(0.0, 1.0, trials))
    columns = []
    for share in (*SHARES, 1.0):
        rate = rate_at(round(1000 * share) - 1, 1000, 1.0)
        learnt = (np.exp(-pace * share) - np.exp(-pace)) / (1.0 - np.exp(-pace))
        noise = rng.normal(0.0, 0.004 + 0.02 * crossing * rate, trials)
        columns.append(np.clip(final + damage * learnt + hot * rate + noise, 0.005, 1.0))
    return Curves(np.column_stack([latency, size]), np.column_stack(columns), np.ones(trials))


def trained(trials: int, task_file: Path = Path("examples/mnist_cnn.py")) -> Curves:
    """Random candidates of pruning, factorisation and recovery, really trained.

    Latency is taken to go with multiplications, so that no timing enters.

    Args:
        trials: How many candidates.
        task_file: File with the task.
    """
    task = runpy.run_path(str(task_file))["task"]
    torch.set_num_threads(1)  # sums come out the same on every machine of one kind
    torch.manual_seed(0)
    base = task.model()
    train(
        base,
        task.train,
        lambda _, outputs, targets: functional.cross_entropy(outputs, targets),
        epochs=task.pretrain.epochs,
        learning_rate=task.pretrain.learning_rate,
        batch_size=task.pretrain.batch_size,
        seed=0,
        tick=lambda: None,
    )
    inputs, targets = next(task.validation.batches(len(task.validation)))

    def error(module: nn.Module) -> float:
        with torch.no_grad():
            return float((module(*inputs).argmax(dim=1) != targets).double().mean())

    traits = TargetTraits(format="onnx", channel_multiple=8)
    space = Space(
        [
            stage(stage.choices_type.model_validate(EPOCHS if stage.dear else {}), traits)
            for stage in STAGES
            if stage.form == Form.MODULE and stage.by_default
        ]
    )
    context = StageContext(
        example=(inputs[0][:2],),
        train=task.train,
        calibration=task.train,
        loss=functional.cross_entropy,
        teachers=(base,),
        seed=0,
        input_names=("input",),
    )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    cheap: list[list[float]] = []
    errors: list[list[float]] = []
    costs: list[float] = []
    while len(errors) < trials:
        candidate = space.suggest(study.ask())
        configs: dict[str, Any] = dict(candidate.configs)
        if "recover" not in configs or len(configs) < 2:
            continue
        on_the_way: list[float] = []

        def report(_: float, module: nn.Module, into: list[float] = on_the_way) -> None:
            into.append(error(module))

        here = replace(context, seed=len(errors), rungs=SHARES, report=report)
        module = base
        try:
            for stage in space.stages:
                if stage.name in configs:
                    module = stage.apply(module, configs[stage.name], here).model
        except TrialError:
            continue
        macs = multiplications(module, inputs[0][:1])
        cheap.append([macs, sum(parameter.numel() for parameter in module.parameters())])
        errors.append([*on_the_way, error(module)])
        costs.append(macs * configs["recover"].epochs)
        print(f"{len(errors):4} of {trials}: error {errors[-1][-1]:.3f}", flush=True)
    return Curves(np.array(cheap, dtype=float), np.array(errors), np.array(costs, dtype=float))


def multiplications(module: nn.Module, example: torch.Tensor) -> int:
    """Multiplications of convolutions and linear layers for one example."""
    total = 0

    def count(layer: nn.Module, _: object, outputs: torch.Tensor) -> None:
        nonlocal total
        positions = outputs[0, 0].numel() if outputs.ndim > 2 else 1
        total += sum(p.numel() for p in layer.parameters() if p.ndim > 1) * positions

    layers = [each for each in module.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        module(example)
    for hook in hooks:
        hook.remove()
    return total
