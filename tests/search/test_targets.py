"""One search, several targets; finalists on further runtimes; extra objectives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import parefront as pf
from parefront.errors import MeasurementError, StudyFileError, TaskError, UsageError
from parefront.search.launch import Silent
from parefront.search.picks import pick
from parefront.tables import front_json
from tests.tiny import make

FIXED = {"protocol": "fixed"}
SPACE: dict[str, dict[str, Any]] = {
    "prune": {"ratio": [0.1, 0.6]},
    "recover": {"epochs": 1},
    "quantize": {"method": "static", "calibration": "minmax"},
}


def study(folder: Path, **changes: Any) -> pf.Study:
    parts: dict[str, Any] = {
        "name": "tiny",
        "trials": 6,
        "target": FIXED,
        "space": SPACE,
        "storage": f"sqlite:///{folder}/studies.db",
    }
    return pf.Study(make(), **(parts | changes))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> pf.Study:
    """A study with everything a study may have."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "mine.py").write_text("def zeros(path):\n    return path.read_bytes().count(0)\n")
    return study(
        folder,
        target={"protocol": "fixed", "finalists": ["torch", "openvino"]},
        targets={"other": {"protocol": "fixed", "runtime": "openvino"}},
        objectives={
            "accuracy": {},
            "latency": {},
            "size": {},
            "memory": {"optimize": False},
            "parameters": {"optimize": False, "at_most": 1e9},
            "throughput": {},
            "zeros": {
                "function": f"{folder}/mine.py:zeros",
                "direction": "minimize",
                "unit": "B",
                "optimize": False,
            },
        },
    ).optimize()


def test_every_target_has_its_columns_and_its_front(done: pf.Study) -> None:
    frame, summary = done.frame(), done.summary()
    assert set(frame["state"]) == {"complete"}
    assert summary.targets == ("other",)
    for column in ("latency_ms", "latency_ms_other", "throughput_per_s", "throughput_per_s_other"):
        assert frame[column].gt(0).all()
        assert frame[f"{column}_low"].le(frame[column]).all()
    # What these devices call latency is the length of the same file.
    assert frame["latency_ms"].tolist() == frame["latency_ms_other"].tolist()
    assert frame["speedup"].tolist() == frame["speedup_other"].tolist()
    assert done.front()["trial"].tolist() == done.front("other")["trial"].tolist()
    with pytest.raises(UsageError, match="has no further target 'pi'; it has other"):
        done.front("pi")


def test_extra_objectives_are_measured_on_the_file(done: pf.Study) -> None:
    for row in done.frame().to_dict("records"):
        artifact = done.store.get(row["artifact_sha256"], "onnx")
        assert row["zeros_B"] == artifact.path.read_bytes().count(0)
        assert row["peak_memory_bytes"] == artifact.size_bytes
    frame = done.frame()
    assert frame["parameters"].iloc[0] == frame["parameters"].max()


def test_the_search_optimises_what_it_is_asked_to(done: pf.Study) -> None:
    optimised = {each.name for each in done.summary().objectives if each.optimized}
    assert optimised == {
        "accuracy", "latency", "size", "throughput", "latency_other", "throughput_other",
    }  # fmt: skip
    assert len(done.opened().optuna_study.directions) == 6


def test_finalists_are_built_and_measured_on_their_runtimes(done: pf.Study) -> None:
    finals, front = done.finals(), done.front()
    for runtime in ("openvino", "torch"):
        rows = finals[finals["runtime"] == runtime]
        assert sorted(rows["trial"]) == sorted(front["trial"])
    openvino = finals[finals["runtime"] == "openvino"].set_index("trial")
    assert set(openvino["state"]) == {"complete"}
    expected = front.set_index("trial")
    assert openvino["size_bytes"].to_dict() == expected["size_bytes"].to_dict()
    difference = (openvino["accuracy"] - expected["accuracy"]).abs()
    assert difference.max() <= 0.05  # int8 sums round differently
    torch = finals[finals["runtime"] == "torch"].set_index("trial")
    candidates, accuracies = expected["candidate"].to_dict(), expected["accuracy"].to_dict()
    for trial, row in torch.iterrows():
        if "quantize" in candidates[trial]:
            assert row["state"] == "infeasible"
            reason = "quantize changes the ONNX file, and torch builds from the module"
            assert row["reason"] == reason
        else:
            assert row["state"] == "complete"
            assert row["accuracy"] == pytest.approx(accuracies[trial], abs=0.02)


