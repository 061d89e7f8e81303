"""What every sampler of the catalog does through the guide."""

from __future__ import annotations

import random
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from parefront.search.guide import Drawn
from parefront.search.optuna_guide import OptunaGuide
from parefront.search.records import Status
from parefront.search.samplers.catalog import SAMPLERS
from parefront.search.samplers.kind import SamplerKind
from parefront.spaces.ranges import Choice, FloatRange
from parefront.spaces.space import Candidate, Space
from tests.search import fakes
from tests.search.samplers.told import DIRECTIONS, entry, mixed, random_candidates

ALL = list(SAMPLERS)
SLOW_GP = [pytest.param(name, marks=pytest.mark.slow if name == "gp" else ()) for name in ALL]
"""Once it has a model, it takes seconds a draw."""
BLIND = ("random", "qmc")


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture(scope="module")
def space() -> Space:
    return fakes.space()


def guide(space: Space, name: str, seed: int = 0) -> OptunaGuide:
    return OptunaGuide(space, name, DIRECTIONS, seed)


def assert_of(space: Space, drawn: Drawn) -> None:
    """What was drawn is a candidate of the space, with the parameters that make it."""
    assert space.candidate(drawn.candidate.as_dict()) == drawn.candidate
    again = Drawn.of(drawn.candidate, space)
    assert again.parameters == drawn.parameters
    assert again.distributions == drawn.distributions
    assert set(drawn.parameters) == set(drawn.distributions)


@pytest.mark.parametrize("name", ALL)
def test_what_it_draws_before_any_trial_is_of_the_space(space: Space, name: str) -> None:
    drawn = [guide(space, name).draw(0, attempt, []) for attempt in range(4)]
    for each in drawn:
        assert_of(space, each)
    assert len({each.candidate for each in drawn}) > 1


@pytest.mark.parametrize("name", SLOW_GP)
def test_what_it_draws_after_trials_of_every_fate_is_of_the_space(space: Space, name: str) -> None:
    under_test = guide(space, name)
    for told in mixed(space, 32):
        under_test.tell(told)
    drawn = [under_test.draw(32, attempt, []) for attempt in range(2)]
    for each in drawn:
        assert_of(space, each)
        assert each.system_attrs == {}
    assert drawn[0].candidate != drawn[1].candidate


@pytest.mark.parametrize("name", ALL)
def test_trials_that_told_nothing_are_no_obstacle(space: Space, name: str) -> None:
    fates = (Status.FAILED, Status.GATED, Status.INFEASIBLE)
    under_test = guide(space, name)
    for number, candidate in enumerate(random_candidates(space, 27)):
        under_test.tell(entry(space, number, candidate, status=fates[number % 3], violation=0.5))
    assert_of(space, under_test.draw(27, 0, []))


@pytest.mark.parametrize("name", SLOW_GP)
def test_it_draws_beside_trials_under_way(space: Space, name: str) -> None:
    under_test = guide(space, name)
    for each in mixed(space, 32):
        under_test.tell(each)
    candidates = [Candidate(), *random_candidates(space, 3, seed=7)]
    running = [Drawn.of(each, space) for each in candidates]
    assert_of(space, under_test.draw(32, 0, running))


@pytest.mark.parametrize("name", ALL)
def test_draws_depend_on_seed_index_and_attempt_alone(space: Space, name: str) -> None:
    one, other, elsewhere = (guide(space, name, seed) for seed in (3, 3, 4))
    for each in mixed(space, 16):
        one.tell(each)
        other.tell(each)
        elsewhere.tell(each)
    draws = [(index, attempt) for index in (16, 17) for attempt in range(4)]
    drawn = {at: one.draw(*at, []) for at in draws}
    assert {at: other.draw(*at, []) for at in reversed(draws)} == drawn
    assert len({each.candidate for each in drawn.values()}) > 1
    assert {at: elsewhere.draw(*at, []) for at in draws} != drawn


@pytest.mark.parametrize("name", SLOW_GP)
def test_a_study_that_was_interrupted_goes_on_as_if_it_had_not_been(
    space: Space, name: str
) -> None:
    steps = range(21, 23) if name == "gp" else range(2, 40)
    start = mixed(space, steps.start)

    def ran(until: int) -> tuple[OptunaGuide, list[Drawn]]:
        whole = guide(space, name)
        for each in start:
            whole.tell(each)
        made = []
        for number in range(steps.start, until):
            drawn = whole.draw(number, 0, [])
            made.append(drawn)
            whole.tell(entry(space, number, drawn.candidate, violation=-0.5))
        return whole, made

    whole, made = ran(steps.stop)
    resumed = guide(space, name)
    known = [
        entry(space, number, drawn.candidate, violation=-0.5)
        for number, drawn in zip(steps, made, strict=True)
    ]
    known += start
    random.Random(0).shuffle(known)
    for each in known:
        resumed.tell(each)
    assert resumed.draw(steps.stop, 0, []) == whole.draw(steps.stop, 0, [])


@pytest.mark.parametrize("name", [each for each in SLOW_GP if each.values[0] not in BLIND])
def test_it_learns_where_the_good_candidates_are(space: Space, name: str) -> None:
    def quality(candidate: Candidate) -> float:
        width = dict(candidate.configs).get("width")
        return -1.0 if width is None else -abs(getattr(width, "ratio") - 0.8)  # noqa: B009

    under_test, yardstick = guide(space, name), guide(space, "random")
    for number, candidate in enumerate(random_candidates(space, 40)):
        value = quality(candidate)
        under_test.tell(entry(space, number, candidate, values=[value, -value, 1.0]))
    count = 3 if name == "gp" else 30
    drawn = [quality(under_test.draw(40, attempt, []).candidate) for attempt in range(count)]
    blind = [quality(yardstick.draw(40, attempt, []).candidate) for attempt in range(30)]
    assert sum(drawn) / count > sum(blind) / 30 + 0.2


