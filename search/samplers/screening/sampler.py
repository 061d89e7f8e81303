"""An Optuna sampler that looks at what is cheap before it tries what is dear."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from threading import RLock
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from parefront.search.samplers.screening.candidates import Candidate, generator
from parefront.search.samplers.screening.cheap import Cost, Look
from parefront.search.samplers.screening.observations import Told
from parefront.search.samplers.screening.outlook import Outlook, outlook_of, rest_of
from parefront.search.samplers.screening.ranking import Ranking
from parefront.search.samplers.screening.state import Knowledge, Space, State
from parefront.search.samplers.screening.values import draw_value


class ScreeningSampler(optuna.samplers.BaseSampler):
    """Draws many candidates, looks up what is cheap to know of them, and tries the most promising.

    Objectives come from three tiers. What is computed (`cheap`), such as the size of a model that
    was not trained yet, is known of every candidate. What is measured (`look`), such as latency,
    costs something, and is known of a shortlist. All else, and what was not measured yet, is
    predicted by Gaussian processes from what the trials told. The candidate with the largest
    expected gain in hypervolume, over its cost if that is known, is tried next. This is decoupled
    multi-objective Bayesian optimisation (Hernandez-Lobato et al. 2016; Daulton et al. 2023).
    Without cheap objectives all are predicted.

    No candidate is proposed twice until there is no other. The same trials and seed lead to the
    same candidate, whether the sampler made the earlier ones or not. Trials that run count as if
    they had ended as predicted. Constraints (`trial.set_constraint`) are known if `cheap` or `look`
    gives them, and predicted otherwise.

    A trial may tell more than its values, or less: what its user attribute `PARTIAL_KEY` lists,
    each entry as by `observed`, is learnt from as well. So a trial that was pruned tells the
    objectives that it has, and one that trains tells its accuracy halfway, at fidelity 0.5.

    Args:
        cheap: For parameters, the values of the objectives that are cheap by their index, and of
            constraints that are cheap by their names; up to 0 is feasible. Asked once a candidate.
            A candidate with a NaN among them is not tried. Values may be a little wrong.
        space: Suggests the parameters of a candidate, as the objective does; what it returns is
            ignored. It is called with a stand-in for a trial. Without it the space is learnt from
            the trials, of which the first is random, and candidates may lack parameters that go
            together: one for which `cheap`, `look` or `cost` raises `KeyError` is not tried, except
            to learn which parameters there are.
        look: Like `cheap`, for what is exact but not free. Asked of the best candidates only, once
            each. A candidate with a NaN among its values, or for which it raises
            `parefront.errors.TrialError`, is not tried. Its answers choose among the shortlist;
            predictions rest on what trials told alone.
        shortlist: How many of the best candidates are looked at for a proposal.
        cost: For parameters, the seconds that a trial takes.
        earlier: What was seen elsewhere.
        ideas: Parameters of candidates that are compared with those that are drawn, each time.
        held: Values of parameters that the first candidates have in common, where they are active,
            until 36 trials are complete: what is known to do well, so that little is learnt
            by varying it before it is known what the other parameters do.
        log: Objectives in which equal ratios weigh the same; their values are positive.
        best: The best values that objectives can have at all, by index, such as 1 for an accuracy;
            nothing better is hoped for.
        resolution: The least differences of objectives that mean something, by index, such as the
            error of a measurement; of logarithms for those in `log`. Values that differ by only a
            few of them count as near to each other, even if none was seen farther apart.
        seed: Seed of all draws; a random one by default.
        batched: Whether `cheap` takes a list of parameters and returns a list.

    Raises:
        ValueError: If the shortlist is empty.

    Example:
        >>> def cheap(params):
        ...     return {1: params["width"] ** 2}
        >>> sampler = ScreeningSampler(cheap=cheap, seed=0)
        >>> study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    """

    def __init__(
        self,
        *,
        cheap: Callable[..., Any] | None = None,
        space: Space | None = None,
        look: Look | None = None,
        shortlist: int = 3,
        cost: Cost | None = None,
        earlier: Sequence[Told] = (),
        ideas: Sequence[Mapping[str, Any]] = (),
        held: Mapping[str, Any] | None = None,
        log: Collection[int] = (),
        best: Mapping[int, float] | None = None,
        resolution: Mapping[int, float] | None = None,
        seed: int | None = None,
        batched: bool = False,
    ) -> None:
        if shortlist < 1:
            raise ValueError(f"expected a shortlist of at least 1 candidate, got {shortlist}")
        self._knowledge = Knowledge(
            cheap,
            look,
            space,
            cost,
            tuple(log),
            dict(best or {}),
            tuple(earlier),
            tuple(ideas),
            dict(held or {}),
            dict(resolution or {}),
            shortlist,
            batched,
        )
        self._seed = secrets.randbits(32) if seed is None else seed
        self._states: dict[str, State] = {}
        self._lock = RLock()

    def optimistic(
        self,
        study: optuna.Study,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        deviations: float = 3.0,
    ) -> dict[int, float] | None:
        """The best values that a candidate may be hoped to have, of objectives that are predicted.

        Args:
            study: The study.
            params: Parameters of the candidate.
            distributions: Their distributions.
            deviations: By how many predicted standard deviations it may be better than expected.
                Of normal values 84 % are not better with 1, 98 % with 2, 99.9 % with 3.

        Returns:
            Values by objective, in its unit and direction; `None` before there is a model, or if
            what is cheap to know of the candidate is not known.
        """
        with self._lock:
            state = self._updated(study)
            moment = state.proposing.moment(state.history) if state.proposing else None
            if moment is None:
                return None
            candidate = Candidate(dict(params), dict(distributions))
            losses = state.history.losses
            bounds = moment.surrogates.bounds(candidate, deviations)
        if bounds is None:
            return None
        return {objective: losses.back(objective, loss) for objective, loss in bounds.items()}

    def outlook(self, study: optuna.Study) -> Outlook | None:
        """What the next trial is expected to bring; `None` before there is a model."""
        with self._lock:
            ranking = self._ranking(study)
            return None if ranking is None else outlook_of(ranking)

    def rest(self, study: optuna.Study, trials: int) -> float:
        """Hypervolume that further trials are expected to add, as a share of that of the front.

        Args:
            study: The study.
            trials: How many trials there may still be.

        Returns:
            The share; infinite before there is a model.
        """
        with self._lock:
            ranking = self._ranking(study)
            return math.inf if ranking is None else rest_of(ranking, trials)

    def reseed_rng(self) -> None:
        """Takes a new random seed; Optuna calls it in each of several processes."""
        with self._lock:
            self._seed = secrets.randbits(32)
            self._states.clear()

    def infer_relative_search_space(
        self,
        study: optuna.Study,
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """All parameters known so far, active or not, but for those with one value only."""
        with self._lock:
            known = self._updated(study).distributions()
            return {name: each for name, each in sorted(known.items()) if not each.single()}

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The active parameters of the next candidate, as far as they are in the search space."""
        if not search_space or trial.system_attrs.get("fixed_params"):
            return {}
        with self._lock:
            state = self._updated(study, asking=trial.number)
            if state.proposing is None:
                return {}
            candidate = state.proposing.propose(state.history)
            state.pending[trial.number] = candidate
        return {name: value for name, value in candidate.params.items() if name in search_space}

    def sample_independent(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401
        """A random value."""
        random = generator(self._seed, "independent", trial.number, param_name)
        return draw_value(param_distribution, random)

    def __getstate__(self) -> dict[str, Any]:
        """Without what follows from the trials."""
        return {**self.__dict__, "_states": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """With a lock of its own."""
        self.__dict__.update(state)
        self._lock = RLock()

    def _ranking(self, study: optuna.Study) -> Ranking | None:
        state = self._updated(study)
        return state.proposing.ranking(state.history) if state.proposing else None

    def _updated(self, study: optuna.Study, asking: int | None = None) -> State:
        trials = study.get_trials(deepcopy=False)
        state = self._states.get(study.study_name)
        if state is None or not state.continues(trials):
            state = State(study, self._knowledge, self._seed)
            self._states[study.study_name] = state
        state.update(trials, asking)
        return state
