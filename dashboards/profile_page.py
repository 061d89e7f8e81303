"""The page of a device's profile: one HTML file that needs nothing else, not even a network."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import plotly.io
import plotly.offline
from markupsafe import Markup

from parefront.dashboards.figures.profile import Panel, ProfileData, draw_profile, profile_data
from parefront.dashboards.report_figures import PLOT_CONFIG
from parefront.objectives.targets.profile import Profile, channel_multiple

_PANEL_WIDTH = 300
"""Least width of a column of the figure in pixels."""


def write_profile_page(path: Path, profile: Profile) -> None:
    """Writes a profile as one self-contained HTML file.

    As a study's report, the file holds Plotly's script, all data and all styles, and forbids
    itself any connection; what comes from the device is escaped.

    Args:
        path: File to write; an existing one is replaced.
        profile: What was measured.

    Raises:
        OSError: If the file cannot be written.
    """
    path.write_text(profile_html(profile), encoding="utf-8")


def profile_html(profile: Profile) -> str:
    """The page as the text of an HTML file."""
    folder = files("parefront.dashboards")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(folder.joinpath("profile.html").read_text(encoding="utf-8"))
    data = profile_data(profile)
    figure = plotly.io.to_html(
        draw_profile(data),
        config=PLOT_CONFIG,
        include_plotlyjs=False,
        full_html=False,
        div_id="figure-profile",
    )
    return template.render(
        profile=profile,
        device=profile.fingerprint.get("cpu") or "Device",
        created=profile.created.strftime("%Y-%m-%d %H:%M %Z").strip(),
        panels=data.panels,
        multiple=channel_multiple(profile),
        rows=table_rows(data),
        facts={key: _fact(value) for key, value in profile.fingerprint.items()},
        least_width=_PANEL_WIDTH * len(data.panels),
        # Plotly writes "<", ">" and "/" of the data as escapes of JSON.
        figure=Markup(figure),  # noqa: S704
        # Both are shipped with a package and hold nothing of the device.
        css=Markup(folder.joinpath("report.css").read_text(encoding="utf-8")),  # noqa: S704
        plotly=Markup(plotly.offline.get_plotlyjs()),  # noqa: S704
    )


def table_rows(data: ProfileData) -> list[dict[str, Any]]:
    """The texts of a table of all widths.

    Returns:
        A row for each width that any kind has, ascending: its `width` and, in `cells`, a
        mapping with `ratio`, `interval` and `per_channel` for each kind, empty texts where it
        was not measured.
    """
    widths = sorted({int(width) for panel in data.panels for width in panel.points["width"]})
    return [
        {"width": width, "cells": [_cell(panel, width) for panel in data.panels]}
        for width in widths
    ]


def _cell(panel: Panel, width: int) -> dict[str, str]:
    found = panel.points[panel.points["width"] == width].to_dict("records")
    if not found:
        return dict.fromkeys(("ratio", "interval", "per_channel"), "")
    point = found[0]
    exact = point["low"] == point["high"]
    return {
        "ratio": f"{point['ratio']:.2f}",
        "interval": "" if exact else f"{point['low']:.2f} to {point['high']:.2f}",
        "per_channel": f"{point['per_channel']:.2f}",
    }


def _fact(value: object) -> str:
    return json.dumps(value, default=str) if isinstance(value, dict | list | tuple) else str(value)