class Spy(optuna.samplers.RandomSampler):
    """Notes the trials it was shown."""

    seen: list[FrozenTrial]
    seeds: list[int]
    numbers: list[int]

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        Spy.seeds.append(seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        Spy.seen = study.get_trials(deepcopy=False)
        Spy.numbers.append(trial.number)
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> type[Spy]:
    Spy.seen, Spy.seeds, Spy.numbers = [], [], []
    monkeypatch.setitem(SAMPLERS, "spy", SamplerKind(Spy, most_trials=12))
    monkeypatch.setitem(SAMPLERS, "sequel", SamplerKind(Spy, most_trials=12, sequence=True))
    return Spy


def test_a_sampler_sees_all_parameters_of_every_trial(space: Space, spy: type[Spy]) -> None:
    under_test = guide(space, "spy")
    anchors = space.anchors()
    for number, candidate in enumerate(anchors):
        under_test.tell(entry(space, number, candidate))
    under_test.draw(len(anchors), 0, [])
    *told, asked = spy.seen
    assert [trial.number for trial in told] == list(range(len(anchors)))
    assert asked.state == TrialState.RUNNING
    names = {"width", "width.ratio", "width.kind", "repair", "repair.steps"}
    for trial, candidate in zip(told, anchors, strict=True):
        assert set(trial.params) == set(trial.distributions) == names
        own = Drawn.of(candidate, space).parameters
        assert {name: trial.params[name] for name in own} == own
    # Where a stage is off, the parameters of its first anchor stand in.
    assert told[0].params == {
        "width": False,
        "width.ratio": 0.5,
        "width.kind": "b",
        "repair": False,
        "repair.steps": 1.5,
    }


def test_a_sampler_sees_a_parameter_that_no_anchor_has(spy: type[Spy]) -> None:
    class Shy(fakes.Width):
        """Has a kind only where little is cut."""

        def draw(self, trial: optuna.trial.BaseTrial, earlier: Any) -> fakes.WidthConfig:
            ratio = self.choices.ratio.suggest(trial, "width.ratio")
            kind = self.choices.kind.suggest(trial, "width.kind") if ratio < 0.1 else "b"
            return fakes.WidthConfig(ratio=ratio, kind=kind)

    space = Space([Shy(fakes.WidthChoices(), fakes.TRAITS)])
    under_test = guide(space, "spy")
    under_test.tell(entry(space, 0, Candidate()))
    under_test.draw(1, 0, [])
    assert spy.seen[0].params["width.kind"] == "a"


def test_a_sampler_sees_no_failed_trial_and_those_under_way(space: Space, spy: type[Spy]) -> None:
    under_test = guide(space, "spy")
    one, two, three = random_candidates(space, 3)
    under_test.tell(entry(space, 0, one))
    under_test.tell(entry(space, 1, two, status=Status.FAILED))
    under_test.draw(2, 0, [Drawn.of(three, space)])
    told, under_way, _ = spy.seen
    assert told.number == 0
    assert under_way.state == TrialState.RUNNING
    expected = Drawn.of(three, space).parameters
    assert {name: under_way.params[name] for name in expected} == expected


def test_a_sampler_sees_a_bounded_number_of_trials_with_their_results(
    space: Space, spy: type[Spy]
) -> None:
    under_test = guide(space, "spy")
    for number, candidate in enumerate(random_candidates(space, 60)):
        under_test.tell(entry(space, number, candidate, violation=-0.5))
    under_test.draw(60, 0, [])
    *told, _ = spy.seen
    assert len(told) == 12
    for trial in told:
        assert trial.values is not None
        assert trial.constraints == {"size": -0.5}


def test_every_draw_has_a_seed_of_its_own_unless_all_are_of_one_sequence(
    space: Space, spy: type[Spy]
) -> None:
    draws = [(5, 0), (5, 1), (6, 0)]
    each_its_own = guide(space, "spy", seed=9)
    spy.seeds.clear()
    for index, attempt in draws:
        each_its_own.draw(index, attempt, [])
    assert len(set(spy.seeds)) == 3
    sequel = guide(space, "sequel", seed=9)
    spy.seeds.clear()
    spy.numbers.clear()
    for index, attempt in draws:
        sequel.draw(index, attempt, [])
    assert spy.seeds == [9, 9, 9]
    assert len(set(spy.numbers)) == 3
    assert spy.numbers[2] == spy.numbers[0] + 1


def test_fixed_values_are_no_parameters(spy: type[Spy]) -> None:
    fixed = fakes.WidthChoices(
        ratio=FloatRange(low=0.5, high=0.5), kind=Choice[str](options=("a",))
    )
    space = fakes.space(width=fixed)
    under_test = guide(space, "spy")
    under_test.tell(entry(space, 0, space.anchors()[1]))
    drawn = under_test.draw(1, 0, [Drawn.of(space.anchors()[1], space)])
    assert_of(space, drawn)
    assert set(spy.seen[0].params) == {"width", "repair", "repair.steps"}
