"""How many candidates and parameters a space has, against drawing them all."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from parefront.search.samplers.space_size import (
    all_parameters,
    count_candidates,
    count_parameters,
    every_candidate,
)
from parefront.spaces.ranges import Choice, FloatRange
from parefront.spaces.space import Space
from parefront.spaces.stage import Applied, Form, Stage, StageChoices, StageConfig, StageContext
from tests.search import fakes

Draw = Callable[[optuna.trial.BaseTrial], Mapping[str, Any]]


class FreeConfig(StageConfig):
    values: dict[str, Any]


def free(name: str, draw: Draw) -> Space:
    """A space of one stage that is always on and draws what it is told to."""

    class Free(Stage[FreeConfig, nn.Module]):
        form = Form.MODULE
        choices_type = StageChoices
        config_type = FreeConfig

        def nothing_to_do(self, model: nn.Module, context: StageContext) -> str | None:
            return None

        def draw(
            self, trial: optuna.trial.BaseTrial, earlier: Mapping[str, StageConfig]
        ) -> FreeConfig:
            return FreeConfig(values=dict(draw(trial)))

        def anchors(self) -> Sequence[FreeConfig]:
            return []

        def apply(
            self, model: nn.Module, config: FreeConfig, context: StageContext
        ) -> Applied[nn.Module]:
            return Applied(model)

        def required(self, earlier: Sequence[type[Stage[Any, Any]]]) -> bool:
            return True

    Free.name = name
    return Space([Free(StageChoices(), fakes.TRAITS)])


def enumerated(space: Space) -> set[str]:
    """Ids of all candidates, one by one, by Optuna's exhaustive sampler."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(sampler=optuna.samplers.BruteForceSampler(seed=0))
    found: set[str] = set()

    def objective(trial: optuna.Trial) -> float:
        found.add(space.suggest(trial).id)
        return 0.0

    study.optimize(objective)
    return found


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def conditional(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
    kind = trial.suggest_categorical("kind", ("a", "b", "c"))
    values: dict[str, Any] = {"kind": kind}
    if kind == "a":
        values["depth"] = trial.suggest_int("depth", 2, 8, step=3)
    elif kind == "b":
        values["share"] = trial.suggest_float("share", 0.0, 0.5, step=0.25)
        if values["share"] > 0:
            values["way"] = trial.suggest_categorical("way", (1, 2, 3, 4))
    values["bits"] = trial.suggest_int("bits", 2, 16, log=True)
    return values


def independent(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
    return {
        "a": trial.suggest_int("a", 1, 4),
        "b": trial.suggest_categorical("b", ("x", "y")),
        "c": trial.suggest_float("c", 0.25, 1.0, step=0.25),
        "one": trial.suggest_int("one", 3, 3),
    }


def late(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
    """What follows depends on the last value of the first, and that on more."""
    rows = trial.suggest_int("rows", 0, 3)
    return {
        "rows": rows,
        "row": [trial.suggest_categorical(f"row{i}", (0, 1)) for i in range(rows)],
    }


@pytest.mark.parametrize(("draw", "parameters"), [(conditional, 5), (independent, 3), (late, 4)])
def test_a_finite_space_is_counted_exactly(draw: Draw, parameters: int) -> None:
    space = free("free", draw)
    assert count_candidates(space) == len(enumerated(space))
    assert count_parameters(space) == parameters


def test_stages_that_make_others_necessary_are_counted_exactly() -> None:
    space = fakes.space(
        width=fakes.WidthChoices(ratio=FloatRange(low=0.5, high=0.5)),
        repair=fakes.RepairChoices(steps=FloatRange(low=1.0, high=1.0)),
    )
    # Unchanged, repaired, and each of two widths with the repair it makes necessary.
    assert count_candidates(space) == len(enumerated(space)) == 4
    assert set(all_parameters(space)) == {"width", "width.kind", "repair"}


def test_without_a_choice_there_is_one_candidate_for_each_set_of_stages() -> None:
    space = fakes.space(
        width=fakes.WidthChoices(
            ratio=FloatRange(low=0.5, high=0.5), kind=Choice[str](options=("a",))
        ),
        repair=fakes.RepairChoices(steps=FloatRange(low=1.0, high=1.0)),
    )
    assert count_candidates(space) == 3
    assert count_candidates(Space([])) == 1
    assert count_parameters(Space([])) == 0


def test_a_continuous_parameter_makes_it_infinite_wherever_it_is() -> None:
    assert count_candidates(fakes.space()) == math.inf

    def hidden(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        if trial.suggest_int("depth", 1, 9) == 9:
            return {"x": trial.suggest_float("x", 0.0, 1.0)}
        return {}

    assert count_candidates(free("free", hidden)) == math.inf


def test_parameters_behind_a_continuous_one_are_found() -> None:
    def behind(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        weight = trial.suggest_float("weight", 0.0, 1.0)
        return {"heat": trial.suggest_float("heat", 1.0, 9.0) if weight > 0 else weight}

    assert set(all_parameters(free("free", behind))) == {"weight", "heat"}


def test_a_space_too_large_to_draw_is_counted() -> None:
    def wide(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        values = {f"c{i}": trial.suggest_categorical(f"c{i}", ("x", "y", "z")) for i in range(20)}
        return {**values, "steps": trial.suggest_int("steps", 1, 1000)}

    assert count_candidates(free("free", wide)) == 3.0**20 * 1000


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=4))
def test_any_chain_of_choices_is_counted_exactly(chain: list[tuple[int, bool]]) -> None:
    """Each choice has some options, and may end the chain at its first one."""

    def draw(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        values = {}
        for position, (options, ends) in enumerate(chain):
            name = f"c{position}"
            values[name] = trial.suggest_categorical(name, tuple(range(options)))
            if ends and values[name] == 0:
                break
        return values

    def exact(position: int) -> int:
        if position == len(chain):
            return 1
        options, ends = chain[position]
        after = exact(position + 1)
        return (options - ends) * after + ends

    assert count_candidates(free("free", draw)) == exact(0)


@pytest.mark.parametrize("draw", [conditional, independent, late])
def test_every_candidate_is_listed_once(draw: Draw) -> None:
    space = free("free", draw)
    listed = [candidate.id for candidate in every_candidate(space)]
    assert len(listed) == len(set(listed))
    assert set(listed) == enumerated(space)


def test_a_number_of_many_values_is_listed_whole() -> None:
    space = free("free", lambda trial: {"n": trial.suggest_int("n", 0, 99)})
    assert len({candidate.id for candidate in every_candidate(space)}) == 100


def test_candidates_of_a_continuous_space_cannot_be_listed() -> None:
    with pytest.raises(ValueError, match=r"all candidates can be listed.*'width\.ratio'"):
        list(every_candidate(fakes.space()))
