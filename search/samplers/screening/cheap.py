"""What is known of a candidate without trying it: what is computed, and what is looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parefront.errors import TrialError
from parefront.search.samplers.screening.candidates import Candidate, Key
from parefront.search.samplers.screening.observations import Losses

Look = Callable[[Mapping[str, Any]], Mapping[int | str, float]]
"""Values of objectives by index, and of constraints by name, for parameters."""
Cost = Callable[[Mapping[str, Any]], float]
"""Seconds that a trial of parameters takes."""

_MOST = 50_000
"""Answers kept."""


@dataclass(frozen=True)
class Facts:
    """What is known of one candidate.

    Attributes:
        losses: Objectives by index, turned so that smaller is better.
        constraints: Constraints by name; up to 0 is feasible.
        cost: Seconds a trial takes, or 1.
        usable: Whether it can be tried.
        whole: Whether its parameters go together, as far as is known.
    """

    losses: Mapping[int, float] = field(default_factory=dict)
    constraints: Mapping[str, float] = field(default_factory=dict)
    cost: float = 1.0
    usable: bool = True
    whole: bool = True

    @property
    def feasible(self) -> bool:
        """Whether the constraints hold that are known."""
        return all(value <= 0.0 for value in self.constraints.values())


_NOT_WHOLE = Facts(usable=False, whole=False)


def facts_of(
    values: Mapping[int | str, float], losses: Losses, cost: float = 1.0, name: str = "cheap"
) -> Facts:
    """What an answer says of a candidate, which is not usable if a value is NaN.

    Args:
        values: Objectives by index and constraints by name.
        losses: How objectives are turned.
        cost: Seconds a trial takes.
        name: What gave the answer, for errors.

    Raises:
        ValueError: If there is no such objective, or the cost is not positive.
    """
    known: dict[int, float] = {}
    constraints: dict[str, float] = {}
    usable = not any(np.isnan(value) for value in values.values())
    for key, value in values.items():
        if isinstance(key, str):
            constraints[key] = float(value)
        elif not 0 <= key < losses.count:
            raise ValueError(
                f"expected `{name}` to name objectives 0 to {losses.count - 1}, or constraints by "
                f"text, got {key!r}"
            )
        elif usable:
            known[key] = losses.of(key, float(value))
    if not cost > 0.0:
        raise ValueError(f"expected a cost above 0, got {cost}")
    return Facts(known, constraints, cost, usable)


class Screen:
    """Computes what is cheap to know of candidates, once each.

    Args:
        cheap: Values of cheap objectives and constraints, or `None` if there are none.
        cost: Seconds a trial takes, or `None` if all take as long.
        losses: How objectives are turned.
        batched: Whether `cheap` takes a list of parameters and returns a list.
        strict: Whether candidates always have the parameters that go together. If not, a
            `KeyError` means that they do not; the candidate is then not whole.
    """

    def __init__(
        self,
        cheap: Callable[..., Any] | None,
        cost: Cost | None,
        losses: Losses,
        *,
        batched: bool,
        strict: bool,
    ) -> None:
        self._cheap, self._cost, self._losses = cheap, cost, losses
        self._batched, self._strict = batched, strict
        self._known: dict[Key, Facts] = {}
        self._answered = False

    def facts(self, candidates: Sequence[Candidate]) -> list[Facts]:
        """What is known of candidates of the space.

        Raises:
            KeyError: If the functions raise it, and the space is given, or nothing was ever known.
            ValueError: If the functions return something that cannot be used.
        """
        return self._facts(candidates, forgiving=False)

    def facts_if_whole(self, candidates: Sequence[Candidate]) -> list[Facts]:
        """The same for candidates from elsewhere, which may lack parameters."""
        return self._facts(candidates, forgiving=True)

    def _facts(self, candidates: Sequence[Candidate], *, forgiving: bool) -> list[Facts]:
        new = list({c.key: c for c in candidates if c.key not in self._known}.values())
        if new:
            answers = self._ask(new, forgiving=forgiving)
            self._known.update(zip([each.key for each in new], answers, strict=True))
        facts = [self._known[candidate.key] for candidate in candidates]
        while len(self._known) > _MOST:
            del self._known[next(iter(self._known))]
        return facts

    def _ask(self, candidates: Sequence[Candidate], *, forgiving: bool) -> list[Facts]:
        try:
            facts = self._answers(candidates)
        except KeyError:
            if self._strict and not forgiving:
                raise
            facts = []
            for candidate in candidates:
                try:
                    facts += self._answers([candidate])
                except KeyError as error:
                    facts.append(_NOT_WHOLE)
                    failure = error
            none = not any(each.whole for each in facts)
            if none and not self._answered and not forgiving:
                raise failure from None
        self._answered = self._answered or any(each.whole for each in facts)
        return facts

    def _answers(self, candidates: Sequence[Candidate]) -> list[Facts]:
        params = [dict(candidate.params) for candidate in candidates]
        if self._cheap is None:
            answers: Sequence[Mapping[int | str, float]] = [{}] * len(params)
        elif self._batched:
            answers = list(self._cheap(params))
        else:
            answers = [self._cheap(each) for each in params]
        if len(answers) != len(params):
            raise ValueError(
                f"expected one answer of `cheap` for each of {len(params)} candidates, "
                f"got {len(answers)}"
            )
        costs = [1.0 if self._cost is None else float(self._cost(each)) for each in params]
        return [
            facts_of(answer, self._losses, cost)
            for answer, cost in zip(answers, costs, strict=True)
        ]


class Looks:
    """Looks at single candidates, once each: exact, but not free.

    Args:
        look: Values of objectives and constraints.
        losses: How objectives are turned.
        strict: Whether candidates always have the parameters that go together. If not, one for
            which a `KeyError` is raised is not usable.
    """

    def __init__(self, look: Look, losses: Losses, *, strict: bool) -> None:
        self._look, self._losses = look, losses
        self._no: tuple[type[Exception], ...] = (TrialError,) if strict else (TrialError, KeyError)
        self._known: dict[Key, Facts] = {}

    def facts(self, candidate: Candidate) -> Facts:
        """What is seen of a candidate; not usable if it cannot be looked at.

        Raises:
            ValueError: If the function returns something that cannot be used.
        """
        if candidate.key not in self._known:
            try:
                seen = self._look(dict(candidate.params))
            except self._no:
                self._known[candidate.key] = Facts(usable=False)
            else:
                self._known[candidate.key] = facts_of(seen, self._losses, name="look")
        return self._known[candidate.key]
