"""What a worker and the launch tell each other, and what a worker needs, without Ray."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from parefront.errors import EngineError, StudyFileError, TrialError
from parefront.search.budget import Budget
from parefront.search.engines.catalog import ENGINES
from parefront.search.engines.section import EngineSection
from parefront.search.launch import Stop
from parefront.search.pipeline import Interrupted
from parefront.search.plan import Plan
from parefront.search.records import Rung
from parefront.search.study_file import StudyFile
from parefront.spaces.space import Candidate

pytest.importorskip("ray")

from parefront.search.engines.ray import talk
from parefront.search.engines.ray.engine import needs
from parefront.search.engines.ray.job import Mark
from parefront.search.engines.ray.talk import Answer, AskingChecks, Kind, Line


def test_a_question_waits_for_its_answer() -> None:
    line = Line()
    checks = AskingChecks(line, gates=True, rungs=(0.5,))
    rung = Rung(share=0.5, values={"accuracy": 0.25}, rivals=3, promoted=False)
    with ThreadPoolExecutor(1) as thread:
        gate = thread.submit(checks.hopeless, Candidate(), {})
        assert line.next().kind == Kind.GATE
        line.answer(Answer(hopeless="no"))
        assert gate.result() == "no"
        judged = thread.submit(checks.judge, 0.5, {"accuracy": 0.25})
        asked = line.next()
        assert (asked.kind, asked.share, asked.values) == (Kind.RUNG, 0.5, {"accuracy": 0.25})
        line.answer(Answer(rung=rung))
        assert judged.result() == rung
        left = thread.submit(checks.hopeless, Candidate(), {})
        line.leave()
        with pytest.raises(Interrupted):
            left.result()


def test_signs_of_life_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "PULSE", 0.01)
    line = Line()
    tick = line.ticking(None)
    assert line.next() == talk.Report(kind=Kind.ALIVE, signs=0)
    tick()
    line.sign()
    assert line.next().signs == 2
    with pytest.raises(TrialError, match="it took longer than"):
        line.ticking(-1.0)()
    line.leave()
    with pytest.raises(Interrupted):
        tick()


def test_a_mark_shows_whether_a_folder_is_shared(tmp_path: Path) -> None:
    with Mark.set_in(tmp_path / "home") as mark:
        mark.check()
        other = Mark(path=tmp_path / "elsewhere" / mark.path.name, content=mark.content)
        with pytest.raises(EngineError, match="do not see .*elsewhere; name a folder"):
            other.check()
        mark.path.write_text("of another launch")
        with pytest.raises(EngineError, match="do not see"):
            mark.check()
    assert list((tmp_path / "home").iterdir()) == []


def test_what_a_trial_needs_of_ray() -> None:
    assert needs(EngineSection(name="ray")) == {"CPU": 1.0}
    section = EngineSection(name="ray", cpus=2, gpus=0.5, memory_mb=100, resources={"bignode": 1.0})
    assert needs(section) == {"CPU": 2.0, "GPU": 0.5, "memory": 1e8, "bignode": 1.0}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"gpus": 1.5}, "expected a whole number, or a share of one"),
        ({"resources": {"GPU": 1.0}}, "'GPU' has a key of its own, 'gpus'"),
        ({"resources": {"big": 0.0}}, "expected an amount of 'big' above 0"),
        (
            {"address": "ray://head:10001"},
            r"\[engine\] address: Ray's clients cannot lead a search",
        ),
        ({"address": "local"}, "expected \"auto\" or host:port .*, got 'local'"),
        ({"address": ""}, "expected \"auto\" or host:port .*, got ''"),
        ({"address": "head"}, 'expected "auto" or host:port'),
        ({"address": "http://head:6379"}, 'expected "auto" or host:port'),
        ({"address": "head:0"}, 'expected "auto" or host:port'),
        ({"address": "head:65536"}, 'expected "auto" or host:port'),
        ({"name": "inline", "workers": 3}, "the engine 'inline' has no use for 'workers'; ray has"),
    ],
)
def test_settings_that_cannot_be(section: dict[str, object], message: str) -> None:
    content = {"study": {"name": "x", "task": "x"}, "engine": {"name": "ray"} | section}
    with pytest.raises(StudyFileError, match=message):
        StudyFile.of(content)


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", "head.example:6379", "[::1]:6379"])
def test_addresses_of_clusters(address: str) -> None:
    assert EngineSection(name="ray", address=address).address == address


def test_another_engine_takes_the_keys_that_it_has_a_use_for() -> None:
    content = {"study": {"name": "x", "task": "x"}, "engine": {"name": "ray", "workers": 3}}
    settings = StudyFile.of(content)
    assert settings.on("inline").engine == EngineSection(name="inline")
    assert settings.on(None, "auto").engine == EngineSection(name="ray", workers=3, address="auto")
    with pytest.raises(StudyFileError, match="there is no such engine"):
        settings.on("rya")
    with pytest.raises(StudyFileError, match="has no use for 'address'"):
        settings.on("inline", "auto")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.startswith("parefront.search.engines.ray")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    plan = Plan(
        settings=StudyFile.of({"study": {"name": "x", "task": "t.py:task"}}),
        url=f"sqlite:///{tmp_path}/s.db",
        task=None,
        base=tmp_path,
        budget=Budget(),
    )
    with pytest.raises(EngineError, match=r"package ray; try: pip install 'parefront\[ray\]'"):
        ENGINES["ray"].make(plan, Stop())
