"""What a new study takes over from earlier ones, in storages with made-up trials."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import parefront as pf
from parefront.errors import StudyFileError
from parefront.objectives.front import dominated
from parefront.objectives.measurement import Measurement
from parefront.search import earlier as module
from parefront.search import opened as opened_module
from parefront.search.earlier import Earlier, earlier
from parefront.search.opened import OpenedStudy
from parefront.search.records import Outcome, Rung, Status
from parefront.search.storage import open_storage
from parefront.search.study_file import StudyFile
from parefront.search.study_record import BaselineRecord
from parefront.search.task import PreparedTask, prepare
from parefront.search.warm_start import drawn
from parefront.spaces.ranges import FloatRange
from parefront.spaces.space import Candidate, Space
from parefront.spaces.stage import TargetTraits
from tests.search.fakes import WidthChoices, space
from tests.search.past_trials import candidate, entry, outcome, record
from tests.tiny import data, make

Kind = tuple[float, str]
SIMILAR = {"train": data(64, 9)}


@cache
def prepared(kind: str) -> PreparedTask:
    if kind == "similar":
        return prepare(make(**SIMILAR))
    if kind == "error":
        wrong = pf.Metric(
            "error", lambda y, t: float((y.argmax(-1) != t).mean()), direction=pf.Direction.MINIMIZE
        )
        return prepare(make(metric=wrong))
    return prepare(make())


def begin(
    url: str,
    name: str,
    *,
    task: str = "same",
    baseline: str = "a" * 64,
    device: str = "",
    base: str = "/nowhere",
    **settings: Any,
) -> OpenedStudy:
    content: dict[str, Any] = {
        "study": {"name": name, "task": "nowhere_to_be_found.py:task"},
        "target": {"protocol": "fixed"},
    }
    opened = OpenedStudy.begin(
        StudyFile.of(content | settings),
        url,
        prepared(task),
        task_base=base,
        left_out={},
        traits=TargetTraits(format="onnx", channel_multiple=8),
    )
    opened.keep_baseline(
        BaselineRecord(
            artifact_sha256=baseline,
            reference_ms=1.0,
            throughput_ms=0.0,
            fingerprint={},
            fingerprint_id=device or f"the device of {name}",
        )
    )
    return opened


def add(opened: OpenedStudy, of: Candidate, ended: Outcome) -> None:
    point = drawn(of.as_dict(), space())
    assert point is not None
    trial = opened.ledger.create(record(of), point.parameters, point.distributions, {})
    opened.ledger.finish(trial, ended)


FRONT = [(0.1, 0.95, 9000.0), (0.3, 0.94, 5000.0), (0.6, 0.90, 2500.0), (0.9, 0.5, 2000.0)]
"""Ratios, accuracies and sizes that nothing beats; the third is the knee."""


def fill(opened: OpenedStudy) -> None:
    add(opened, Candidate(), outcome(0.96, 10_000.0))
    add(opened, candidate(0.5), outcome(0.6, 6000.0))  # beaten
    for ratio, accuracy, size in FRONT:
        add(opened, candidate(ratio), outcome(accuracy, size))
    add(opened, candidate(0.7), Outcome(status=Status.FAILED, reason="it broke"))
    add(opened, candidate(0.8), outcome(None, 2200.0, Status.INFEASIBLE))
    rungs = [
        Rung(share=share, values={"accuracy": accuracy, "size": 3000.0}, rivals=4, promoted=going)
        for share, accuracy, going in [(0.25, 0.3, True), (0.5, 0.4, False)]
    ]
    stopped = outcome(None, 3000.0, Status.EARLY_STOPPED)
    add(opened, candidate(0.65), stopped.model_copy(update={"rungs": tuple(rungs)}))


Place = tuple[str, OpenedStudy]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A storage with earlier studies, and a new one of the same task."""
    url = f"sqlite:///{tmp_path_factory.mktemp('earlier')}/studies.db"
    fill(begin(url, "same"))
    fill(begin(url, "similar", task="similar"))
    fill(begin(url, "retrained", baseline="b" * 64))
    fill(begin(url, "batches", target={"protocol": "fixed", "batch_size": 8}))
    fill(begin(url, "errors", task="error"))
    fill(begin(url, "nearby", device="here"))
    return url, begin(url, "new", device="here")


def values(found: Earlier) -> dict[tuple[float, float], Mapping[str, float]]:
    """What is said by ratio and fidelity; the baseline has the ratio 0."""
    return {
        (each.candidate.get("width", {"ratio": 0.0})["ratio"], each.fidelity): each.values
        for each in found.observations
    }


