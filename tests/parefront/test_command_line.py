"""The command line as a user calls it: what it prints, writes and refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import parefront as pf
from parefront.objectives.catalog import OBJECTIVES
from parefront.search.engines.catalog import ENGINES
from parefront.search.engines.section import EngineSection
from parefront.search.study_section import StudySection
from parefront.spaces.catalog import STAGES
from tests.parefront.commands import FILE, TASK, command, in_folder


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a finished study, and what its launch printed."""
    folder = in_folder(tmp_path_factory.mktemp("done"))
    launched = command("launch", "study.toml", cwd=folder)
    assert launched.returncode == 0, launched.stderr
    return folder, launched.stdout


@pytest.mark.slow
def test_a_launch_ends_with_the_front_the_report_and_what_to_do_next(
    done: tuple[Path, str],
) -> None:
    folder, printed = done
    assert "The search ended: 8 trials are done." in printed
    assert "front of tiny" in printed
    (report,) = re.findall(r"report: (\S+\.html)", printed)
    assert (folder / report).stat().st_size > 100_000
    commands = re.findall(r"^  (parefront .+)$", printed, re.MULTILINE)
    assert len(commands) == 3
    for line in commands[:2]:
        followed = command(*line.split()[1:], cwd=folder)
        assert followed.returncode == 0, (line, followed.stderr)


@pytest.mark.slow
def test_the_json_of_a_front_is_for_programs(done: tuple[Path, str]) -> None:
    folder, _ = done
    shown = command("front", "tiny", "--json", cwd=folder)
    content = json.loads(shown.stdout)
    assert content["study"] == "tiny"
    assert content["baseline"]["trial"] == 0
    assert content["baseline"]["candidate"] == {}
    assert content["front"]
    for entry in [content["baseline"], *content["front"]]:
        for column in ("accuracy", "latency_ms", "size_bytes"):
            low, high = entry[f"{column}_interval"]
            assert low <= entry[column] <= high
        assert len(entry["artifact_sha256"]) == 64
        assert isinstance(entry["candidate"], dict)
        assert 0 <= entry["front_probability"] <= 1


@pytest.mark.slow
def test_the_certain_and_the_possible_front(done: tuple[Path, str]) -> None:
    folder, _ = done
    trials = {}
    for option in ("--certain", "--json", "--possible"):
        shown = command("front", "tiny", "--json", option, cwd=folder)
        trials[option] = {entry["trial"] for entry in json.loads(shown.stdout)["front"]}
        table = command("front", "tiny", *{option} - {"--json"}, cwd=folder)
        assert table.returncode == 0, table.stderr
    assert trials["--certain"] <= trials["--json"] <= trials["--possible"]
    assert "possible front of tiny: " in table.stdout
    both = command("export", "tiny", "--pick", "size=2 accuracy=1 and size_kb<=15", "-o", "w",
                   cwd=folder)  # fmt: skip
    assert both.returncode == 0, both.stderr


@pytest.mark.slow
def test_export_runs_verifies_and_fails_when_changed(done: tuple[Path, str]) -> None:
    folder, _ = done
    exported = command("export", "tiny", "--pick", "size_kb<=15", "-o", "small", cwd=folder)
    assert exported.returncode == 0, exported.stderr
    ran = subprocess.run(
        [sys.executable, "-I", "run.py"], cwd=folder / "small", capture_output=True, check=False
    )
    assert ran.returncode == 0
    verified = command("verify", "small", cwd=folder)
    assert verified.returncode == 0
    metrics = json.loads((folder / "small" / "metrics.json").read_text())
    for split in ("validation", "test"):
        (value,) = re.findall(rf"accuracy \({split}\): (\S+)", verified.stdout)
        assert float(value) == metrics[split]["accuracy"]["value"]
    model = folder / "small" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\x7f")
    broken = command("verify", "small", cwd=folder)
    assert broken.returncode == 1
    assert "model.onnx changed" in broken.stderr


