"""How fast samplers find the front, on a table of trained networks or on problems made up.

The table is NAS-Bench-Macro (Su et al. 2021): accuracy, parameters and multiplications of all 6,561
networks of a space. A sampler is judged by the share of the whole table's hypervolume that the
networks it tried reach, after 25, 50 and 100 accuracies were asked for. Objectives are scaled to
the table's range, the reference point is 1.1. Parameters and multiplications are known without
training; Optuna's samplers cannot use that.

    python -m benchmarks.nasbench --table FILE_OR_FOLDER [--seeds N] [--quick] [--no-gp]
    python -m benchmarks.nasbench --synthetic [NAME ...] [--seeds N] [--quick] [--no-gp]

The last line is a JSON object of means over the seeds: `hv_25`, `hv_50`, `hv_100` of the screening
sampler; `learnt_hv_...` when it is not told the space; `noise_hv_...` when the cheap objectives are
off by 3 %; `renamed_hv_...` when the names of the operations are shuffled in each layer, so that no
two layers are alike; `dear_hv_...` when it may not look the cheap objectives up; `tpe_hv_...`,
`nsga2_hv_...`, `gp_hv_...` and `random_hv_...` of Optuna's samplers; `known_hv_...` of one who
knows the front and asks for the points that add most, which no search can be far above. With
`--synthetic` the names begin with the problem. Larger is better; 1 is the whole front. `ask_ms` is
the processor time of a proposal of the screening sampler in these searches, `ask_ms_10000` that
after 10,000 random trials of a problem with 11 parameters and 3 objectives, all of which are dear.

The sampler was made with the others in view; `chains` and the renamed table came when it was done.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import optuna
from numpy.typing import NDArray

from benchmarks.statistics import half_interval
from benchmarks.synthetic import Problem, layers, sphere, stages
from benchmarks.tables import blocks, cells, chains
from parefront.search.samplers.screening import ScreeningSampler

Floats = NDArray[np.float64]
Sampler = optuna.samplers.BaseSampler
Make = Callable[[Problem, int], Sampler]

PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "stages": stages,
    "layers": layers,
    "sphere": sphere,
    "cells": cells,
    "blocks": blocks,
    "chains": chains,
}
MARKS = (25, 50, 100)
NOISE = 0.03


def table(path: Path) -> Problem:
    """The problem that a table of trained networks is.

    Args:
        path: The JSON file, or the folder that holds it.
    """
    file = next(iter(sorted(path.glob("*.json")))) if path.is_dir() else path
    rows = json.loads(file.read_text(encoding="utf-8"))
    values = {
        name: np.array([-row["mean_acc"], row["params"], row["flops"]], dtype=float)
        for name, row in rows.items()
    }
    operations = sorted({letter for name in values for letter in name})
    depth = len(next(iter(values)))

    def draw(trial: optuna.trial.BaseTrial) -> None:
        for layer in range(depth):
            trial.suggest_categorical(f"layer{layer}", operations)

    def evaluate(params: Mapping[str, Any]) -> Floats:
        return values["".join(params[f"layer{layer}"] for layer in range(depth))]

    everything = np.array(list(values.values()))
    best, worst = everything.min(axis=0), everything.max(axis=0)
    front = everything[moocore.is_nondominated(everything)]
    return Problem("table", draw, evaluate, (1, 2), best, worst, front)


def noisy(problem: Problem, seed: int) -> Problem:
    """The same problem with cheap objectives that are off by `NOISE`, each time alike."""

    def evaluate(params: Mapping[str, Any]) -> Floats:
        values = problem.evaluate(params).copy()
        text = json.dumps(sorted(params.items()))
        random = np.random.default_rng([seed, *text.encode()])
        values[list(problem.cheap)] *= np.exp(NOISE * random.normal(size=len(problem.cheap)))
        return values

    return replace(problem, evaluate=evaluate)


def renamed(problem: Problem, seed: int) -> Problem:
    """The same problem with the choices of each parameter shuffled."""

    def evaluate(params: Mapping[str, Any]) -> Floats:
        return problem.evaluate({name: names[name][value] for name, value in params.items()})

    shown = optuna.create_study(sampler=optuna.samplers.RandomSampler(0)).ask()
    problem.draw(shown)
    random = np.random.default_rng(seed)
    names = {}
    for name, distribution in shown.distributions.items():
        assert isinstance(distribution, optuna.distributions.CategoricalDistribution)
        shuffled = random.permutation(len(distribution.choices))
        choices = distribution.choices
        names[name] = {choices[i]: choices[j] for i, j in enumerate(shuffled.tolist())}
    return replace(problem, evaluate=evaluate)


def _screening(problem: Problem, seed: int, *, learnt: bool = False) -> Sampler:
    def cheap(params: Mapping[str, Any]) -> dict[int, float]:
        values = problem.evaluate(params)
        return {objective: float(values[objective]) for objective in problem.cheap}

    return ScreeningSampler(cheap=cheap, space=None if learnt else problem.draw, seed=seed)


def _quiet(make: Callable[[], Sampler]) -> Sampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return make()


def _arms(problem: Problem, *, gp: bool) -> dict[str, Make]:
    arms: dict[str, Make] = {}
    if problem.cheap:
        arms[""] = _screening
        arms["learnt_"] = lambda p, seed: _screening(p, seed, learnt=True)
    if problem.cheap and problem.name == "table":
        arms["noise_"] = _screening
        arms["renamed_"] = _screening
    arms["dear_"] = lambda p, seed: ScreeningSampler(space=p.draw, seed=seed)
    samplers = optuna.samplers
    arms["tpe_"] = lambda _, seed: _quiet(
        lambda: samplers.TPESampler(seed=seed, multivariate=True, group=True)
    )
    arms["nsga2_"] = lambda _, seed: samplers.NSGAIISampler(seed=seed, population_size=20)
    if gp:
        arms["gp_"] = lambda _, seed: samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    arms["random_"] = lambda _, seed: samplers.RandomSampler(seed=seed)
    return arms


def run(problem: Problem, told: Problem, sampler: Sampler, marks: Sequence[int]) -> list[float]:
    """Runs one search.

    Args:
        problem: The true values, which the search is judged by.
        told: What the sampler is told.
        sampler: The sampler.
        marks: Numbers of trials after which to judge.

    Returns:
        The share of the front at each mark, and processor milliseconds a proposal.
    """
    study = optuna.create_study(directions=["minimize"] * len(problem.best), sampler=sampler)
    values: list[Floats] = []
    shares, spent = [], 0.0
    for count in range(1, max(marks) + 1):
        start = time.process_time()
        trial = study.ask()
        problem.draw(trial)
        spent += time.process_time() - start
        study.tell(trial, told.evaluate(trial.params).tolist())
        values.append(problem.evaluate(trial.params))
        if count in marks:
            shares.append(problem.share(np.array(values)))
    return [*shares, 1000.0 * spent / max(marks)]


def asking(problem: Problem, trials: int) -> float:
    """Processor milliseconds a proposal, of 20 after so many random trials.

    Args:
        problem: The problem, of which no objective is taken for cheap.
        trials: How many trials there were.
    """
    directions = [optuna.study.StudyDirection.MINIMIZE] * len(problem.best)
    random = optuna.create_study(directions=directions, sampler=optuna.samplers.RandomSampler(0))
    for _ in range(trials):
        trial = random.ask()
        problem.draw(trial)
        random.tell(trial, problem.evaluate(trial.params).tolist())
    study = optuna.create_study(
        directions=directions, sampler=ScreeningSampler(space=problem.draw, seed=0)
    )
    study.add_trials(random.get_trials(deepcopy=False))
    spent = []
    for _ in range(21):
        start = time.process_time()
        trial = study.ask()
        problem.draw(trial)
        spent.append(time.process_time() - start)
        study.tell(trial, problem.evaluate(trial.params).tolist())
    # The first proposal also reads all trials.
    return 1000.0 * sum(spent[1:]) / 20


def compare(
    problems: Callable[[int], Problem], seeds: int, prefix: str, *, gp: bool
) -> dict[str, float]:
    """Runs all samplers with all seeds and prints what they reach.

    Args:
        problems: The problem for a seed.
        seeds: How many seeds.
        prefix: Beginning of the names in the result.
        gp: Whether Optuna's GPSampler is compared, which takes seconds a proposal.

    Returns:
        Means over the seeds by name.
    """
    results: dict[str, float] = {}
    _add(results, f"{prefix}known_", [problems(seed).share_of_few(MARKS) for seed in range(seeds)])
    for arm, make in _arms(problems(0), gp=gp).items():
        shares = []
        for seed in range(seeds):
            problem = problems(seed)
            if arm == "renamed_":
                problem = renamed(problem, seed)
            told = noisy(problem, seed) if arm == "noise_" else problem
            shares.append(run(problem, told, make(told, seed), MARKS))
        milliseconds = float(np.mean([each.pop() for each in shares]))
        _add(results, f"{prefix}{arm}", shares, f"{milliseconds:8.1f} ms")
        if not arm:
            results[f"{prefix}ask_ms"] = round(milliseconds, 2)
    return results


def _add(
    results: dict[str, float], prefix: str, shares: Sequence[Sequence[float]], end: str = ""
) -> None:
    """Prints the shares of all seeds at the marks, and adds their means to the results."""
    texts = []
    for mark, column in zip(MARKS, np.array(shares).T, strict=True):
        results[f"{prefix}hv_{mark}"] = round(float(column.mean()), 4)
        texts.append(f"{column.mean():.4f} ± {half_interval(column):.4f}")
    name = prefix.rstrip("_") or "screening"
    print(f"{name:>18}  {'   '.join(texts)}   {end}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--table", type=Path, help="file or folder of NAS-Bench-Macro")
    source.add_argument(
        "--synthetic", nargs="*", choices=PROBLEMS, help="problems made up instead; all by default"
    )
    parser.add_argument("--seeds", type=int, default=10, help="searches of each sampler")
    parser.add_argument("--quick", action="store_true", help="2 seeds, without GPSampler")
    parser.add_argument("--no-gp", action="store_true", help="without GPSampler, which is slow")
    arguments = parser.parse_args()
    gp = not (arguments.quick or arguments.no_gp)
    if gp and find_spec("scipy") is None:
        print("Optuna's GPSampler is left out: it needs scipy, which is not installed")
        gp = False
    seeds = min(arguments.seeds, 2) if arguments.quick else arguments.seeds
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"share of the front's hypervolume after {MARKS} trials, mean of {seeds} seeds, 95 %")
    results: dict[str, float] = {}
    if arguments.table is not None:
        problem = table(arguments.table)
        results = compare(lambda _: problem, seeds, "", gp=gp)
    else:
        for name in arguments.synthetic or PROBLEMS:
            results |= compare(PROBLEMS[name], seeds, f"{name}_", gp=gp)
    if not arguments.quick:
        results["ask_ms_10000"] = round(asking(stages(0), 10_000), 1)
        print(f"{results['ask_ms_10000']} ms a proposal after 10,000 trials")
    print(json.dumps({**results, "seeds": seeds}))


if __name__ == "__main__":
    main()