def test_the_same_task_tells_what_a_trial_would(place: Place) -> None:
    url, new = place
    found = earlier(["same"], url, space(), new)
    expected: dict[tuple[float, float], Mapping[str, float]] = {
        (ratio, 1.0): {"accuracy": accuracy, "size": size} for ratio, accuracy, size in FRONT
    }
    expected[0.0, 1.0] = {"accuracy": 0.96, "size": 10_000.0}
    expected[0.5, 1.0] = {"accuracy": 0.6, "size": 6000.0}
    expected[0.8, 1.0] = {"size": 2200.0}
    expected[0.65, 1.0] = {"size": 3000.0}
    expected[0.65, 0.5] = {"accuracy": 0.4}
    assert values(found) == expected
    assert len(found.observations) == len(expected)
    assert {each.source for each in found.observations} == {""}
    assert found.studies == {"same": "same task"}
    assert found.skipped == 0


def test_the_front_comes_first_from_its_knee(place: Place) -> None:
    url, new = place
    found = earlier(["same"], url, space(), new).candidates(space())
    ratios = [each.as_dict()["width"]["ratio"] for each in found]
    assert ratios[0] == 0.6
    assert sorted(ratios) == [0.1, 0.3, 0.6, 0.9]
    two = earlier(["same"], url, space(), new, most=2).candidates(space())
    assert two == found[:2]


@pytest.mark.parametrize("name", ["similar", "retrained"])
def test_a_similar_task_tells_under_its_name(place: Place, name: str) -> None:
    url, new = place
    found = earlier([name], url, space(), new)
    assert {each.source for each in found.observations} == {name}
    assert values(found) == values(earlier(["same"], url, space(), new))
    assert found.studies == {name: "similar task"}
    assert found.front == earlier(["same"], url, space(), new).front


def test_another_version_is_trusted_no_more_than_another_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_url(tmp_path)
    new = begin(url, "new")
    monkeypatch.setattr(opened_module, "version", lambda name: "0.0")
    begin(url, "old")
    assert earlier(["old"], url, space(), new).studies == {"old": "similar task"}


def test_sizes_of_another_kind_of_file_stay_where_they_are(place: Place) -> None:
    url, new = place
    told = values(earlier(["batches"], url, space(), new))
    assert told[0.1, 1.0] == {"accuracy": 0.95}
    assert (0.8, 1.0) not in told


def test_what_the_same_device_measured_is_told_under_the_studys_name(place: Place) -> None:
    url, new = place
    found = earlier(["nearby"], url, space(), new)
    timed = [each for each in found.observations if each.source == "nearby"]
    assert {name for each in timed for name in each.values} == {"latency"}
    assert {each.fidelity for each in timed} == {1.0}
    assert {each.values["latency"] for each in timed} == {
        size / 1e6 for size in (10_000.0, 6000.0, 3000.0, 2200.0, *(size for *_, size in FRONT))
    }
    others = [each for each in found.observations if each.source == ""]
    assert others == list(earlier(["same"], url, space(), new).observations)


def test_nothing_of_a_device_comes_from_another_task_or_batch(tmp_path: Path) -> None:
    url = new_url(tmp_path)
    new = begin(url, "new", device="here")
    fill(begin(url, "retrained", device="here", baseline="b" * 64))
    target = {"protocol": "fixed", "batch_size": 8}
    fill(begin(url, "batches", device="here", target=target))
    for name in ("retrained", "batches"):
        told = earlier([name], url, space(), new).observations
        assert told
        assert all("latency" not in each.values for each in told)


def test_bounds_may_differ_and_a_broken_one_keeps_from_the_front(tmp_path: Path) -> None:
    url = new_url(tmp_path)
    new = begin(url, "new")
    bound = {"accuracy": {"at_least": 0.92}, "latency": {}, "size": {"at_most": 1e6}}
    bounded = begin(url, "bounded", objectives=bound)
    add(bounded, candidate(0.3), outcome(0.94, 5000.0))
    low = outcome(0.90, 2500.0).model_copy(update={"violations": {"accuracy": 0.02}})
    add(bounded, candidate(0.6), low)
    found = earlier(["bounded"], url, space(), new)
    assert values(found) == {
        (0.3, 1.0): {"accuracy": 0.94, "size": 5000.0},
        (0.6, 1.0): {"accuracy": 0.90, "size": 2500.0},
    }
    assert found.candidates(space()) == [candidate(0.3)]


