"""A space learnt from trials: which parameters there are, and when each is active."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

from optuna.distributions import BaseDistribution

from parefront.search.samplers.screening.candidates import Candidate
from parefront.search.samplers.screening.values import draw_value, fitting

_DEPTH = 4
_MOST = 400
"""Candidates a rule is learnt from."""
_GROWTH = 1.1
"""How many times as many candidates there must be before rules that erred are learnt anew."""
_FEW = 12
"""Values that are all asked for, and thresholds."""
_MISSING = "(inactive)"


@dataclass(frozen=True)
class _Leaf:
    active: bool


@dataclass(frozen=True)
class _Split:
    """A question about another parameter: does it equal a value, or lie at or below it?"""

    name: str
    value: Any
    ordered: bool
    yes: _Split | _Leaf
    no: _Split | _Leaf


_Rule = _Split | _Leaf


class LearnedSpace:
    """What the candidates of a define-by-run objective have in common.

    Whether a parameter is active is decided by a small tree over the parameters that come before
    it. Where that is wrong, the objective draws what is missing on its own, and the tree learns.

    Attributes:
        distributions: Distributions by name, as last seen, in the order of the objective.
        version: Changes whenever anything else does.
    """

    def __init__(self) -> None:
        self.distributions: dict[str, BaseDistribution] = {}
        self.version = 0
        self._candidates: list[Candidate] = []
        self._rules: dict[str, _Rule] = {}
        self._learned = 0

    def absorb(self, candidate: Candidate) -> None:
        """Learns from one more candidate that was tried."""
        self._candidates.append(candidate)
        if any(self.distributions.get(name) != d for name, d in candidate.distributions.items()):
            self.distributions = _merged(self.distributions, candidate.distributions)
            self._learn()
        elif len(self._candidates) >= _GROWTH * self._learned:
            expected = set(self._active(candidate.params))
            if expected != set(candidate.params):
                self._learn()

    def draw(self, random: Random, wanted: Mapping[str, Any]) -> Candidate:
        """Draws a candidate with the wanted values where they fit."""
        params: dict[str, Any] = {}
        for name, distribution in self.distributions.items():
            if _answer(self._rules[name], params):
                value = fitting(distribution, wanted[name]) if name in wanted else None
                params[name] = draw_value(distribution, random) if value is None else value
        return Candidate(params, {name: self.distributions[name] for name in params})

    def _active(self, params: Mapping[str, Any]) -> list[str]:
        return [name for name in self.distributions if _answer(self._rules[name], params)]

    def _learn(self) -> None:
        self._learned = len(self._candidates)
        self.version += 1
        rows = [candidate.params for candidate in self._candidates[-_MOST:]]
        names = list(self.distributions)
        self._rules = {
            name: _tree(rows, [name in row for row in rows], names[position::-1][1:], _DEPTH)
            for position, name in enumerate(names)
        }


def _merged(
    old: Mapping[str, BaseDistribution], new: Mapping[str, BaseDistribution]
) -> dict[str, BaseDistribution]:
    """Both, in an order in which what comes after another in one does so in both."""
    names = list(old)
    at = 0
    for name in new:
        if name in old:
            at = names.index(name) + 1
        else:
            names.insert(at, name)
            at += 1
    return {name: new[name] if name in new else old[name] for name in names}


def _answer(rule: _Rule, params: Mapping[str, Any]) -> bool:
    while isinstance(rule, _Split):
        rule = (
            rule.yes
            if _holds(rule.value, rule.ordered, params.get(rule.name, _MISSING))
            else (rule.no)
        )
    return rule.active


def _holds(value: Any, ordered: bool, given: Any) -> bool:  # noqa: ANN401
    if not ordered:
        return bool(given == value)
    return not isinstance(given, str) and given is not None and bool(given <= value)


def _tree(
    rows: Sequence[Mapping[str, Any]], labels: Sequence[bool], names: Sequence[str], depth: int
) -> _Rule:
    """The smallest tree found greedily that tells active from inactive.

    Of questions that tell as much, those about the nearest parameter before come first, and those
    for equality before those for order: what depends on a choice mostly follows it.
    """
    count, total = sum(labels), len(labels)
    majority = _Leaf(2 * count >= total)
    if count in (0, total) or depth == 0:
        return majority
    best: tuple[float, str, Any, bool, list[bool]] | None = None
    columns = {name: [row.get(name, _MISSING) for row in rows] for name in names}
    for name, value, ordered in _questions(columns):
        sides = [_holds(value, ordered, each) for each in columns[name]]
        impurity = _impurity(sides, labels)
        if 0 < sum(sides) < total and (best is None or impurity < best[0] - 1e-12):
            best = (impurity, name, value, ordered, sides)
    if best is None or best[0] >= count * (total - count) / total - 1e-12:
        return majority
    _, name, value, ordered, sides = best
    yes, no = [
        _tree(
            [row for row, on in zip(rows, sides, strict=True) if on == side],
            [label for label, on in zip(labels, sides, strict=True) if on == side],
            names,
            depth - 1,
        )
        for side in (True, False)
    ]
    return _Split(name, value, ordered, yes, no)


def _questions(columns: Mapping[str, Sequence[Any]]) -> list[tuple[str, Any, bool]]:
    """What can be asked: equality with a value, and then a few thresholds of numbers."""
    equal: list[tuple[str, Any, bool]] = []
    ordered: list[tuple[str, Any, bool]] = []
    for name, column in columns.items():
        values = list(dict.fromkeys(column))
        discrete = not any(isinstance(v, float) for v in values) and len(values) <= _FEW
        equal += [(name, value, False) for value in (values if discrete else [_MISSING])]
        numbers = sorted(
            {v for v in values if isinstance(v, int | float) and not isinstance(v, bool)}
        )
        middles = [(a + b) / 2 for a, b in pairwise(numbers)]
        ordered += [(name, middle, True) for middle in middles[:: 1 + len(middles) // _FEW]]
    return equal + ordered


def _impurity(sides: Sequence[bool], labels: Sequence[bool]) -> float:
    """Gini impurity of both sides together, times their sizes."""
    counts = {True: [0, 0], False: [0, 0]}
    for side, label in zip(sides, labels, strict=True):
        counts[side][label] += 1
    return sum(a * b / (a + b) for a, b in counts.values() if a + b)
