"""How latency steps with width on a device, by kind of layer."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from parefront.dashboards.figures.style import FRONT, OTHER, base_figure
from parefront.objectives.targets.profile import Kind, Profile, channel_multiple

KIND_LABELS: dict[Kind, str] = {
    "conv": "3x3 convolution",
    "depthwise": "depthwise convolution",
    "linear": "Linear",
}

LEAST_STEP = 8
"""Least distance of the marks on the axis of widths."""


@dataclass(frozen=True)
class Panel:
    """What the figure shows of one kind of layer.

    Attributes:
        kind: The kind.
        label: What it is called.
        multiple: The multiple that the profile chooses for it.
        points: One row a width, ascending, with columns `width`; `ratio`, `low` and `high`,
            latency relative to the reference width with its interval; `per_channel`,
            `per_channel_low` and `per_channel_high`, the same divided by the relative width; and
            `rounded`, whether the width is a multiple of `multiple`.
    """

    kind: Kind
    label: str
    multiple: int
    points: pd.DataFrame


@dataclass(frozen=True)
class ProfileData:
    """What the figure shows.

    Attributes:
        panels: One a kind.
        reference: Width whose latency is 1.
    """

    panels: tuple[Panel, ...]
    reference: int


def profile_data(profile: Profile) -> ProfileData:
    """Latency and latency per channel of each width."""
    return ProfileData(
        tuple(_panel(profile, kind) for kind in profile.kinds),
        profile.reference,
    )


def _panel(profile: Profile, kind: Kind) -> Panel:
    multiple = channel_multiple(profile, kind)
    points = pd.DataFrame([point.model_dump() for point in profile.kinds[kind]])
    share = points["width"] / profile.reference
    for source, column in (("ratio", ""), ("low", "_low"), ("high", "_high")):
        points[f"per_channel{column}"] = points[source] / share
    points["rounded"] = points["width"] % multiple == 0
    return Panel(kind, KIND_LABELS[kind], multiple, points)


def draw_profile(data: ProfileData) -> go.Figure:
    """Draws a column a kind: latency above, latency per channel below, each against width."""
    figure = make_subplots(
        rows=2,
        cols=len(data.panels),
        shared_xaxes=True,
        vertical_spacing=0.07,
        horizontal_spacing=0.06,
        column_titles=[f"{panel.label}<br>multiple: {panel.multiple}" for panel in data.panels],
        figure=base_figure(620),
    )
    for column, panel in enumerate(data.panels, start=1):
        for row, value in ((1, ""), (2, "per_channel")):
            _line(figure, panel, value, row, column)
            for rounded in (True, False):
                _points(figure, panel, value, rounded, row, column)
    # Axes made by `make_subplots` are dressed as the shared look dresses the first.
    base = base_figure(620).layout
    figure.update_xaxes(base.xaxis)
    figure.update_yaxes(base.yaxis)
    figure.update_yaxes(rangemode="tozero")
    for column, panel in enumerate(data.panels, start=1):
        # The vertical lines of the grid are the multiples themselves, where they are not too many.
        figure.update_xaxes(tick0=0, dtick=max(panel.multiple, LEAST_STEP), col=column)
    figure.update_xaxes(title={"text": "width, channels"}, row=2)
    against = f"relative to {data.reference}"
    figure.update_yaxes(title={"text": f"latency<br>{against}"}, row=1, col=1)
    figure.update_yaxes(title={"text": f"latency per channel<br>{against}"}, row=2, col=1)
    figure.update_layout(margin={"t": 72}, legend={"entrywidth": 210, "y": -0.14})
    return figure


def _line(figure: go.Figure, panel: Panel, value: str, row: int, column: int) -> None:
    """Joins the multiples: what any other width is compared with."""
    kept = panel.points[panel.points["rounded"]]
    figure.add_scatter(
        x=kept["width"],
        y=kept[value or "ratio"],
        mode="lines",
        line={"color": FRONT, "width": 1, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
        row=row,
        col=column,
    )


def _points(
    figure: go.Figure, panel: Panel, value: str, rounded: bool, row: int, column: int
) -> None:
    shown = panel.points[panel.points["rounded"] == rounded]
    y = shown[value or "ratio"]
    low, high = (shown[f"{value}_{end}" if value else end] for end in ("low", "high"))
    figure.add_scatter(
        x=shown["width"],
        y=y,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": high - y,
            "arrayminus": y - low,
            "thickness": 1,
            "width": 2,
        },
        customdata=pd.DataFrame({"low": low, "high": high}).to_numpy(),
        mode="markers",
        name="width that is a multiple" if rounded else "other width",
        legendgroup=str(rounded),
        showlegend=(row, column) == (1, 1),
        marker={"color": FRONT if rounded else OTHER, "size": 8 if rounded else 6},
        hovertemplate="%{x} channels<br>%{y:.3f} (%{customdata[0]:.3f} to %{customdata[1]:.3f})"
        "<extra></extra>",
        row=row,
        col=column,
    )
