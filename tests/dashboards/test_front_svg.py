"""The static picture of the front."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pandas as pd
import pytest

from parefront.dashboards.front_svg import HEIGHT, LOOKS, WIDTH, front_svg
from parefront.dashboards.probability import kinds
from parefront.search.summary import Summary
from tests.dashboards import frames

SVG = "{http://www.w3.org/2000/svg}"


def picture(trials: pd.DataFrame, summary: Summary | None = None) -> ET.Element:
    return ET.fromstring(front_svg(trials, summary or frames.summary()))  # noqa: S314


def texts(root: ET.Element) -> list[str]:
    return [each.text or "" for each in root.iter(f"{SVG}text")]


def test_draws_every_point_inside_the_picture() -> None:
    trials = frames.study(60)
    root = picture(trials)
    circles = list(root.iter(f"{SVG}circle"))
    baseline = trials["trial"] == 0
    for kind, (fill, _, edge) in LOOKS.items():
        drawn = [each for each in circles if (each.get("fill"), each.get("stroke")) == (fill, edge)]
        expected = ((kinds(trials) == kind) & ~baseline).sum()
        assert len(drawn) == expected + 1  # and one in the legend
    for circle in circles:
        assert 0 < float(circle.get("cx", "nan")) < WIDTH
        assert 0 < float(circle.get("cy", "nan")) < HEIGHT
    assert len(list(root.iter(f"{SVG}polygon"))) == 2  # the baseline, and in the legend


def test_more_accurate_is_higher_and_slower_is_further_right() -> None:
    trials = frames.study(60)
    front = trials[trials["on_front"]].sort_values("latency_ms")
    drawn = [
        (float(each.get("cx", "nan")), float(each.get("cy", "nan")))
        for each in picture(trials).iter(f"{SVG}circle")
        if each.get("fill") in (LOOKS["front"][0], LOOKS["certain"][0])
    ][:-2]
    across = sorted(x for x, _ in drawn)
    heights = dict(drawn)
    assert len(across) == len(set(across)) == len(front)
    ranks = pd.Series([-heights[x] for x in across]).rank().tolist()
    assert ranks == front["accuracy"].reset_index(drop=True).rank().tolist()


def test_has_titles_marks_and_a_background_of_its_own() -> None:
    root = picture(frames.study(60))
    assert "fashion-resnet18" in texts(root)
    assert "latency (ms), lower is better" in texts(root)
    assert "accuracy, higher is better" in texts(root)
    assert "area: file size" in texts(root)
    background = root.find(f"{SVG}rect")
    assert background is not None
    assert background.get("width") == str(WIDTH)
    assert background.get("fill") == "#ffffff"


def test_escapes_what_comes_from_outside() -> None:
    hostile = '</text><script>alert(1)</script>&"'
    labelled = tuple(replace(each, label=hostile) for each in frames.objectives())
    root = picture(frames.study(20), frames.summary(study=hostile, objectives=labelled))
    assert hostile in texts(root)
    assert not list(root.iter(f"{SVG}script"))


def test_without_measured_trials_it_says_so() -> None:
    assert "no trial has been measured yet" in texts(picture(frames.empty()))


def test_without_an_accuracy_or_a_cost_it_says_so() -> None:
    summary = frames.summary(objectives=frames.objectives()[:1])
    assert "nothing to compare accuracy with" in texts(picture(frames.study(9), summary))


def test_without_latency_the_file_size_takes_its_place() -> None:
    accuracy, _, size = frames.objectives()
    root = picture(frames.study(60), frames.summary(objectives=(accuracy, size)))
    assert "file size (MB), lower is better" in texts(root)


@pytest.mark.parametrize("count", [1, 3000])
def test_of_any_size_of_study(count: int) -> None:
    root = picture(frames.study(count))
    assert len(list(root.iter(f"{SVG}circle"))) < 700
