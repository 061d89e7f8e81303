"""Candidates as rows of numbers for a Gaussian process."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution

from parefront.search.samplers.screening.candidates import Candidate, plain
from parefront.search.samplers.screening.hyper import Columns
from parefront.search.samplers.screening.pooling import ALIKE, Pooling
from parefront.search.samplers.screening.values import position_of

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

_MIDDLE = 0.5
"""Where a parameter that is not active lies: nowhere in particular."""
_INACTIVE = object()


@dataclass(frozen=True)
class _Column:
    """One or more columns of one meaning.

    Attributes:
        name: Parameter.
        kind: `"number"`, `"order"` of choices that are numbers, `"choice"` or `"active"`.
        width: How many columns there are.
        values: Columns by choice, and where the parameter is not active.
    """

    name: str
    kind: str
    width: int
    values: Mapping[object, list[float]]


class Encoder:
    """Turns the parameters of candidates into rows of one shape.

    A number becomes its share of the range, on the logarithmic scale where it has one; a choice
    becomes one column a category, and in addition its rank where the choices are numbers. A
    parameter that is not always active has a column that says whether it is, unless another one
    says so already, and is in the middle of its range where it is not. Parameters with the same
    distribution are pooled in further columns.

    Args:
        sample: Candidates that show which parameters there are, and when they are active.

    Attributes:
        distributions: Distributions by name, as first seen.
        columns: What the columns mean.
    """

    def __init__(self, sample: Sequence[Candidate]) -> None:
        seen: dict[str, BaseDistribution] = {}
        active: dict[str, int] = {}
        for candidate in sample:
            for name, distribution in candidate.distributions.items():
                seen.setdefault(name, distribution)
                active[name] = active.get(name, 0) + 1
        self._columns = []
        for name, distribution in seen.items():
            self._columns += _columns(name, distribution)
            if active[name] < len(sample):
                self._columns.append(_Column(name, "active", 1, {}))
        self.distributions: Mapping[str, BaseDistribution] = seen
        groups: list[int] = []
        for group, column in enumerate(self._columns):
            groups += [group] * column.width
        raw = np.array([self._raw(candidate) for candidate in sample]).reshape(
            len(sample), len(groups)
        )
        alike = self._alike(groups)
        self._pooling = Pooling(alike, raw)
        self._kept = _telling(self._pooling.added(raw))
        each = [column.kind in ("number", "order") for column in self._columns]
        curved = np.array([each[group] for group in groups] + [False] * len(alike))
        groups += range(len(self._columns), len(self._columns) + len(alike))
        used = np.asarray(groups, dtype=np.intp)[self._kept]
        self.columns = Columns(
            np.unique(used, return_inverse=True)[1].astype(np.intp), curved[self._kept] > 0
        )

    def encode(self, candidates: Sequence[Candidate]) -> Floats:
        """Rows of candidates, `(n, d)`."""
        rows = np.array([self._raw(candidate) for candidate in candidates])
        return self._pooling.added(rows.reshape(len(candidates), -1))[:, self._kept]

    def _alike(self, groups: Sequence[int]) -> list[list[int]]:
        """Positions of the columns that mean the same of different parameters."""
        first = {group: groups.index(group) for group in groups}
        sets: dict[object, list[int]] = {}
        for group, column in enumerate(self._columns):
            if column.kind != "active":
                sets.setdefault((column.kind, self.distributions[column.name]), []).append(group)
        return [
            [first[group] + offset for group in members]
            for members in sets.values()
            if len(members) >= ALIKE
            for offset in range(self._columns[members[0]].width)
        ]

    def _raw(self, candidate: Candidate) -> list[float]:
        row: list[float] = []
        params = candidate.params
        for column in self._columns:
            name = column.name
            if column.kind == "active":
                row.append(1.0 if name in params else 0.0)
            elif name not in params:
                row += [_MIDDLE] if column.kind == "number" else column.values[_INACTIVE]
            elif column.kind == "number":
                row.append(position_of(self.distributions[name], params[name]))
            else:
                row += column.values.get(plain(params[name]), column.values[_INACTIVE])
        return row


def _columns(name: str, distribution: BaseDistribution) -> list[_Column]:
    if not isinstance(distribution, CategoricalDistribution):
        return [_Column(name, "number", 1, {})]
    choices = [plain(choice) for choice in distribution.choices]
    if len(choices) == 2:
        values = {choices[0]: [0.0], choices[1]: [1.0], _INACTIVE: [_MIDDLE]}
        return [_Column(name, "choice", 1, values)]
    # Two different choices are at distance 1.
    side = math.sqrt(0.5)
    units = {
        choice: [side * (i == j) for j in range(len(choices))] for i, choice in enumerate(choices)
    }
    units[_INACTIVE] = [0.0] * len(choices)
    columns = [_Column(name, "choice", len(choices), units)]
    if all(isinstance(c, int | float) and not isinstance(c, bool) for c in choices):
        ordered = sorted(choices)
        ranks = {c: [ordered.index(c) / max(1, len(choices) - 1)] for c in choices}
        columns.append(_Column(name, "order", 1, {**ranks, _INACTIVE: [_MIDDLE]}))
    return columns


def _telling(rows: Floats) -> Ints:
    """Columns that are not constant, nor equal or opposite to one before."""
    kept: list[int] = []
    seen: set[bytes] = set()
    for index in range(rows.shape[1]):
        column = np.ascontiguousarray(np.round(rows[:, index], 9)) + 0.0
        if np.ptp(column) == 0.0:
            continue
        opposite = np.round(column.min() + column.max() - column, 9) + 0.0
        if column.tobytes() in seen or opposite.tobytes() in seen:
            continue
        seen.add(column.tobytes())
        kept.append(index)
    return np.asarray(kept, dtype=np.intp)
