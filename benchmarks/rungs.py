"""What early stopping saves, and what it costs.

Trials are replayed in order, with and without rungs: those that are stopped cost the share of their
training that was done, and are not on the front. Learning curves are made up, with few, some and
many crossings, for candidates drawn at random, for candidates that get better as the search goes
on, and for candidates of which in the end none beats another; `--trained N` replays N trainings of
`examples/mnist_cnn.py` as well, in random orders. The same trials are given to every rule:

- `default`: `RungRule()`;
- `no slack`: accuracy at a rung is taken for final;
- `half alone`: the best half by rank and contribution goes on, as in MO-ASHA;
- `most alone`: the best 70 % do.

    python -m benchmarks.rungs [--quick] [--seeds N] [--trained N]

Of each rule, in per cent: the training saved; the hypervolume kept, as a share of what it is
without stopping; the share of the front's trials that were stopped; and the hypervolume when the
training that was saved goes into further trials. The last line is a JSON object with the means over
all made-up curves as shares: `saved`, `hypervolume_kept`, `front_lost` and `same_cost` for the
default rule, the same with `half_alone_` and `most_alone_`, and with `--trained` all but the last
with `trained_`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning_curves import SHARES, Curves, Floats, Kind, made_up, trained
from parefront.objectives.front import dominated, hypervolume, normalize, reference_box
from parefront.search.rungs import MARGIN, RungRule, ahead, goes_on

Decide = Callable[[Floats], bool]
"""Whether the last of the trials at a rung, of shape `(n, 3)`, goes on; smaller is better."""

CROSSINGS = {"few": 0.1, "some": 0.4, "many": 0.8}
KINDS: tuple[Kind, ...] = ("random", "guided", "even")
FLAGS = [False, False, False]


@dataclass(frozen=True)
class Rule:
    """A rule that is tried: at which shares, and who goes on there."""

    shares: tuple[float, ...]
    decide: Decide


def ruled(rule: RungRule) -> Rule:
    """A rule of parefront's own."""
    return Rule(rule.shares, lambda at: goes_on(at, len(at) - 1, (False, False, True), rule))


def share_alone(keep: float, least: int = RungRule().least) -> Rule:
    """The best share by rank and contribution, whatever beats the others."""
    return Rule(
        RungRule().shares,
        lambda at: len(at) < least or ahead(at, len(at) - 1) < keep * len(at),
    )


RULES = {
    "default": ruled(RungRule()),
    "no slack": ruled(RungRule(slack=0.0)),
    "half alone": share_alone(0.5),
    "most alone": share_alone(0.7),
}


def replay(curves: Curves, rule: Rule) -> tuple[Floats, NDArray[np.bool_]]:
    """What each trial costs under a rule, and whether it was trained to the end."""
    columns = [SHARES.index(share) for share in rule.shares]
    points = np.log(curves.cheap)
    reached: dict[int, list[Floats]] = {column: [] for column in columns}
    costs, through = curves.costs.copy(), np.ones(len(points), dtype=bool)
    for trial, cheap in enumerate(points):
        for column in columns:
            reached[column].append(np.append(cheap, curves.errors[trial, column]))
            if not rule.decide(np.array(reached[column])):
                costs[trial] *= SHARES[column]
                through[trial] = False
                break
    return costs, through


def compared(curves: Curves, trials: int, rule: Rule) -> list[float]:
    """Share of training saved, hypervolume kept, front lost, and hypervolume at the same cost.

    Args:
        curves: The trials of a search and, after them, those it would go on with.
        trials: How many are the search's.
        rule: The rule.
    """
    final = np.column_stack([np.log(curves.cheap), curves.errors[:, -1]])
    first = final[:trials]
    front = ~dominated(first, first, first, FLAGS)
    box = reference_box(first[front], FLAGS)
    scaled = normalize(final, *box, FLAGS)

    def volume(rows: NDArray[np.bool_]) -> float:
        return hypervolume(scaled[: len(rows)][rows], [MARGIN] * 3, FLAGS)

    costs, through = replay(curves, rule)
    whole = volume(np.ones(trials, dtype=bool))
    budget = curves.costs[:trials].sum()
    affordable = int((np.cumsum(costs) <= budget).sum())
    return [
        1.0 - costs[:trials].sum() / budget,
        volume(through[:trials]) / whole,
        1.0 - through[:trials][front].mean(),
        volume(through[:affordable]) / whole if len(final) > trials else np.nan,
    ]


def row(name: str, found: Sequence[Sequence[float]]) -> list[float]:
    """Prints a line of the table and returns its means."""
    values = np.array(found)
    means = values.mean(axis=0)
    half = 1.96 * values.std(axis=0, ddof=1) / np.sqrt(len(values))
    cells = [
        f"{100 * m:8.1f} ±{100 * h:4.1f}" if np.isfinite(m) else f"{'':14}"
        for m, h in zip(means, half, strict=True)
    ]
    print(f"{name:34}" + "".join(cells))
    return [float(mean) for mean in means]


def keyed(prefix: str, means: Sequence[float]) -> dict[str, float]:
    """Means by their names in the last line."""
    names = ("saved", "hypervolume_kept", "front_lost", "same_cost")
    return {prefix + name: round(mean, 4) for name, mean in zip(names, means, strict=False)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 seeds instead of 20")
    parser.add_argument("--seeds", type=int, help="seeds of each kind of curves")
    parser.add_argument("--trained", type=int, default=0, help="trainings to run and replay")
    options = parser.parse_args()
    seeds, trials = options.seeds or (3 if options.quick else 20), 60
    print(f"{'per cent':34}{'saved':>9}{'volume kept':>15}{'front lost':>14}{'same cost':>13}")
    totals: dict[str, list[list[float]]] = {name: [] for name in RULES}
    for kind in KINDS:
        for crossings, crossing in CROSSINGS.items():
            print(f"{kind} candidates, {crossings} crossings")
            made = [made_up(seed, 3 * trials, crossing, kind) for seed in range(seeds)]
            for name, rule in RULES.items():
                found = [compared(curves, trials, rule) for curves in made]
                row(f"    {name}", found)
                totals[name] += found
    print("all made-up curves")
    result: dict[str, float] = {}
    for name, found in totals.items():
        prefix = "" if name == "default" else f"{name.replace(' ', '_')}_"
        result |= keyed(prefix, row(f"    {name}", found))
    if options.trained:
        real = trained(options.trained)
        rng = np.random.default_rng(0)
        orders = [rng.permutation(len(real.costs)) for _ in range(seeds)]
        print(f"{len(real.costs)} trained candidates, in {seeds} orders")
        for name, rule in RULES.items():
            found = [compared(real.ordered(order), len(order), rule) for order in orders]
            means = row(f"    {name}", found)
            if name == "default":
                result |= keyed("trained_", means[:3])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
