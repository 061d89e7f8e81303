"""The command `profile`: measured once, kept, shown, and nothing left of what was cut short."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner, Result

from parefront.__main__ import app
from parefront.errors import UsageError
from parefront.objectives.targets.fixed import FixedDevice
from parefront.objectives.targets.profile_cache import profiled_multiple
from parefront.profiling import doubt
from tests import profiles
from tests.profiles import points, steps

FACTS = FixedDevice().fingerprint("onnxruntime", 1)


@pytest.fixture
def timings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In an empty folder, on a device without a clock; lists what it was given to time."""
    found: list[str] = []
    ratios = FixedDevice.time

    def counted(self: FixedDevice, candidate: Path, *args: Any, **kwargs: Any) -> Any:
        found.append(candidate.name)
        return ratios(self, candidate, *args, **kwargs)

    monkeypatch.setattr(FixedDevice, "time", counted)
    monkeypatch.setattr("parefront.objectives.targets.local.LocalDevice", FixedDevice)
    monkeypatch.setattr("parefront.profiling.WIDTHS", (32, 48, 64, 96))
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "/* plotly */")
    monkeypatch.chdir(tmp_path)
    return found


def call(*words: str) -> Result:
    return CliRunner().invoke(app, ["profile", *words])


def files() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()}


def test_is_measured_once_and_shown(timings: list[str]) -> None:
    first = call()
    assert first.exit_code == 0, first.output
    assert len(timings) == len(set(timings)) == 9
    assert "measuring 9 small models" in first.output
    assert "rounded to multiples of 16" in first.output
    assert profiled_multiple(Path(".parefront"), FACTS) == 16
    (page,) = Path(".parefront/profiles").glob("*.html")
    (kept,) = Path(".parefront/profiles").glob("*.json")
    assert f"page: {page}" in first.output
    assert f"profile: {kept}" in first.output
    before = kept.read_bytes()
    second = call("--output", "mine.html")
    assert second.exit_code == 0
    assert len(timings) == 9
    assert second.output.splitlines()[-2:] == [f"profile: {kept}", "page: mine.html"]
    assert kept.read_bytes() == before
    assert "<title>Device profile" in Path("mine.html").read_text()
    assert call("--again").exit_code == 0
    assert len(timings) == 18


def test_another_number_of_threads_is_another_profile(timings: list[str]) -> None:
    assert call().exit_code == 0
    if len(os.sched_getaffinity(0)) > 1:
        assert call("--threads", "2").exit_code == 0
        assert len(timings) == 18
        assert len(list(Path(".parefront/profiles").glob("*.json"))) == 2


def test_is_kept_beside_the_studies_of_a_storage(timings: list[str]) -> None:
    assert call("--storage", "sqlite:///elsewhere/studies.db").exit_code == 0
    assert profiled_multiple(Path("elsewhere"), FACTS) == 16
    assert not Path(".parefront").exists()


def test_a_damaged_profile_is_measured_again_and_said_so(timings: list[str]) -> None:
    assert call().exit_code == 0
    (kept,) = Path(".parefront/profiles").glob("*.json")
    content = json.loads(kept.read_text())
    for damaged in (kept.read_text()[:100], json.dumps(content | {"version": 2})):
        kept.write_text(damaged)
        shown = call()
        assert shown.exit_code == 0
        assert "measuring again: " in shown.output
        assert "is no profile of this version" in shown.output
        assert profiled_multiple(Path(".parefront"), FACTS) == 16
    assert len(timings) == 27


def test_cut_short_the_old_profile_stays(
    timings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call().exit_code == 0
    before = {name: Path(name).read_bytes() for name in files()}

    def interrupted(self: FixedDevice, *args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(FixedDevice, "time", interrupted)
    stopped = call("--again")
    assert stopped.exit_code == 130
    assert {name: Path(name).read_bytes() for name in files()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--runtime", "none"), "expected a runtime of"),
        (("--threads", "100000"), "--threads: expected at most"),
        (("--output", "page.txt"), "expected an .html file"),
        (("--output", "nowhere/page.html"), "in a folder that exists"),
        (("--output", "folder.html"), "cannot write folder.html: Is a directory"),
        (("--output", "/proc/page.html"), "cannot write /proc/page.html: "),
    ],
)
def test_wrong_use_is_told_before_anything_is_measured(
    timings: list[str], words: tuple[str, ...], message: str
) -> None:
    Path("folder.html").mkdir()
    shown = call(*words)
    assert isinstance(shown.exception, UsageError)
    assert message in str(shown.exception)
    assert timings == []
    assert files() == set()


def test_a_noisy_profile_is_doubted() -> None:
    assert doubt(profiles.profile()) == ""
    assert doubt(profiles.profile({"conv": points(steps(16), noise=0.03)})) == ""
    noisy = profiles.profile({"conv": points(steps(16), noise=0.1)})
    assert "±20% for half of the widths" in doubt(noisy)


def measures(process: psutil.Process) -> bool:
    try:
        return "parefront.objectives.targets.worker" in process.cmdline()
    except psutil.Error:
        return False


@pytest.mark.slow
def test_ctrl_c_in_a_real_measurement_leaves_nothing(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "parefront", "profile"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        process = psutil.Process(running.pid)
        deadline = time.monotonic() + 120
        while not (workers := [each for each in process.children() if measures(each)]):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        printed = running.communicate()[0]
    assert running.returncode == 130, printed
    assert "stopped; nothing was written" in printed
    assert "Traceback" not in printed
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
    assert not (tmp_path / ".parefront").exists()
    assert [path for path in scratch.glob("parefront-*") if path.is_dir()] == []
