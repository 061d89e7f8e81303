"""A user's own candidates, and any candidate, in another space."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from parefront.errors import StudyFileError
from parefront.search.samplers.screening.drawn_space import DrawnSpace
from parefront.search.warm_start import Observation, drawn, own_candidates
from parefront.spaces.ranges import Choice, FloatRange
from parefront.spaces.space import Candidate, Space
from parefront.spaces.stage import StageConfig
from tests.search.fakes import (
    TRAITS,
    Repair,
    RepairChoices,
    RepairConfig,
    Width,
    WidthChoices,
    WidthConfig,
    space,
)

REAL = Space.of(
    {
        "prune": {"ratio": [0.1, 0.6], "scope": "uniform"},
        "recover": {"epochs": [1, 4], "soft_weight": [0.0, 0.9], "learning_rate": 0.004},
        "quantize": {"calibration": "minmax"},
    },
    TRAITS,
)
RECOVER = {"epochs": 3, "soft_weight": 0.7, "temperature": 4.0}
PRUNE = {"ratio": 0.5, "importance": "l2"}
DYNAMIC = {"method": "dynamic", "per_channel": True}


def any_candidate(of: Space, seed: int) -> Candidate:
    found: list[Candidate] = []
    DrawnSpace(lambda trial: found.append(of.suggest(trial))).draw(Random(seed), {})
    return found[0]


def test_what_a_space_leaves_no_choice_for_is_filled_in() -> None:
    (candidate,) = own_candidates([{"prune": PRUNE, "recover": RECOVER}], REAL)
    assert candidate.as_dict() == {
        "prune": PRUNE | {"scope": "uniform", "multiple": 8},
        "recover": RECOVER
        | {"learning_rate": 0.004, "batch_size": 64, "soft_loss": "kl", "smoothing": 0.0}
        | {"features": "none", "feature_weight": None, "optimizer": "adam", "average": 0.0}
        | {"schedule": "one_cycle", "patience": 0, "mutual": False},
    }


class OneKind(Width):
    """Draws its kind from a single choice, as a parameter."""

    def draw(
        self, trial: optuna.trial.BaseTrial, earlier: Mapping[str, StageConfig]
    ) -> WidthConfig:
        return WidthConfig(
            ratio=trial.suggest_float("width.ratio", 0.25, 0.75),
            kind=trial.suggest_categorical("width.kind", ["b"]),
        )


def test_a_parameter_with_one_value_is_filled_in() -> None:
    (candidate,) = own_candidates(
        [{"width": {"ratio": 0.5}}], Space([OneKind(WidthChoices(), TRAITS)])
    )
    assert candidate.as_dict() == {"width": {"ratio": 0.5, "kind": "b"}}


class AsWide(Repair):
    """Draws from a range that depends on a stage before it."""

    def draw(
        self, trial: optuna.trial.BaseTrial, earlier: Mapping[str, StageConfig]
    ) -> RepairConfig:
        ratio = earlier["width"].model_dump()["ratio"]
        return RepairConfig(steps=trial.suggest_float("repair.steps", 10 * ratio, 10 * ratio + 1))


def test_a_range_may_depend_on_what_comes_before() -> None:
    wide = Space([Width(WidthChoices(), TRAITS), AsWide(RepairChoices(), TRAITS)])
    width = {"ratio": 0.5, "kind": "a"}
    (candidate,) = own_candidates([{"repair": {"steps": 5.5}, "width": width}], wide)
    assert candidate.as_dict() == {"width": width, "repair": {"steps": 5.5}}
    with pytest.raises(StudyFileError, match=r"steps: expected a number from 5 to 6, got 4\.5"):
        own_candidates([{"width": width, "repair": {"steps": 4.5}}], wide)


def test_a_stage_that_must_be_on_is_added() -> None:
    (candidate,) = own_candidates([{"prune": PRUNE}], REAL)
    recovery = next(stage for stage in REAL.stages if stage.name == "recover")
    assert dict(candidate.configs)["recover"] == recovery.anchors()[0]


def test_tables_that_say_the_same_are_one_candidate() -> None:
    tables = [
        {"quantize": DYNAMIC},
        {"prune": PRUNE},
        {"quantize": DYNAMIC},
        {"prune": PRUNE | {"multiple": 8}},
        {},
    ]
    found = own_candidates(tables, REAL)
    assert [list(candidate.as_dict()) for candidate in found] == [
        ["quantize"],
        ["prune", "recover"],
        [],
    ]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.booleans())
def test_whatever_a_space_draws_can_be_written(seed: int, whole: bool) -> None:
    candidate = any_candidate(REAL, seed)
    point = drawn(candidate.as_dict(), REAL)
    assert point is not None
    table = {
        name: {
            field: value
            for field, value in config.items()
            if value is not None and (whole or f"{name}.{field}" in point.parameters)
        }
        for name, config in candidate.as_dict().items()
    }
    assert own_candidates([table], REAL) == [candidate]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"prune": PRUNE | {"ratio": 0.9}}, r"prune.ratio: expected a number from 0.1 to 0.6, got"),
        ({"prune": PRUNE | {"ratio": "half"}}, r"a number from 0.1 to 0.6, got 'half'; change it"),
        ({"prune": PRUNE | {"ratio": float("nan")}}, "prune.ratio: expected a finite number"),
        ({"prune": PRUNE | {"importance": "l3"}}, "one of 'l1', 'l2', 'taylor', got 'l3'"),
        ({"prune": {"ratio": 0.5}}, r"prune.importance: expected one of .*, got nothing; write it"),
        (
            {"prune": PRUNE | {"scope": "global"}},
            r"expected 'uniform', which is all that \[space\]",
        ),
        ({"prune": PRUNE | {"rate": 0.5}}, "prune has no field 'rate'; did you mean 'ratio'"),
        (
            {"recover": RECOVER | {"epochs": 9}},
            "epochs: expected a whole number from 1 to 4, got 9",
        ),
        ({"recover": RECOVER | {"epochs": 2.5}}, "expected a whole number from 1 to 4, got 2.5"),
        ({"recover": RECOVER | {"epochs": True}}, "expected a whole number from 1 to 4, got True"),
        ({"recover": RECOVER | {"soft_weight": 0.0}}, "temperature: expected nothing, for it has"),
        ({"quantize": DYNAMIC | {"calibration": "minmax"}}, "calibration: expected nothing"),
        ({"quantize": DYNAMIC | {"per_channel": 1}}, "per_channel: expected one of True, False"),
        ({"prun": {}}, "there is no stage 'prun'; did you mean 'prune'"),
        ({"factorize": {"ratio": 0.5}}, r"'factorize' is not in \[space\], which has prune, rec"),
        ({"share": {}}, r"'share' has nothing to do in this model \(no two layers are alike\)"),
    ],
)
def test_what_the_space_cannot_draw_is_refused(
    table: dict[str, dict[str, Any]], message: str
) -> None:
    left_out = {"share": "no two layers are alike"}
    with pytest.raises(StudyFileError, match=message) as refusal:
        own_candidates([{"prune": PRUNE}, table], REAL, left_out)
    assert str(refusal.value).startswith("[[start]] table 2")


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31))
def test_a_candidate_is_drawn_as_a_trial_would_have(seed: int) -> None:
    candidate = any_candidate(REAL, seed)
    found = drawn(candidate.as_dict(), REAL)
    assert found is not None
    assert found.candidate == candidate
    assert set(found.parameters) == set(found.distributions)
    study = optuna.create_study()
    study.enqueue_trial(REAL.parameters(candidate))
    trial = study.ask()
    assert REAL.suggest(trial) == candidate
    assert trial.params == found.parameters
    assert trial.distributions == found.distributions


def test_another_space_draws_only_what_is_within_it() -> None:
    narrow = space(WidthChoices(ratio=FloatRange(low=0.4, high=0.6), kind=Choice(options=("a",))))
    repair = {"steps": 1.25}
    for ratio, kind, within in [(0.5, "a", True), (0.7, "a", False), (0.5, "b", False)]:
        configs: dict[str, dict[str, Any]] = {
            "width": {"ratio": ratio, "kind": kind},
            "repair": repair,
        }
        assert drawn(configs, space()) is not None
        assert (drawn(configs, narrow) is not None) == within
    one_step = space(repair=RepairChoices(steps=FloatRange(low=1.5, high=1.5)))
    assert drawn({"repair": repair}, one_step) is None
    assert drawn({"width": {"ratio": 0.5, "kind": "a"}}, space()) is None  # repair must be on
    assert drawn({"prune": {}}, space()) is None
    assert drawn({"repair": {"steps": "many"}}, space()) is None


def test_an_observation_is_the_same_after_a_way_through_json() -> None:
    seen = Observation(
        candidate={"repair": {"steps": 1.2345678901234567}},
        values={"accuracy": 0.1 + 0.2},
        fidelity=1 / 3,
        source="other",
    )
    assert Observation.model_validate_json(seen.model_dump_json()) == seen
    point = seen.drawn(space())
    assert point is not None
    assert point.parameters["repair.steps"] == 1.2345678901234567


@pytest.mark.parametrize("wrong", [{"fidelity": 1.5}, {"values": {"accuracy": float("nan")}}])
def test_an_observation_that_says_nothing_is_refused(wrong: dict[str, Any]) -> None:
    parts = {"candidate": {}, "values": {"accuracy": 0.5}}
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Observation(**(parts | wrong))
