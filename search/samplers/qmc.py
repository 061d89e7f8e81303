"""Quasi-random sampling: more even than random, and as blind."""

from __future__ import annotations

from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial

from parefront.search.samplers.joint import JointSpace
from parefront.search.samplers.kind import SamplerKind
from parefront.search.samplers.screening.candidates import generator
from parefront.search.samplers.screening.values import at_position, draw_value


class _Sobol(JointSpace):
    """Draws the points of a scrambled Sobol' sequence (Sobol' 1967; Owen 1998).

    The number of a trial is its place in the sequence. Optuna's own keeps the place in the study,
    where a draw that comes to nothing takes one too, and needs SciPy.

    Args:
        seed: Seed of the scrambling.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def sample_relative(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The point of this trial; every value of a parameter without a scale is as likely."""
        if not search_space:
            return {}
        engine = torch.quasirandom.SobolEngine(  # type: ignore[no-untyped-call]
            len(search_space), scramble=True, seed=self._seed
        )
        engine.fast_forward(trial.number)  # type: ignore[no-untyped-call]
        point = engine.draw(1, dtype=torch.float64)[0].tolist()
        values: dict[str, Any] = {}
        for (name, distribution), share in zip(sorted(search_space.items()), point, strict=True):
            if isinstance(distribution, CategoricalDistribution):
                count = len(distribution.choices)
                values[name] = distribution.choices[min(int(share * count), count - 1)]
            else:
                values[name] = at_position(distribution, share)
        return values

    def sample_independent(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401
        """A random value, for what no trial had before."""
        random = generator(self._seed, "independent", trial.number, param_name)
        return draw_value(param_distribution, random)


def qmc(seed: int) -> optuna.samplers.BaseSampler:
    """A Sobol' sequence.

    Args:
        seed: Seed of its scrambling, the same for all trials of a study.
    """
    return _Sobol(seed)


QMC = SamplerKind(qmc, most_trials=1, sequence=True)
