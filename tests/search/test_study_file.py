from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parefront.errors import SpaceError, StudyFileError
from parefront.search.engines.section import ENGINE_VARIABLE, EngineSection
from parefront.search.section import duration
from parefront.search.study import Study
from parefront.search.study_file import StudyFile

GOOD = """
[study]
name = "mnist-cnn"
task = "examples/mnist_cnn.py:task"
trials = 40
time = "3m"
seed = 0
[objectives]
accuracy = { at_least = 0.95 }
latency = {}
size = {}
[target]
runtime = "onnxruntime"
threads = 1
batch_size = 1
[space]
prune = { ratio = [0.0, 0.8] }
"""


def read(tmp_path: Path, text: str) -> StudyFile:
    path = tmp_path / "study.toml"
    path.write_text(text)
    return StudyFile.read(path)


def test_a_full_file_is_read(tmp_path: Path) -> None:
    study = read(tmp_path, GOOD)
    assert study.study.time == 180
    assert study.objectives["accuracy"].at_least == 0.95
    assert study.space == {"prune": {"ratio": [0.0, 0.8]}}
    assert StudyFile.model_validate_json(study.model_dump_json()) == study


def test_a_short_file_has_defaults(tmp_path: Path) -> None:
    study = read(tmp_path, '[study]\nname = "a"\ntask = "a.py:task"\n')
    assert set(study.objectives) == {"accuracy", "latency", "size"}
    assert study.space is None
    assert study.study.sampler == "screening"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trials = 40", "trails = 40", r"\[study\] unknown key 'trails'; did you mean 'trials'\?"),
        ("threads = 1", "thread = 1", r"\[target\] unknown key 'thread'; did you mean 'threads'"),
        ("[space]", "[spce]", "unknown key 'spce'; did you mean 'space'"),
        ("latency = {}", "latncy = {}", r"\[objectives\] has no 'latncy'; did you mean 'latency'"),
        ("at_least = 0.95", "atleast = 0.95", "unknown key 'atleast'; did you mean 'at_least'"),
        ("at_least = 0.95", "at_least = 'x'", "at_least: .*number.*got 'x'"),
        ("at_least = 0.95", "at_least = 2, at_most = 1", "at_least <= at_most"),
        ('time = "3m"', 'time = "3 minutes"', "expected a duration such as 90s"),
        ("trials = 40", "trials = 0", "greater than or equal to 1"),
        ('name = "mnist-cnn"', 'name = "../x"', "name: .*pattern"),
        ('name = "mnist-cnn"', "", "'name' is missing"),
        ("seed = 0", 'sampler = "tpee"', "no such sampler; did you mean 'tpe'"),
        ("[study]", "[study", "not valid TOML"),
        ("seed = 0", 'warm_start = "a"', r"warm_start: expected a list, got 'a'"),
        ("seed = 0", "settle = -1", "settle: .*greater than or equal to 0"),
        ("seed = 0", 'settle = "soon"', "settle: expected a duration"),
        ("[study]", "[[start]]\n[[start]]\nx = 1\n[study]", r"\[\[start\]\] table 2"),
        ("[study]", "start = 1\n[study]", r"start: expected a list of \[\[start\]\] tables"),
        ('runtime = "onnxruntime"', 'runtime = "onnxruntim"', "onnxruntime"),
        ("trials = 40", "trials = true", r"\[study\] trials: expected a number, got true$"),
        ("threads = 1", "threads = true", r"\[target\] threads: .*integer.* got true$"),
        ('runtime = "onnxruntime"', "precision = true", r"precision: .*number.* got true$"),
        (
            "at_least = 0.95",
            "at_least = true",
            r"\[objectives.*\] .*at_least: .*number.* got true$",
        ),
        ("seed = 0", "no_gain = nan", r"\[study\] no_gain: expected a number, got nan$"),
        ("seed = 0", 'trial_time = "9999999999d"', r"trial_time: .* at most 36500d, got '9+d'$"),
        ("seed = 0", "trial_time = 1e300", r"trial_time: .* at most 36500d, got 1e\+300$"),
        ("seed = 0", "trial_time = true", "trial_time: expected a number, got true$"),
        ("seed = 0", "settle = inf", "settle: expected a duration of at most 36500d, got inf$"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(StudyFileError, match=message):
        read(tmp_path, GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[space]", "[space.prun]\n[space]", r"study.toml: \[space\] has no stage 'prun'; did you"),
        ("ratio = [0.0, 0.8]", "ratoi = 0.5", "study.toml: .*prune.* 'ratoi'"),
        ("ratio = [0.0, 0.8]", "ratio = [0.0, 1.8]", "study.toml: .*prune.*ratio"),
    ],
)
def test_mistakes_in_the_space_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(SpaceError, match=message):
        read(tmp_path, GOOD.replace(old, new))


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="cannot read study file .*No such file"):
        StudyFile.read(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyFileError, match="not valid TOML"):
        StudyFile.read(tmp_path / "binary.toml")