@pytest.mark.slow
def test_studies_are_listed(done: tuple[Path, str]) -> None:
    folder, _ = done
    listed = command("studies", cwd=folder)
    assert listed.returncode == 0
    assert "tiny" in listed.stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("launch", "none.toml"), 2, "cannot read study file none.toml"),
        (("launch", "study.toml", "--time", "soon"), 2, "--time: expected a duration"),
        (("front", "tiny"), 1, "there is no storage"),
        (("export", "tiny", "-o", "x", "--trial", "1", "--pick", "knee"), 2, "not both"),
        (("front", "tiny", "--certain", "--possible"), 2, "not both"),
        (("verify", "none"), 1, "no folder none"),
        (("launch", "study.toml", "--trials", "0"), 2, "--trials"),
        (("launch", "study.toml", "--time", "9999999999d"), 2, "--time: expected a duration of at"),
        (("launch", "study.toml", "--engine", "proces"), 2, "did you mean 'process'?"),
        (("launch", "study.toml", "--engine", ""), 2, "there is no such engine"),
        (
            ("launch", "study.toml", "--address", "auto"),
            2,
            "[engine] address: the engine 'process' has no use for 'address'; ray has: take",
        ),
        (("launch", "study.toml", "--storage", "nonsense"), 2, "expected a storage URL"),
        (("studies", "--storage", ""), 2, "expected a storage URL"),
        (("launch", "study.toml", "--storage", ""), 2, "expected a storage URL"),
        (("front", "tiny", "--storage", "sqlite:///study.toml"), 1, "is not a database"),
    ],
)
def test_wrong_use_is_one_sentence_and_an_exit_code(
    tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    shown = command(*words, cwd=in_folder(tmp_path))
    assert shown.returncode == code, shown.stderr
    assert message in shown.stderr
    assert "Traceback" not in shown.stderr


def test_an_empty_pick_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from parefront.__main__ import app

    picked: list[str] = []

    class Found:
        @classmethod
        def load(cls, name: str, storage: str | None) -> Found:
            return cls()

        def pick(self, wanted: str, target: str | None) -> None:
            picked.append(wanted)
            raise pf.errors.PickError

    monkeypatch.setattr("parefront.study.Study", Found)
    for words in (["--pick", ""], []):
        CliRunner().invoke(app, ["export", "tiny", "-o", "x", *words])
    assert picked == ["", "knee"]


def test_help_explains_every_key_of_a_study_file(tmp_path: Path) -> None:
    shown = command("help", "study", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    keys = [*StudySection.model_fields, *(objective.name for objective in OBJECTIVES)]
    keys += [*EngineSection.model_fields, *ENGINES]
    keys += [*pf.Target.model_fields, *(stage.name for stage in STAGES)]
    keys += [key for stage in STAGES for key in stage.choices_type.model_fields]
    for key in keys:
        assert key in shown.stdout, key
    for table in ("[study]", "[target]", "[engine]"):
        assert re.search(rf"^{re.escape(table)} *\n┏", shown.stdout, re.MULTILINE), table
    # Each key of a stage has a meaning: no row ends with an empty cell after a default.
    rows = [line.split("│")[1:-1] for line in shown.stdout.splitlines() if line.startswith("│")]
    assert rows
    assert not [cells for cells in rows if cells[0].strip() and not cells[-1].strip()]


def test_help_names_what_is_possible_beyond_the_defaults(tmp_path: Path) -> None:
    shown = " ".join(command("help", "study", cwd=tmp_path).stdout.replace("│", " ").split())
    for values in (
        "'ratio', 'sensitivity', 'latency', 'energy'",
        "'spatial', 'tucker', 'separable', 'grouped', 'bottleneck'",
        "'once', 'linear', 'cubic', 'rounds'",
        "'timed', 'fixed'",
    ):
        assert f"Possible are {values}." in shown
    assert "Possible are True" not in shown


@pytest.mark.parametrize(
    "name",
    [
        "launch",
        "studies",
        "front",
        "report",
        "export",
        "verify",
        "profile",
        "agent",
        "serve-storage",
        "help",
    ],
)
def test_every_command_has_help(tmp_path: Path, name: str) -> None:
    from typer.testing import CliRunner

    from parefront.__main__ import app

    shown = CliRunner().invoke(app, [name, "--help"])
    assert shown.exit_code == 0
    if name not in ("verify", "agent", "help"):
        assert name == "help" or "storage" in shown.stdout


def test_the_help_of_launch_names_all_engines(tmp_path: Path) -> None:
    shown = " ".join(command("launch", "--help", cwd=tmp_path).stdout.replace("│", " ").split())
    for name, kind in ENGINES.items():
        assert f"'{name}': {kind.about}." in shown, name


def test_the_version_is_printed(tmp_path: Path) -> None:
    shown = command("--version", cwd=tmp_path)
    assert (shown.returncode, shown.stdout) == (0, f"parefront {version('parefront')}\n")
    about = command("--help", cwd=tmp_path).stdout
    assert "--version" in about
    assert "Search for Pareto-optimal compressed PyTorch models" in about


@pytest.mark.slow
def test_a_baseline_that_fails_ends_it_and_what_it_says_is_shown_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "import parefront as pf\n"
        f"sys.path.insert(0, {str(TASK.parents[1])!r})\n"
        "from tests.tiny import make\n"
        "def metric(outputs, targets):\n"
        "    if len(targets) > 64 and not Path('mended').exists():\n"
        "        raise RuntimeError('shapes [128] and [/closed] differ [red]x')\n"
        "    return float((outputs.argmax(1) == targets).mean())\n"
        "task = make(metric=pf.Metric('fussy', metric))\n"
    )
    in_folder(tmp_path, FILE.replace(f"{TASK}", "task.py"))
    ended = command("launch", "study.toml", cwd=tmp_path)
    reason = "RuntimeError: shapes [128] and [/closed] differ [red]x"
    assert ended.returncode == 1
    assert f"trial   0  failed: {reason}" in ended.stdout
    assert ended.stderr.startswith("error: the unchanged model failed in trial 0")
    assert reason in ended.stderr
    shown = command("front", "tiny", cwd=tmp_path)
    assert f"all 1 trials failed, so there is no front; most often: {reason}" in shown.stdout
    (tmp_path / "mended").touch()
    assert command("launch", "study.toml", cwd=tmp_path).returncode == 0
    assert command("export", "tiny", "-o", "bundle", cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_a_report_that_cannot_be_written_is_said_after_the_front(tmp_path: Path) -> None:
    in_folder(tmp_path)
    (tmp_path / ".parefront").mkdir()
    (tmp_path / ".parefront" / "reports").touch()
    ended = command("launch", "study.toml", "--trials", "2", "--engine", "inline", cwd=tmp_path)
    assert ended.returncode == 2
    assert "The search ended" in ended.stdout
    assert "trial" in ended.stdout.split("The search ended")[1]
    assert "cannot write .parefront/reports/tiny.html: Not a directory" in " ".join(
        ended.stderr.split()
    )
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_an_impossible_bound_ends_and_says_what_came_nearest(tmp_path: Path) -> None:
    text = FILE + "[objectives]\naccuracy = {}\nlatency = {}\nsize = { at_most = 10 }\n"
    ended = command("launch", "study.toml", cwd=in_folder(tmp_path, text))
    assert ended.returncode == 1
    assert "no candidate met the bounds (size_bytes <= 10)" in ended.stdout
    assert re.search(r"trial \d+ came nearest: .*size_bytes \d+", ended.stdout)