def test_launching_again_builds_no_finalist_twice(done: pf.Study) -> None:
    before = done.finals()
    again = pf.Study.load("tiny", storage=done.storage)
    phases: list[str] = []

    class Noted(Silent):
        def phase(self, text: str) -> None:
            phases.append(text)

        def began(self, *_: object) -> None:
            raise AssertionError("no trial was left")

        def ended(self, *_: object) -> None:
            raise AssertionError("no trial was left")

    again._task = make()
    again.optimize(progress=Noted())
    assert not [text for text in phases if "building" in text]
    pd.testing.assert_frame_equal(again.finals(), before)


def test_the_json_has_every_front(done: pf.Study) -> None:
    fronts = {name: done.front(name) for name in (None, "other")}
    content = json.loads(front_json(done.frame(), fronts, done.finals(), done.summary()))
    assert len(content["front"]) == len(content["fronts"]["other"]) == len(done.front())
    first = content["front"][0]
    assert first["latency_ms_other"] == first["latency_ms"]
    assert {row["runtime"] for row in content["finals"]} == {"openvino", "torch"}


def test_the_report_shows_every_front(done: pf.Study, tmp_path: Path) -> None:
    text = done.report(tmp_path / "report.html").read_text()
    for shown in ("The front on other", "The front on torch", "quantize changes the ONNX file"):
        assert shown in text


def test_a_pick_may_be_of_one_target(done: pf.Study) -> None:
    assert done.pick("knee", "other")["trial"] == done.pick("knee")["trial"]
    row = done.pick("latency_ms_other<=1000 and parameters<=1000000000")
    assert row["trial"] in set(done.front()["trial"])
    assert pick(done.front("other"), "knee", done.summary().objectives, "other")["trial"] >= 0


def test_an_exported_bundle_has_every_measurement(done: pf.Study, tmp_path: Path) -> None:
    folder = done.export(int(done.pick("knee")["trial"]), tmp_path / "bundle")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["validation_again"]) == {each.name for each in done.summary().objectives}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": {"p": {"runtime": "torch"}}}, "name the runtime in"),
        ({"targets": {"Pi 4": FIXED}}, "should match pattern"),
        ({"target": {"finalists": ["openvin"]}}, "did you mean 'openvino'"),
        ({"objectives": {"energi": {}}}, "did you mean 'energy'"),
        ({"objectives": {"mine": {"function": "a.py:b"}}}, "needs direction"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyFileError, match=message):
        study(tmp_path, **changes)


def test_a_function_that_is_not_there_is_refused_before_training(tmp_path: Path) -> None:
    goal = {"function": "none.py:f", "direction": "minimize"}
    with pytest.raises(TaskError, match="there is no task file"):
        study(tmp_path, objectives={"accuracy": {}, "mine": goal}).optimize()


def test_what_the_device_cannot_tell_is_said_before_the_search(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="energy"):
        study(tmp_path, objectives={"accuracy": {}, "energy": {}}).optimize()
    again = study(tmp_path, objectives={"accuracy": {}, "energy": {}})
    with pytest.raises(MeasurementError, match="energy"):
        again.optimize()
    assert again.frame().empty


@pytest.mark.slow
def test_two_runtimes_give_two_fronts_from_one_training(tmp_path: Path) -> None:
    quick = {"runs": 50, "seconds": 0.5}
    found = study(
        tmp_path,
        trials=8,
        target=quick,
        targets={"ov": {"runtime": "openvino", **quick}},
        settle=1,
    ).optimize()
    frame = found.frame()
    assert set(frame["state"]) == {"complete"}
    assert (frame["latency_ms"] != frame["latency_ms_ov"]).all()
    assert (frame["speedup"] != frame["speedup_ov"]).any()
    for front in (found.front(), found.front("ov")):
        assert len(front) >= 1
    seconds = [entry.outcome.seconds for entry in found.opened().entries() if entry.outcome]
    trained = [each for each in seconds if "train" in each]
    assert len(trained) < len(frame)  # once a candidate with recovery, not once a target