@given(st.integers(0, 99), st.integers(0, 59), st.integers(1, 59))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('hang = "soon"', "hang: expected a duration such as 90s, 3m or 1h30m, got 'soon'$"),
        ("workers = true", "workers: expected a number, got true$"),
        ("cpus = nan", "cpus: expected a number, got nan$"),
        ("resources = { a = true }", "a: expected a number, got true$"),
        ("resources = true", "resources: .* dictionary, got true$"),
        (
            'name = "inline"\nmemory_mb = 5',
            "memory_mb: the engine 'inline' has no use for 'memory_mb'; process, ray has: take "
            '--engine process, or name = "process" in .engine.$',
        ),
    ],
)
def test_mistakes_in_the_engine_are_named(tmp_path: Path, line: str, message: str) -> None:
    name = "" if "name" in line else 'name = "ray"\n'
    with pytest.raises(StudyFileError, match=rf"study.toml: \[engine(.resources)?\] {message}"):
        read(tmp_path, f"{GOOD}[engine]\n{name}{line}\n")


def test_yes_and_no_are_still_taken_where_they_are_meant(tmp_path: Path) -> None:
    study = read(tmp_path, GOOD.replace("seed = 0", "gate = false"))
    assert study.study.gate is False


@pytest.mark.parametrize("text", ["", "3", "m", "-3m", "3m ", "0s", "1e3s", "٣m", f"{'9' * 400}d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        duration(text)


def test_the_environment_names_the_engine_of_studies_that_name_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = {"study": {"name": "x", "task": "x.py:task", "trials": 3}}
    monkeypatch.delenv(ENGINE_VARIABLE)
    assert StudyFile.of(content).engine.name == "process"
    monkeypatch.setenv(ENGINE_VARIABLE, "inline")
    assert StudyFile.of(content).engine.name == "inline"
    assert StudyFile.of(content | {"engine": {"name": "process"}}).engine.name == "process"
    monkeypatch.setenv(ENGINE_VARIABLE, "")
    assert StudyFile.of(content).engine.name == "process"
    monkeypatch.setenv(ENGINE_VARIABLE, "inlin")
    wrong = f"{ENGINE_VARIABLE} names an engine, .* no 'inlin'; did you mean 'inline'"
    for each in (content, content | {"engine": {"hang": "5m"}}):
        with pytest.raises(StudyFileError, match=wrong):
            StudyFile.of(each)
    assert StudyFile.of(content | {"engine": {"name": "process"}}).engine.name == "process"


def test_the_engine_of_the_environment_takes_what_means_something_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "study.toml"
    path.write_text(GOOD + '[engine]\nhang = "5m"\nmemory_mb = 500\n')
    monkeypatch.setenv(ENGINE_VARIABLE, "inline")
    inline = StudyFile.read(path)
    assert inline.engine == EngineSection(name="inline")
    assert StudyFile.model_validate(inline.model_dump(mode="json")) == inline
    named = Study.from_file(path, engine="process").settings.engine
    assert named == EngineSection(name="process", hang=300.0, memory_mb=500)
    monkeypatch.setenv(ENGINE_VARIABLE, "process")
    assert StudyFile.read(path).engine == named
    for engine in ("inline", "process"):
        monkeypatch.setenv(ENGINE_VARIABLE, engine)
        with pytest.raises(StudyFileError, match="unknown key 'hnag'; did you mean 'hang'"):
            read(tmp_path, GOOD + '[engine]\nhnag = "5m"\n')
    monkeypatch.delenv(ENGINE_VARIABLE)
    with pytest.raises(StudyFileError, match="'process' has no use for 'workers'"):
        read(tmp_path, GOOD + "[engine]\nworkers = 3\n")


def test_another_engine_takes_what_means_something_to_it() -> None:
    engine = {"name": "process", "hang": "2m", "memory_mb": 500}
    content = {"study": {"name": "x", "task": "x.py:task", "trials": 3}, "engine": engine}
    settings = StudyFile.of(content)
    assert (settings.engine.hang, settings.engine.memory_mb) == (120.0, 500)
    assert settings.on("process") == settings
    inline = settings.on("inline")
    assert inline.engine.memory_mb is None
    # As a study keeps them, with every key.
    assert StudyFile.model_validate(inline.model_dump(mode="json")) == inline
    for name, end in (("inlne", "did you mean 'inline'"), ("", "known are process, inline, ray")):
        with pytest.raises(StudyFileError, match=rf"^\[engine\] name: .*no such engine; {end}"):
            settings.on(name)
    joined = r"^\[engine\] address: the engine 'process' has no use for 'address'; ray has: take"
    with pytest.raises(StudyFileError, match=joined + " --engine ray, .*engine.$"):
        settings.on(None, "auto")
    with pytest.raises(
        StudyFileError, match="'inline' has no use for 'memory_mb'; process, ray has"
    ):
        StudyFile.of(content | {"engine": {"name": "inline", "memory_mb": 5}})
