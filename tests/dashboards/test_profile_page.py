"""The page of a profile: one valid, self-contained HTML file that injects nothing."""

from __future__ import annotations

import re
from pathlib import Path

import plotly.offline
import pytest

from parefront.dashboards.profile_page import profile_html, write_profile_page
from tests import profiles
from tests.dashboards.test_report import HOSTILE, LIBRARY, Page
from tests.profiles import points, steps

REAL_LIBRARY = str(plotly.offline.get_plotlyjs())


@pytest.fixture(autouse=True)
def small_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: LIBRARY)


def test_loads_nothing_and_forbids_connections(tmp_path: Path) -> None:
    path = tmp_path / "profile.html"
    path.write_text("old")
    write_profile_page(path, profiles.profile())
    html = path.read_text(encoding="utf-8")
    assert html == profile_html(profiles.profile())
    assert html.startswith("<!doctype html>")
    page = Page(html)
    assert not {name for name, _ in page.attributes} & {"src", "href", "srcset", "action", "data"}
    assert not {"link", "iframe", "object", "embed", "img", "a", "form"} & set(page.elements)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    policy = next(value for name, value in page.attributes if name == "content" and value)
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:", policy)
    config, library, settings, plot = page.scripts
    assert config == 'window.PlotlyConfig = {MathJaxConfig: "local"};'
    assert library == LIBRARY
    assert settings == 'Plotly.setPlotConfig({showSendToCloud: false, plotlyServerURL: ""});'
    assert "Plotly.newPlot(" in plot
    assert '"showSendToCloud": false' in plot
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_holds_the_real_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: REAL_LIBRARY)
    assert profile_html(profiles.profile()).count(REAL_LIBRARY) == 1


def test_shows_what_a_reader_needs() -> None:
    kinds = {"conv": points(steps(16), noise=0.02), "linear": points(steps(8), widths=(32, 48))}
    text = Page(profile_html(profiles.profile(kinds))).text  # type: ignore[arg-type]
    for expected in (
        "Imagined 9000",
        "2026-03-05 14:30 UTC",
        "multiple for 3x3 convolution 16",
        "multiple for Linear 16",
        "multiples of 16",
        '["avx2"]',
        "64 1.00 1.00 1.00 1.00",
    ):
        assert expected in text
    point = next(p for p in kinds["conv"] if p.width == 56)
    assert f"{point.ratio:.2f} {point.low:.2f} to {point.high:.2f}" in text


def test_text_from_the_device_changes_no_markup() -> None:
    plain, hostile = (
        Page(profile_html(profiles.profile(facts={"cpu": text, text: [text]})))
        for text in ("plain", HOSTILE)
    )
    assert hostile.elements == plain.elements
    assert [name for name, _ in hostile.attributes] == [name for name, _ in plain.attributes]
    assert HOSTILE in "".join(hostile.words)