@pytest.mark.parametrize(
    ("base", "changes", "told"),
    [
        ("/nowhere", {}, True),
        ("/elsewhere", {}, False),
        ("/nowhere", {"function": "pages.py:others"}, False),
        ("/nowhere", {"direction": "maximize"}, False),
        ("/nowhere", {"noisy": True}, False),
        ("/nowhere", {"at_most": 9.0}, True),
    ],
)
def test_an_objective_of_ones_own_is_told_if_it_is_the_same(
    tmp_path: Path, base: str, changes: dict[str, Any], told: bool
) -> None:
    url = new_url(tmp_path)
    mine = {"function": "pages.py:count", "direction": "minimize"}
    noisy = {"noisy": True} if "noisy" in changes else {}
    new = begin(url, "new", objectives={"accuracy": {}, "pages": mine | noisy})
    old = begin(url, "old", base=base, objectives={"accuracy": {}, "pages": mine | changes})
    with_pages = outcome(0.9, 1000.0)
    pages = Measurement.exact(3.0, "", "made up")
    add(old, candidate(0.3), with_pages.model_copy(
        update={"measurements": {**with_pages.measurements, "pages": pages}}
    ))  # fmt: skip
    (seen,) = earlier(["old"], url, space(), new).observations
    assert seen.values == {"accuracy": 0.9} | ({"pages": 3.0} if told else {})


def test_a_study_named_in_two_ways_is_heard_once(place: Place) -> None:
    url, new = place
    narrow = space(WidthChoices(ratio=FloatRange(low=0.2, high=0.6)))
    once = earlier(["same"], url, narrow, new)
    assert once.skipped > 0
    assert earlier(["same", "same", f"same@{url}"], url, narrow, new) == once


def test_of_two_studies_of_one_task_both_are_heard(place: Place, tmp_path: Path) -> None:
    url, _ = place
    here = new_url(tmp_path)
    new = begin(here, "new")
    other = begin(here, "other")
    add(other, candidate(0.3), outcome(0.7, 5000.0))
    add(other, candidate(0.1), outcome(0.95, 9000.0))
    found = earlier(["other", f"same@{url}"], here, space(), new)
    for ratio, accuracies in (0.3, [0.7, 0.94]), (0.1, [0.95]):  # what is the same is told once
        seen = [
            each.values["accuracy"]
            for each in found.observations
            if each.candidate == candidate(ratio).as_dict()
        ]
        assert sorted(seen) == accuracies


def test_what_the_search_does_not_optimise_is_not_told(place: Place, tmp_path: Path) -> None:
    url, _ = place
    new = begin(f"sqlite:///{tmp_path}/new.db", "new", objectives={"accuracy": {}, "latency": {}})
    told = earlier([f"same@{url}"], new_url(tmp_path), space(), new)
    assert all(set(each.values) == {"accuracy"} for each in told.observations)
    assert len(told.front) == 4  # latency counts in what is on the front, but is not taken over


def new_url(folder: Path) -> str:
    return f"sqlite:///{folder}/new.db"


def test_a_study_of_another_storage_is_read_there(place: Place, tmp_path: Path) -> None:
    url, _ = place
    new = begin(new_url(tmp_path), "new")
    found = earlier([f"same@{url}", f"similar@{url}"], new_url(tmp_path), space(), new)
    assert found.studies == {f"same@{url}": "same task", f"similar@{url}": "similar task"}
    assert {each.source for each in found.observations} == {"", f"similar@{url}"}


def test_several_studies_take_turns_and_nothing_is_told_twice(place: Place) -> None:
    url, new = place
    one = earlier(["same"], url, space(), new)
    both = earlier(["same", "similar"], url, space(), new)
    assert both.front == one.front
    assert len(both.observations) == 2 * len(one.observations)
    assert [each.source for each in both.observations[:4]] == ["", "similar", "", "similar"]
    assert list(both.studies) == ["same", "similar"]


def test_what_lies_outside_the_space_is_left_and_counted(place: Place) -> None:
    url, new = place
    narrow = space(WidthChoices(ratio=FloatRange(low=0.2, high=0.6)))
    found = earlier(["same"], url, narrow, new)
    assert {ratio for ratio, _ in values(found)} == {0.0, 0.3, 0.5, 0.6}
    assert found.skipped == 4  # ratios 0.1, 0.9, 0.8 and 0.65; the one that failed says nothing
    assert "4 trials lie outside this space" in str(found)
    assert all(each.id in {candidate(0.3).id, candidate(0.6).id} for each in
               found.candidates(narrow))  # fmt: skip
    only_repair = Space([stage for stage in space().stages if stage.name == "repair"])
    assert earlier(["same"], url, only_repair, new).front == ()


