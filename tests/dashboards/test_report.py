"""The report: one valid, self-contained HTML file that says what it must and injects nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import plotly.offline
import pytest

from parefront.dashboards.report import report_html, write_report
from parefront.objectives.measurement import Direction
from parefront.search.summary import Summary
from tests.dashboards import frames

LIBRARY = "/* plotly.js v0 */"


@pytest.fixture(autouse=True)
def small_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a few bytes in the place of Plotly's five million, which take a second to parse."""
    if "real_library" not in request.fixturenames:
        monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: LIBRARY)


@pytest.fixture
def real_library() -> str:
    return str(plotly.offline.get_plotlyjs())


VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.ids: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def page(trials: pd.DataFrame, summary: Summary | None = None) -> Page:
    return Page(report_html(trials, summary or frames.summary()))


@pytest.fixture
def whole() -> Page:
    return page(frames.study(120))


def test_is_written_as_one_file(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(path, frames.study(30), frames.summary())
    assert path.read_text(encoding="utf-8") == report_html(frames.study(30), frames.summary())
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_loads_nothing_and_forbids_connections(whole: Page) -> None:
    names = {name for name, _ in whole.attributes}
    assert not names & {"src", "href", "srcset", "action", "data", "poster"}
    assert not {"link", "iframe", "object", "embed", "img", "a", "form"} & set(whole.elements)
    policy = next(value for name, value in whole.attributes if name == "content" and value)
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:", policy)


def test_holds_plotlys_library_once_and_still_parses(real_library: str) -> None:
    html = report_html(frames.study(20), frames.summary())
    assert html.count(real_library) == 1
    assert Page(html).scripts[1] == real_library


def test_styles_load_nothing() -> None:
    html = report_html(frames.study(20), frames.summary())
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_has_no_script_but_plotlys(whole: Page) -> None:
    figures = [each for each in whole.ids if each.startswith("figure-")]
    assert sorted(figures) == [
        *("figure-3d", "figure-history", "figure-latency_ms", "figure-parallel"),
        "figure-size_bytes",
    ]
    config, library, settings, *plots = whole.scripts
    assert config == 'window.PlotlyConfig = {MathJaxConfig: "local"};'
    assert library == LIBRARY
    assert settings == 'Plotly.setPlotConfig({showSendToCloud: false, plotlyServerURL: ""});'
    assert len(plots) == len(figures)
    for plot in plots:
        assert "Plotly.newPlot(" in plot
        assert '"showSendToCloud": false' in plot
    assert not [name for name, _ in whole.attributes if name.startswith("on")]


def test_shows_what_a_reader_needs(whole: Page) -> None:
    trials = frames.study(120)
    text = whole.text
    for expected in (
        "fashion-resnet18",
        "Knee",
        "within one point of the baseline's accuracy",
        "accuracy at least 0.85; latency at most 6 ms",
        "120 trials or 4 hours",
        "2026-03-05 14:30 UTC",
        "Intel Xeon Platinum 8481C",
        "memory gib",
        "2.13.0",
        "95 % Wilson interval",
        "the model has no attention",
        "baseline, not on the front",
        "quantization (mode static, per channel)",
        "the loss is not finite",
        "is over the bound of 6 ms",
    ):
        assert expected in text
    for _, row in trials[trials["on_front"]].iterrows():
        assert str(row["artifact_sha256"])[:12] in text
        assert f"{row['accuracy']:.4f}" in text
    assert "no-front" not in whole.ids


def test_says_how_sure_the_front_is(whole: Page) -> None:
    trials = frames.study(120)
    certain = trials["on_front"] & (trials["front_probability"] >= 0.95)
    assert f"of them certain {certain.sum()}" in whole.text
    possible = trials[~trials["on_front"] & (trials["front_probability"] >= 0.05)]
    possible = possible.sort_values("front_probability", ascending=False, kind="stable")
    assert whole.words.count("possible") == 12
    assert f"{len(possible) - 12} less probable are left out" in whole.text
    opened = pd.concat([trials[trials["on_front"]], possible[:12]])
    shown = [round(100 * each) for each in opened["front_probability"] if 0.01 < each < 0.99]
    assert shown
    for percent in shown:
        assert f"{percent} %" in whole.words


def test_a_further_target_has_its_own_probabilities() -> None:
    trials = frames.study(40)
    columns = ("on_front", "front_probability", "speedup")
    trials = trials.assign(**{f"{name}_pi": trials[name] for name in columns})
    trials["front_probability_pi"] = trials["front_probability_pi"].where(
        ~trials["on_front"], 0.4321
    )
    assert (trials["front_probability"] != 0.4321).all()
    found = page(trials, frames.summary(targets=("pi",)))
    assert found.words.count("43 %") >= trials["on_front"].sum()


def test_is_the_same_for_the_same_study() -> None:
    trials, summary = frames.study(40), frames.summary()
    assert report_html(trials, summary) == report_html(trials, summary)


HOSTILE = (
    '</script><script>alert(1)</script></style><img src="http://evil.example/x" onerror="alert(1)">'
    "<a href='javascript:alert(1)'>x</a>{{ 7 * 7 }}{% raw %}&amp;]]>--><!--"
)


def everywhere(text: str) -> Page:
    """A report in which a text stands wherever text from outside can stand."""
    objectives = tuple(
        replace(each, label=text, unit=each.unit or text) for each in frames.objectives()
    )
    summary = frames.summary(
        study=text,
        budget=text,
        protocol=text,
        fingerprint={text: text, "nested": {text: [text]}},
        versions={text: text},
        stages_left_out={text: text},
        objectives=objectives,
    )
    return page(frames.hostile_study(text), summary)


def test_text_from_outside_changes_no_markup() -> None:
    plain, hostile = everywhere("plain"), everywhere(HOSTILE)
    assert hostile.elements == plain.elements
    assert [name for name, _ in hostile.attributes] == [name for name, _ in plain.attributes]
    assert HOSTILE in "".join(hostile.words)
    assert "49" not in hostile.words
    for script in hostile.scripts[3:]:
        assert "<" not in script.replace("<br>", "")


def no_front() -> pd.DataFrame:
    return frames.study(40, trouble=False).assign(on_front=False, feasible=False)


def test_without_a_front_it_shows_what_came_nearest_to_the_bounds() -> None:
    summary = frames.summary(objectives=frames.objectives(at_most_ms=0.3))
    found = page(no_front(), summary)
    assert "no-front" in found.ids
    assert "front" not in found.ids
    assert "picks" not in found.ids
    assert "No candidate met the bounds." in found.text
    assert re.search(r"latency \S+ ms \(\d+ %\) above the bound", found.text)


def test_when_all_failed_it_says_so_with_the_reasons() -> None:
    trials = no_front().assign(state="failed", reason="out of memory")
    for column in [*frames.VALUES, "speedup", "shrink"]:
        trials[column] = float("nan")
    found = page(trials)
    assert "All 40 trials failed." in found.text
    assert re.search(r"40\s+out of memory\s+0, 1, 2, .* and 28 more", found.text)
    assert "figures" not in found.ids


def test_a_long_reason_is_folded_after_its_first_line() -> None:
    trials = frames.study(3, trouble=False)
    trials["state"] = ["complete", "complete", "failed"]
    trials["on_front"] = [True, True, False]
    trials["reason"] = pd.Series([None, None, "it broke\nline two\nline three"], dtype=object)
    found = page(trials)
    assert "it broke" in found.words
    assert "line two\nline three" in found.words


def test_when_only_the_baseline_is_left_it_says_so() -> None:
    objectives = frames.objectives(at_least=None, at_most_ms=None)
    trials = frames.study(1)
    trials["feasible"] = True
    found = page(frames.with_front(trials), frames.summary(objectives=objectives))
    assert "only-baseline" in found.ids
    assert "Only the unchanged model is on the front" in found.text


@pytest.mark.parametrize("count", [0, 1])
def test_tiny_studies(count: int) -> None:
    found = page(frames.study(count) if count else frames.empty())
    assert "no-front" in found.ids


def test_a_metric_to_be_minimised() -> None:
    accuracy, latency, size = frames.objectives(at_least=None)
    error = replace(accuracy, direction=Direction.MINIMIZE, label="rmse")
    found = page(frames.study(40), frames.summary(objectives=(error, latency, size)))
    assert "rmse (lower is better)" in found.text


def test_further_objectives_have_a_column_and_a_figure() -> None:
    memory = replace(
        frames.objectives()[1], name="memory", column="memory_bytes", unit="B", label="peak memory"
    )
    trials = frames.study(40)
    for end in ("", "_low", "_high"):
        trials[f"memory_bytes{end}"] = trials["size_bytes"] * 3
    found = page(trials, frames.summary(objectives=(*frames.objectives(), memory)))
    assert "figure-memory_bytes" in found.ids
    assert "Best peak memory" in found.text
    assert "peak memory (lower is better)" in found.text


@pytest.mark.slow
def test_ten_thousand_trials_make_a_report_of_a_few_megabytes() -> None:
    html = report_html(frames.study(10_000), frames.summary())
    assert 'id="figure-parallel"' in html
    assert len(html) < 6_000_000
