from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parefront.errors import SpaceError
from parefront.spaces.ranges import Choice, FloatRange, IntRange
from parefront.spaces.space import Candidate, Space
from tests.search.fakes import TRAITS, Repair, Width, WidthChoices, WidthConfig, space
from tests.zoo import make


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31))
def test_a_drawn_candidate_and_its_parameters_are_one(seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    drawn = space().suggest(trial)
    again = space().suggest(optuna.trial.FixedTrial(space().parameters(drawn)))
    assert again == drawn
    assert space().candidate(drawn.as_dict()) == drawn
    assert again.id == drawn.id
    assert set(trial.params) <= set(space().parameters(drawn))


def test_the_id_depends_on_values_and_order_alone() -> None:
    first = Candidate((("width", WidthConfig(ratio=0.5, kind="a")),))
    same = Candidate((("width", WidthConfig(kind="a", ratio=0.5)),))
    other = Candidate((("width", WidthConfig(ratio=0.25, kind="a")),))
    assert first.id == same.id
    assert first.id != other.id
    assert len({Candidate().id, first.id, other.id}) == 3


def test_candidates_that_begin_alike_share_prefix_ids() -> None:
    anchors = space().anchors()
    width = next(c for c in anchors if dict(c.configs).keys() == {"width", "repair"})
    longer = space().candidate(
        width.as_dict() | {"repair": {"steps": 1.25}},
    )
    assert width.id != longer.id
    assert width.prefix(1).id == longer.prefix(1).id
    assert width.prefix(0).id == Candidate().id


def test_anchors_are_the_baseline_each_technique_and_all() -> None:
    anchors = space().anchors()
    assert [list(dict(c.configs)) for c in anchors] == [[], ["width", "repair"], ["repair"]]
    for anchor in anchors:
        assert space().suggest(optuna.trial.FixedTrial(space().parameters(anchor))) == anchor


def test_what_an_earlier_stage_needs_is_always_on() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [dict(space().suggest(study.ask()).configs) for _ in range(50)]
    assert all("repair" in configs for configs in drawn if "width" in configs)
    assert any("width" not in configs for configs in drawn)


def test_fixed_values_are_no_parameters() -> None:
    fixed = space(WidthChoices.model_validate({"ratio": 0.5, "kind": "a"}))
    trial = optuna.create_study().ask()
    trial_on = optuna.trial.FixedTrial({"width": True, "repair.steps": 1.0})
    assert dict(fixed.suggest(trial_on).configs)["width"] == WidthConfig(ratio=0.5, kind="a")
    fixed.suggest(trial)
    assert not {"width.ratio", "width.kind"} & set(trial.params)


def test_a_stage_with_nothing_to_do_is_left_out_with_its_reason() -> None:
    from torch import nn

    _, context = make("mlp")
    fitted, left_out = space().fitted(nn.ReLU(), context)
    assert [stage.name for stage in fitted.stages] == ["repair"]
    assert left_out == {"width": "the model has no parameters"}


def test_stages_come_in_the_order_of_the_catalogue() -> None:
    chosen = Space.of({"quantize": {}, "prune": {}}, TRAITS)
    assert [stage.name for stage in chosen.stages] == ["prune", "quantize"]
    assert [stage.name for stage in Space.of(None, TRAITS).stages] == [
        *("drop", "heads", "prune", "factorize", "sparsify", "cluster", "round"),
        *("recover", "half", "quantize", "blocks", "pack"),
    ]


class TestWhatGoesTogether:
    """Which stages are on beside which, in the space of everything."""

    whole = Space.of(None, TRAITS)

    def drawn(self, seed: int) -> tuple[Candidate, optuna.Trial]:
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
        return self.whole.suggest(trial), trial

    def test_what_packs_is_packed_and_nothing_else(self) -> None:
        for seed in range(200):
            on = dict(self.drawn(seed)[0].configs)
            assert ("pack" in on) == bool({"sparsify", "cluster", "round", "half"} & set(on))
            assert not {"cluster", "round"} <= set(on)
            assert len({"half", "blocks", "quantize"} & set(on)) <= 1
            assert "blocks" not in on or not {"cluster", "round"} & set(on)
            assert "half" not in on or not {"sparsify", "cluster", "round"} & set(on)

    def test_what_cannot_be_is_not_asked(self) -> None:
        for seed in range(50):
            candidate, trial = self.drawn(seed)
            on = dict(candidate.configs)
            assert "pack" not in trial.params
            assert "cluster" not in on or "round" not in trial.params
            again = optuna.trial.FixedTrial(self.whole.parameters(candidate))
            assert self.whole.suggest(again) == candidate
            assert self.whole.candidate(candidate.as_dict()) == candidate

    def test_what_clashes_is_refused_with_the_reason(self) -> None:
        both: dict[str, dict[str, Any]] = {
            "cluster": {"bits": 4},
            "round": {"levels": "ternary", "ends": True},
        }
        with pytest.raises(
            SpaceError, match=r"'round' cannot be on beside \['cluster'\]: the weights have few"
        ):
            self.whole.candidate(both)
        with pytest.raises(SpaceError, match="'pack' cannot be on beside .*leaves weights that"):
            self.whole.candidate({"pack": {}})

    def test_anchors_and_siblings_can_all_be_drawn(self) -> None:
        anchors = self.whole.anchors()
        assert len(set(anchors)) == len(anchors)
        everything = {name for anchor in anchors for name, _ in anchor.configs}
        assert everything == {stage.name for stage in self.whole.stages}
        siblings = [each for anchor in anchors for each in self.whole.siblings(anchor)]
        assert any({"round", "quantize", "pack"} <= set(dict(s.configs)) for s in siblings)
        for each in [*anchors, *siblings]:
            assert self.whole.candidate(each.as_dict()) == each

    def test_the_outset_is_how_anchors_begin(self) -> None:
        outset = self.whole.outset()
        assert self.whole.anchors()[: len(outset)] == outset
        assert outset[0] == Candidate()
        trained = [each.as_dict() for each in outset if "recover" in each.as_dict()]
        assert len(trained) == 3
        strongest, packed, first = trained
        assert strongest["prune"]["ratio"] == 0.8 > first["prune"]["ratio"]
        assert strongest["factorize"]["ratio"] == 0.2 < first["factorize"]["ratio"]
        assert "round" not in strongest
        assert packed == strongest | {k: v for k, v in packed.items() if k in ("round", "pack")}

    def test_packing_comes_by_itself(self) -> None:
        sparse = Space.of({"sparsify": {}}, TRAITS)
        assert [stage.name for stage in sparse.stages] == ["sparsify", "pack"]
        assert [stage.name for stage in Space.of({"prune": {}}, TRAITS).stages] == ["prune"]

    def test_without_anything_to_pack_it_goes(self) -> None:
        from torch import nn

        _, context = make("mlp")
        fitted, _ = Space.of({"prune": {}, "sparsify": {}}, TRAITS).fitted(nn.ReLU(), context)
        assert fitted.stages == ()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"prun": {}}, r"no stage 'prun'; did you mean 'prune'"),
        ({"zzz": {}}, "no stage 'zzz'; known are drop, heads, prune"),
        ({"prune": {"ratoi": 0.5}}, "prune has no key 'ratoi'; did you mean 'ratio'"),
        ({"prune": {"ratio": [0.8, 0.1]}}, "low <= high"),
        ({"prune": {"ratio": [0.1]}}, "a pair"),
        ({"prune": {"importance": ["l1", "l1"]}}, "different options"),
        ({"round": {"bits": 20}}, r"^\[space\] round.bits: expected bits .* got \[20, 20\]$"),
        ({"half": {"format": "float8"}}, r"^\[space\] half.format: Input should be 'float16'"),
        ({"recover": {"features": "fit"}}, r"^\[space\] recover.features: Input should be"),
        ({"blocks": {"size": 33}}, r"^\[space\] blocks.size: expected a power of two .* got 33$"),
        (
            {"round": {"levels": "power_of_two", "bits": [3, 6]}},
            r"^\[space\] round: expected at most 4 bits beside 'power_of_two' levels, got 6$",
        ),
        ({"pack": {"level": 3}}, "pack has no key 'level'; it has none"),
    ],
)
def test_wrong_choices_are_refused(choices: dict[str, object], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        Space.of(choices, TRAITS)


def test_impossible_spaces_are_refused() -> None:
    width = Width(WidthChoices(), TRAITS)
    with pytest.raises(SpaceError, match="different names"):
        Space([width, width])
    quantize = Space.of({"quantize": {}}, TRAITS).stages[0]
    with pytest.raises(SpaceError, match="come after those that change the module"):
        Space([quantize, width])
    with pytest.raises(SpaceError, match="has no stage 'width'"):
        Space([Repair(Repair.choices_type(), TRAITS)]).candidate({"width": {}})
    with pytest.raises(SpaceError, match="not a config of this space"):
        space().candidate({"width": {"ratio": "x", "kind": "a"}})


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_clipping_gives_the_nearest_value(a: float, b: float, value: float) -> None:
    low, high = sorted((a, b))
    clipped = FloatRange(low=low, high=high).clip(value)
    assert low <= clipped <= high
    assert abs(clipped - value) <= min(abs(low - value), abs(high - value)) or clipped == value


@pytest.mark.parametrize(
    ("make_range", "message"),
    [
        (lambda: FloatRange(low=0, high=1, log=True), "above 0"),
        (lambda: IntRange(low=0, high=1, log=True), "above 0"),
        (lambda: FloatRange.model_validate(True), "a pair"),
        (lambda: FloatRange(low=float("nan"), high=1), "finite"),
        (lambda: Choice[str].model_validate([]), "at least 1 item"),
    ],
)
def test_impossible_ranges_are_refused(make_range: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_range()  # type: ignore[operator]
