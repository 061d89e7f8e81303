"""The figure of a device's profile."""

from __future__ import annotations

import json

import pytest

from parefront.dashboards.figures.profile import KIND_LABELS, draw_profile, profile_data
from parefront.objectives.targets.profile import Kind, Point
from parefront.objectives.targets.profiling import KINDS, WIDTHS
from tests import profiles
from tests.profiles import cliff, points, steps

THREE: dict[Kind, tuple[Point, ...]] = {
    "conv": points(steps(16), noise=0.01),
    "depthwise": points(cliff(4), noise=0.01),
    "linear": points(steps(1), noise=0.01),
}


def test_data_of_each_kind() -> None:
    data = profile_data(profiles.profile(THREE))
    assert [panel.kind for panel in data.panels] == list(THREE)
    assert [panel.multiple for panel in data.panels] == [16, 4, 1]
    assert data.reference == 64
    for panel in data.panels:
        table = panel.points.set_index("width")
        assert table.index.tolist() == sorted(WIDTHS)
        point = next(p for p in THREE[panel.kind] if p.width == 48)
        row = table.loc[48]
        assert (row["low"], row["ratio"], row["high"]) == (point.low, point.ratio, point.high)
        assert row["per_channel"] == pytest.approx(point.ratio * 64 / 48)
        assert row["per_channel_low"] == pytest.approx(point.low * 64 / 48)
        assert row["per_channel_high"] == pytest.approx(point.high * 64 / 48)
        assert table.index[table["rounded"]].tolist() == [
            width for width in sorted(WIDTHS) if width % panel.multiple == 0
        ]


def test_every_kind_has_a_name() -> None:
    assert set(KIND_LABELS) == set(KINDS)


def test_draws_every_point_with_its_interval_twice() -> None:
    data = profile_data(profiles.profile(THREE))
    figure = draw_profile(data)
    for row in (0, 1):
        for column, panel in enumerate(data.panels):
            axis = f"x{row * 3 + column + 1}".replace("x1", "x")
            value = ("ratio", "per_channel")[row]
            low, high = (("low", "high"), ("per_channel_low", "per_channel_high"))[row]
            drawn = {}
            for trace in figure.data:
                if (trace.xaxis or "x") != axis or trace.mode != "markers":
                    continue
                for index, width in enumerate(trace.x):
                    below, above = trace.error_y.arrayminus[index], trace.error_y.array[index]
                    y = trace.y[index]
                    drawn[width] = pytest.approx((y, y - below, y + above))
            table = panel.points.set_index("width")
            assert drawn == {
                width: (row_[value], row_[low], row_[high]) for width, row_ in table.iterrows()
            }


def test_marks_the_multiple() -> None:
    figure = draw_profile(profile_data(profiles.profile(THREE)))
    titles = [note.text for note in figure.layout.annotations]
    assert titles == [
        "3x3 convolution<br>multiple: 16",
        "depthwise convolution<br>multiple: 4",
        "Linear<br>multiple: 1",
    ]
    assert figure.layout.xaxis.dtick == figure.layout.xaxis4.dtick == 16
    assert figure.layout.xaxis2.dtick == 8  # marks of 4 would be too many
    assert [trace.name for trace in figure.data if trace.showlegend is True] == [
        "width that is a multiple",
        "other width",
    ]


def test_one_kind_is_enough_and_the_figure_is_json() -> None:
    figure = draw_profile(profile_data(profiles.profile()))
    assert len(json.loads(figure.to_json())["data"]) == 6
