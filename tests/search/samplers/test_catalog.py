"""What is particular to each sampler of the catalog."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import optuna
import pytest
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import TrialState, create_trial

from parefront.errors import UsageError
from parefront.search.samplers import gp as gp_module
from parefront.search.samplers.catalog import SAMPLERS
from parefront.search.samplers.nsga2 import POPULATION, nsga2
from parefront.search.samplers.nsga3 import nsga3
from parefront.search.samplers.qmc import qmc
from parefront.search.samplers.tpe import tpe


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class _Conformance(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    """Optuna's own suite for samplers."""


@pytest.mark.filterwarnings("ignore:Inconsistent parameter values:RuntimeWarning")
class TestQMC(_Conformance, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], optuna.samplers.BaseSampler]:
        return lambda: qmc(0)


@pytest.mark.filterwarnings("ignore:Inconsistent parameter values:RuntimeWarning")
class TestTPE(_Conformance):
    @pytest.fixture
    def sampler(self) -> Callable[[], optuna.samplers.BaseSampler]:
        return lambda: tpe(0)


@pytest.mark.filterwarnings("ignore:Inconsistent parameter values:RuntimeWarning")
class TestNSGA2(_Conformance):
    @pytest.fixture
    def sampler(self) -> Callable[[], optuna.samplers.BaseSampler]:
        return lambda: nsga2(0)


@pytest.mark.filterwarnings("ignore:Inconsistent parameter values:RuntimeWarning")
class TestNSGA3(_Conformance):
    @pytest.fixture
    def sampler(self) -> Callable[[], optuna.samplers.BaseSampler]:
        return lambda: nsga3(0)


FLOAT = optuna.distributions.FloatDistribution(0.0, 1.0)
MANY = optuna.distributions.CategoricalDistribution(tuple(range(1000)))


def study_of(rows: Sequence[tuple[dict[str, Any], Sequence[float]]]) -> optuna.Study:
    """A study of complete trials whose parameters are a float or one of many choices."""
    study = optuna.create_study(directions=["minimize", "minimize"])
    for params, values in rows:
        distributions: dict[str, optuna.distributions.BaseDistribution] = {
            name: FLOAT if isinstance(value, float) else MANY for name, value in params.items()
        }
        trial = create_trial(params=params, distributions=distributions, values=values)
        study.add_trial(trial)
    return study


def draw_many(trial: optuna.Trial) -> dict[str, Any]:
    for index in range(6):
        trial.suggest_categorical(f"c{index}", MANY.choices)
    return trial.params


@pytest.mark.parametrize("make", [nsga2, nsga3])
def test_genetic_samplers_breed_from_the_best_trials_whoever_drew_them(
    make: Callable[[int], optuna.samplers.BaseSampler],
) -> None:
    def row(gene: int, loss: float) -> tuple[dict[str, Any], list[float]]:
        return {f"c{i}": gene for i in range(6)}, [loss, 10.0 - loss]

    # The front holds genes 0 to 19, all others are dominated.
    rows = [row(gene, gene / 2) for gene in range(POPULATION)]
    rows += [(row(500 + i, 0.0)[0], [20.0, 20.0]) for i in range(POPULATION)]
    study = study_of(rows)
    genes = []
    for seed in range(12):
        study.sampler = make(seed)
        trial = study.ask()
        genes += list(draw_many(trial).values())
        study.tell(trial, state=TrialState.FAIL)
    # One gene in six mutates, to one of a thousand values.
    assert sum(gene < POPULATION for gene in genes) > 0.7 * len(genes)


@pytest.mark.parametrize("make", [nsga2, nsga3])
def test_genetic_samplers_are_random_until_a_population_is_there(
    make: Callable[[int], optuna.samplers.BaseSampler],
) -> None:
    rows = [({f"c{i}": 3 for i in range(6)}, [1.0, 2.0])] * (POPULATION - 1)
    study = study_of(rows)
    study.sampler = make(0)
    assert 3 not in draw_many(study.ask()).values()
    study = study_of([*rows, rows[0]])
    study.sampler = make(0)
    assert 3 in draw_many(study.ask()).values()


def test_qmc_is_more_even_than_random() -> None:
    def shares(name: str) -> list[list[float]]:
        kind = SAMPLERS[name]
        study = study_of([({"x": 0.5, "y": 0.5, "z": 0.5}, [0.0, 0.0])])
        points = []
        for number in range(1, 64):
            study.sampler = kind.make(5 if kind.sequence else number)
            trial = study.ask()
            points.append([trial.suggest_float(each, 0.0, 1.0) for each in "xyz"])
            study.tell(trial, [0.0, 0.0])
        return points

    def strata(points: list[list[float]], axis: int) -> int:
        return len({math.floor(64 * point[axis]) for point in points})

    # Of a scrambled Sobol' sequence no two of the first 64 points share a 64th of any axis.
    assert [strata(shares("qmc"), axis) for axis in range(3)] == [63, 63, 63]
    assert max(strata(shares("random"), axis) for axis in range(3)) < 50


def test_qmc_gives_every_choice_the_same_share() -> None:
    study = optuna.create_study(directions=["minimize"], sampler=qmc(1))
    kinds = optuna.distributions.CategoricalDistribution(("a", "b", "c", "d"))
    steps = optuna.distributions.IntDistribution(0, 60, step=20)
    study.add_trial(
        create_trial(
            params={"kind": "a", "steps": 0},
            distributions={"kind": kinds, "steps": steps},
            values=[0.0],
        )
    )
    drawn = []
    for _ in range(1, 64):
        trial = study.ask()
        drawn.append(
            (
                trial.suggest_categorical("kind", kinds.choices),
                trial.suggest_int("steps", 0, 60, step=20),
            )
        )
        study.tell(trial, 0.0)
    for axis in range(2):
        counts = sorted(
            [each[axis] for each in drawn].count(value) for value in {d[axis] for d in drawn}
        )
        assert counts == [15, 16, 16, 16]


def test_gp_without_scipy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gp_module, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"sampler 'gp' needs SciPy.*pip install 'parefront\[gp\]'"
    ):
        SAMPLERS["gp"].make(0)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_study_without_scipy_can_use_all_others(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "gp":
        pytest.skip("needs SciPy")
    for module in [each for each in sys.modules if each.partition(".")[0] == "scipy"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "scipy", None)
    study = study_of([({"x": i / 30, "y": 0.5}, [i / 1.0, -i / 1.0]) for i in range(30)])
    study.sampler = SAMPLERS[name].make(0)
    trial = study.ask()
    assert 0.0 <= trial.suggest_float("x", 0.0, 1.0) <= 1.0
