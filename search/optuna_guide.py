"""Draws candidates with the samplers of Optuna."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from parefront.objectives.measurement import Direction
from parefront.search.entry import Entry
from parefront.search.guide import Drawn, optuna_directions
from parefront.search.samplers.catalog import SAMPLERS
from parefront.search.samplers.choice_of_trials import ChoiceOfTrials
from parefront.search.samplers.screening.values import at_position
from parefront.search.samplers.shown import ShownTrials
from parefront.search.samplers.space_size import all_parameters
from parefront.search.seeds import derive_seed
from parefront.spaces.space import Space

_FAR = 1 << 16
"""How far apart in a sequence the attempts at one draw lie: farther than a study is long."""
_SHARED = ":relative_params:"
"""Part of the attributes in which samplers note what they are about to draw."""


class OptunaGuide:
    """Proposes candidates as a sampler of the catalog does; a `Guide`.

    The sampler sees a study in memory. There a stage that is off has the parameters of its first
    anchor, so that all trials share one set of parameters, which a sampler can model jointly and at
    once. Of a long study it sees a choice of the trials, since most samplers look at all of them
    for each draw: the front and what is next to it, the latest, and random ones. Trials that failed
    are not shown; those under way are.

    For each draw there is a new sampler, whose random numbers depend on the seed, the index and the
    attempt alone.

    Args:
        space: The space.
        name: Name of the sampler in the catalog.
        directions: Directions of the objectives, in the order of the study's values.
        seed: The study's seed.
    """

    def __init__(self, space: Space, name: str, directions: Sequence[Direction], seed: int) -> None:
        self._space = space
        self._kind = SAMPLERS[name]
        self._directions = optuna_directions(directions)
        self._seed = seed
        self._told = ChoiceOfTrials(self._directions, seed)
        self._parameters, self._distributions = _filling(space)
        self._shown: dict[int, FrozenTrial] = {}
        self._up_to_date = True
        self._over: list[int] = []
        self._kind.make(seed)  # Now is the time to say that a package is missing.

    def tell(self, entry: Entry) -> None:
        """Takes in a trial that is over and counts; each is told once, whatever became of it."""
        insort(self._over, entry.trial.number)
        if entry.trial.state != TrialState.FAIL:
            self._told.add(entry.trial)
        self._up_to_date = False

    def draw(self, index: int, attempt: int, running: Sequence[Drawn]) -> Drawn:
        """Draws a candidate, which may be known already.

        Args:
            index: How many trials are over.
            attempt: How many draws of this index were known already.
            running: Candidates of the trials under way.
        """
        seed = self._seed if self._kind.sequence else derive_seed(self._seed, "ask", index, attempt)
        storage = ShownTrials(
            [*self._chosen(), *(self._under_way(i, each) for i, each in enumerate(running))],
            number=index + attempt * _FAR,
        )
        study = optuna.create_study(
            storage=storage, sampler=self._kind.make(seed), directions=self._directions
        )
        candidate = self._space.suggest(study.ask())
        asked = study.get_trials(deepcopy=False)[-1]
        attributes = {k: value for k, value in asked.system_attrs.items() if _SHARED not in k}
        return Drawn(candidate, asked.params, asked.distributions, attributes)

    def _chosen(self) -> list[FrozenTrial]:
        if not self._up_to_date:
            chosen = self._told.choose(self._kind.most_trials)
            self._shown = {
                trial.number: self._shown.get(trial.number) or self._filled(trial)
                for trial in chosen
            }
            for number, shown in self._shown.items():
                # Trials that died and are tried again have numbers too, which must not matter.
                shown.number = bisect_left(self._over, number)
            self._up_to_date = True
        return list(self._shown.values())

    def _filled(self, trial: FrozenTrial) -> FrozenTrial:
        return FrozenTrial(
            number=trial.number,
            trial_id=1 + trial.number,
            state=trial.state,
            value=None,
            values=trial.values,
            datetime_start=trial.datetime_start,
            datetime_complete=trial.datetime_complete,
            params=self._parameters | trial.params,
            distributions=self._distributions | trial.distributions,
            user_attrs={},
            system_attrs=trial.system_attrs,
            intermediate_values={},
        )

    def _under_way(self, position: int, drawn: Drawn) -> FrozenTrial:
        return FrozenTrial(
            number=-1 - position,
            trial_id=-1 - position,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=None,
            datetime_complete=None,
            params={**self._parameters, **drawn.parameters},
            distributions={**self._distributions, **drawn.distributions},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )


def _filling(space: Space) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """A value for each parameter, and its distribution.

    They are those of the anchor with the most stages that has the parameter; the first choice or
    the middle where none has it.
    """
    parameters: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    for anchor in sorted(space.anchors(), key=lambda anchor: -len(anchor.configs)):
        drawn = Drawn.of(anchor, space)
        parameters = {**drawn.parameters, **parameters}
        distributions = {**drawn.distributions, **distributions}
    for name, distribution in all_parameters(space).items():
        if name not in parameters:
            distributions[name] = distribution
            parameters[name] = (
                distribution.choices[0]
                if isinstance(distribution, CategoricalDistribution)
                else at_position(distribution, 0.5)
            )
    return parameters, distributions
