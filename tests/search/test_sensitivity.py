"""What each stage costs by itself, on a tiny trained model with real exports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import parefront as pf
from parefront.errors import AgentError, BuildError, StageError
from parefront.search.builder import Builder
from parefront.search.pipeline import Interrupted, Pipeline
from parefront.search.sensitivity import TOLERANCES, Probe, Sensitivity, probe
from parefront.search.warm_start import drawn
from parefront.spaces.pruning.channels import ChannelPruning
from parefront.spaces.ranges import FloatRange
from parefront.spaces.space import Candidate, Space
from tests.search.fakes import TRAITS, WidthChoices, space
from tests.search.pipelines import pipeline as made
from tests.tiny import make

SPACE: dict[str, dict[str, Any]] = {
    "prune": {"ratio": [0.05, 0.9], "importance": "l2", "scope": "uniform", "multiple": 1},
    "factorize": {"ratio": [0.2, 0.8], "multiple": 1},
    "recover": {"epochs": 1},
    "quantize": {"calibration": "minmax"},
}


def pipeline(folder: Path, task: pf.Task) -> Pipeline:
    return made(folder, task, SPACE)


def look(at: Pipeline) -> Sensitivity:
    return probe(at, tick=lambda: None, phase=lambda text: None)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return pipeline(tmp_path_factory.mktemp("sensitivity"), make())


@pytest.fixture(scope="module")
def found(ready: Pipeline) -> Sensitivity:
    return look(ready)


def of(found: Sensitivity, stage: str) -> list[Probe]:
    return [each for each in found.probes if each.stage == stage]


def test_each_lossy_stage_is_probed_from_end_to_end(found: Sensitivity) -> None:
    assert not found.failed
    ratios = [each.config["ratio"] for each in of(found, "prune")]
    assert ratios == pytest.approx([0.05, 0.2625, 0.475, 0.6875, 0.9])
    assert len(of(found, "factorize")) == 5
    methods = [each.config["method"] for each in of(found, "quantize")]
    assert methods == ["static", "dynamic"]
    assert of(found, "recover") == []


def test_the_drop_grows_with_what_is_taken_away(found: Sensitivity) -> None:
    pruned = of(found, "prune")
    sizes = [each.size_ratio for each in pruned]
    assert all(after < before for before, after in pairwise(sizes))
    assert pruned[0].drop < pruned[2].drop < pruned[-1].drop
    assert pruned[-1].drop > 0.3
    assert abs(of(found, "quantize")[0].drop) < 0.1


def test_a_probe_is_what_the_untrained_candidate_is(ready: Pipeline, found: Sensitivity) -> None:
    probed = of(found, "prune")[1]
    path = ready.store.root.parent / "again.onnx"
    candidate = ready.builder.space.candidate(probed.candidate)
    ready.builder.build(candidate, path, trained=False)
    prepared = ready.builder.task
    outputs = ready.scenes[None].device.run(
        path, prepared.validation.feeds(prepared.input_names),
        runtime="onnxruntime", threads=1, batch_size=128,
    )  # fmt: skip
    hits = (outputs[0].argmax(-1) == prepared.validation.targets.numpy()).mean()
    assert probed.accuracy == pytest.approx(hits)
    assert probed.low < probed.accuracy < probed.high
    assert probed.size_bytes == path.stat().st_size
    assert probed.drop == pytest.approx(found.baseline - hits)


def test_the_same_study_finds_the_same(ready: Pipeline, found: Sensitivity) -> None:
    assert look(ready) == found
    assert Sensitivity.model_validate_json(found.model_dump_json()) == found


def test_an_error_drops_when_it_grows(tmp_path: Path) -> None:
    wrong = pf.Metric(
        "error", lambda y, t: float((y.argmax(-1) != t).mean()), direction=pf.Direction.MINIMIZE
    )
    ready = pipeline(tmp_path, make(metric=wrong))
    ready.builder = replace(
        ready.builder, space=Space.of({"prune": SPACE["prune"], "recover": {}}, TRAITS)
    )
    pruned = of(look(ready), "prune")
    assert pruned[0].drop < pruned[-1].drop
    assert pruned[0].accuracy < pruned[-1].accuracy


def test_candidates_are_within_their_tolerance(ready: Pipeline, found: Sensitivity) -> None:
    candidates = found.candidates(ready.builder.space)
    assert 1 <= len(candidates) <= len(TOLERANCES)
    assert len(set(candidates)) == len(candidates)
    worst = max(each.drop for each in found.probes)
    by_config = {(p.stage, str(dict(p.config))): p for p in found.probes}
    strongest = 1.0
    for candidate in candidates:
        point = drawn(candidate.as_dict(), ready.builder.space)
        assert point is not None
        probes = [
            by_config[name, str(config)]
            for name, config in candidate.as_dict().items()
            if name != "recover"
        ]
        assert probes
        assert all(each.drop <= TOLERANCES[-1] * worst for each in probes)
        product = 1.0
        for each in probes:
            product *= each.size_ratio
        assert product <= strongest
        strongest = product
        lossy = {"prune", "factorize"} & set(candidate.as_dict())
        assert ("recover" in candidate.as_dict()) == bool(lossy)


def made_up(ratio: float, drop: float, size: float) -> Probe:
    on = space().candidate({"width": {"ratio": ratio, "kind": "a"}, "repair": {"steps": 1.5}})
    return Probe(
        stage="width", config=on.as_dict()["width"], candidate=on.as_dict(), trained=True,
        accuracy=0.9 - drop, low=0.0, high=1.0, size_bytes=int(1000 * size), size_ratio=size,
        drop=drop,
    )  # fmt: skip


def ratios(found: Sensitivity) -> list[float]:
    return [each.as_dict()["width"]["ratio"] for each in found.candidates(space())]


def test_the_strongest_within_each_tolerance_is_taken() -> None:
    ladder = [
        made_up(0.1, 0.0, 1.2),  # larger than the baseline
        made_up(0.2, 0.004, 0.9),
        made_up(0.3, 0.02, 0.6),
        made_up(0.4, 0.02, 0.7),
        made_up(0.5, 0.08, 0.5),
        made_up(0.9, 0.5, 0.1),
    ]
    assert ratios(Sensitivity(baseline=0.9, probes=tuple(ladder))) == [0.2, 0.3, 0.5]
    assert ratios(Sensitivity(baseline=0.9, probes=tuple(ladder[3:]))) == [0.4, 0.5]
    # Where nothing is lost, the strongest is as good as any.
    gains = (made_up(0.3, -0.01, 0.6), made_up(0.4, -0.02, 0.4))
    assert ratios(Sensitivity(baseline=0.9, probes=gains)) == [0.4]
    assert ratios(Sensitivity(baseline=0.9, probes=(made_up(0.9, 0.5, 0.1),))) == []
    larger = (made_up(0.1, 0.0, 1.2), made_up(0.9, 0.5, 0.1))
    assert ratios(Sensitivity(baseline=0.9, probes=larger)) == []
    assert Sensitivity(baseline=0.9).candidates(space()) == []


def test_only_what_the_space_can_draw_is_suggested() -> None:
    ladder = (made_up(0.2, 0.0, 0.9), made_up(0.5, 0.05, 0.5), made_up(0.9, 0.5, 0.1))
    narrow = space(WidthChoices(ratio=FloatRange(low=0.0, high=0.3)))
    found = Sensitivity(baseline=0.9, probes=ladder).candidates(narrow)
    assert [each.as_dict()["width"]["ratio"] for each in found] == [0.2]


def test_accuracy_before_training_is_told_as_such(ready: Pipeline, found: Sensitivity) -> None:
    told = found.observations()
    assert all(each.drawn(ready.builder.space) is not None for each in told)
    assert {each.source for each in told} == {""}
    pruned, quantized = of(found, "prune")[0], of(found, "quantize")[0]
    assert [
        (each.values, each.fidelity) for each in told if each.candidate == pruned.candidate
    ] == [
        ({"size": pruned.size_bytes}, 1.0),
        ({"accuracy": pruned.accuracy}, 0.0),
    ]
    # Nothing is trained after quantisation alone: this is what a trial would measure.
    (whole,) = [each for each in told if each.candidate == quantized.candidate]
    assert whole.fidelity == 1
    outcome = ready.evaluate(ready.builder.space.candidate(whole.candidate), lambda: None)
    assert whole.values == {name: outcome.measurements[name].value for name in ("accuracy", "size")}


def test_what_does_not_go_together_is_not_suggested(tmp_path: Path) -> None:
    choices: dict[str, dict[str, Any]] = {
        "cluster": {"bits": [2, 6]},
        "round": {"levels": "uniform", "bits": [3, 4], "ends": True},
        "recover": {"epochs": 1},
        "half": {},
        "quantize": {"calibration": "minmax", "method": "static"},
    }
    ready = made(tmp_path, make(), choices)
    found = look(ready)
    assert not found.failed
    assert {each.stage for each in found.probes} == {"cluster", "round", "half", "quantize"}
    assert all(each.size_ratio < 1 for each in found.probes)
    suggested = found.candidates(ready.builder.space)
    assert suggested
    assert all(drawn(each.as_dict(), ready.builder.space) is not None for each in suggested)


def only_quantize(ready: Pipeline) -> Pipeline:
    small = Space([stage for stage in ready.builder.space.stages if stage.name == "quantize"])
    builder = replace(ready.builder, space=small)
    return Pipeline(builder, ready.scenes, ready.store, ready.measures)


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (StageError("no such layer"), "no such layer"),
        (BuildError("cannot export"), "cannot export"),
        (RuntimeError("shapes differ"), "RuntimeError: shapes differ"),
    ],
)
def test_what_fails_is_noted_and_the_rest_is_probed(
    ready: Pipeline, monkeypatch: pytest.MonkeyPatch, raised: Exception, reason: str
) -> None:
    real = Builder.build

    def failing(self: Builder, candidate: Candidate, *args: Any, **kwargs: Any) -> Any:
        if dict(candidate.configs)["quantize"].model_dump()["method"] == "static":
            raise raised
        return real(self, candidate, *args, **kwargs)

    monkeypatch.setattr(Builder, "build", failing)
    found = look(only_quantize(ready))
    assert [(each.config["method"], each.reason) for each in found.failed] == [("static", reason)]
    assert [each.config["method"] for each in found.probes] == ["dynamic"]


def test_an_agent_that_cannot_be_used_ends_it(
    ready: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise AgentError("the agent is gone")

    monkeypatch.setattr(Builder, "build", gone)
    with pytest.raises(AgentError, match="the agent is gone"):
        look(only_quantize(ready))


def test_it_ends_when_it_is_told_to(ready: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    applied = []
    real = ChannelPruning.apply

    def noted(self: Any, model: Any, config: Any, context: Any) -> Any:
        applied.append(config.ratio)
        return real(self, model, config, context)

    def stops(after: int) -> Callable[[], None]:
        calls = iter(range(after))

        def tick() -> None:
            if next(calls, None) is None:
                raise Interrupted

        return tick

    monkeypatch.setattr(ChannelPruning, "apply", noted)
    phases: list[str] = []
    with pytest.raises(Interrupted):
        probe(ready, tick=stops(0), phase=phases.append)
    assert applied == []
    assert phases == ["probing how sensitive the model is to prune"]
    with pytest.raises(Interrupted):
        probe(ready, tick=stops(3), phase=phases.append)  # in the middle of a stage
    assert len(applied) == 1