def test_it_is_kept_in_the_storage_whatever_becomes_of_the_earlier_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    old = begin(url, "old")
    fill(old)
    new = begin(url, "new")
    found = earlier(["old"], url, space(), new)
    new.keep("taken", found.model_dump(mode="json"))
    optuna.delete_study(study_name="old", storage=url)
    again = OpenedStudy.find("new", url)
    kept = Earlier.model_validate(again.optuna_study.user_attrs["taken"])
    assert kept == found
    assert kept.candidates(space()) == found.candidates(space()) != []


def test_a_study_without_trials_tells_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    begin(url, "old")
    found = earlier(["old"], url, space(), begin(url, "new"))
    assert (found.front, found.observations, found.skipped) == ((), (), 0)
    assert str(found).startswith("taken over from old (same task): 0 candidates, 0 observations")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "smae",
            "no study 'smae' in .*; there are: same, similar, retrained, batches, errors, nearby$",
        ),
        ("new", "'new' is this study itself, which goes on by itself; others are: same, similar"),
        (
            "errors",
            r"whose metric is accuracy \(maximize\), got 'errors' with error \(minimize\); "
            "in that storage there are: same, similar, retrained, batches, nearby$",
        ),
        ("same@sqlite:////nowhere/no.db", "cannot read 'same@sqlite.*': there is no storage"),
        ("same@somewhere", "cannot read 'same@somewhere': expected a storage URL"),
        (
            "same@postgresql://me:geheim@h:x/d",
            r"cannot read 'same@postgresql://\*\*\*@h:x/d': expected a storage URL",
        ),
        (
            "same@postgresql://me:geheim@127.0.0.1:1/d",
            r"cannot read 'same@postgresql://me:\*\*\*@127.0.0.1:1/d': cannot open storage",
        ),
    ],
)
def test_what_cannot_be_a_start_is_refused(place: Place, name: str, message: str) -> None:
    url, new = place
    with pytest.raises(StudyFileError, match=message) as found:
        earlier([name], url, space(), new)
    assert "geheim" not in "".join(traceback.format_exception(found.value))


def test_passwords_of_other_storages_are_neither_shown_nor_kept(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = place
    theirs = "postgresql://me:geheim@db/studies"
    find = OpenedStudy.find
    monkeypatch.setattr(
        OpenedStudy, "find", lambda name, at: find(name, url if at == theirs else at)
    )
    monkeypatch.setattr(module, "open_storage", lambda at, create: open_storage(url, create=create))
    new = begin(new_url(tmp_path), "new")
    found = earlier([f"similar@{theirs}"], new_url(tmp_path), space(), new)
    name = "similar@postgresql://me:***@db/studies"
    assert list(found.studies) == [name]
    assert name in str(found)
    assert {each.source for each in found.observations} == {name}
    with pytest.raises(
        StudyFileError, match=r"no study 'no' in postgresql://me:\*\*\*@db/studies;"
    ):
        earlier([f"no@{theirs}"], new_url(tmp_path), space(), new)


def test_a_study_keeps_no_password_of_what_it_starts_from(tmp_path: Path) -> None:
    names = ["old", "old@postgresql://me:geheim@db/studies"]
    study = {"name": "new", "task": "nowhere_to_be_found.py:task", "warm_start": names}
    new = begin(new_url(tmp_path), "new", study=study)
    assert new.record.settings.study.warm_start == (
        "old",
        "old@postgresql://me:***@db/studies",
    )
    assert "geheim" not in str(new.facts)


def test_of_many_trials_some_of_every_kind_are_kept(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, new = place
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.random(1000), 1000 + rng.random(1000)])
    many = [
        entry(number, candidate(0.001 * (number + 1)), outcome(*row))
        for number, row in enumerate(table.tolist())
    ]
    monkeypatch.setattr(OpenedStudy, "entries", lambda self: many)
    found = earlier(["same"], url, space(), new)
    assert found == earlier(["same"], url, space(), new)
    assert len(found.observations) == module.MOST_OBSERVATIONS
    told = {each.values["accuracy"] for each in found.observations}
    rows = np.column_stack([table, table[:, 1]])
    on_front = ~dominated(rows, rows, rows, [True, False, False])
    assert 0 < on_front.sum() < 50
    assert set(table[on_front, 0]) <= told
    assert table[-1, 0] in told  # the latest
    away = np.median([row[0] for row in table if row[0] in told])
    assert away < 0.9  # and not only good ones
    assert len(found.model_dump_json()) < 50_000
