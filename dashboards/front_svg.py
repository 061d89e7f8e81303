"""The front as a small static picture, for READMEs and model cards."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from itertools import pairwise

import numpy as np
import pandas as pd

from parefront.dashboards.figures import TradeoffData, tradeoff_data
from parefront.dashboards.figures.ticks import linear_ticks, log_ticks
from parefront.dashboards.frame import ACCURACY, Floats, Row, evenly, objective_of, rows
from parefront.dashboards.probability import ON_FRONT
from parefront.dashboards.words import axis_text, round_text, unit_scale
from parefront.search.summary import ObjectiveSummary, Summary

WIDTH, HEIGHT = 720, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 24, 64, 64

_PAPER, _INK, _SOFT, _LINE = "#ffffff", "#171c26", "#566072", "#e3e6ec"
_FRONT, _BASELINE, _OTHER = "#2b7de0", "#d9780f", "#aab2bf"
LOOKS = {
    "possible": (_PAPER, 0.9, _FRONT),
    "front": ("#9cc3f0", 0.9, _FRONT),
    "certain": (_FRONT, 0.9, _PAPER),
}
"""Fill, its opacity and the edge of what is on the front or may be, the most certain on top."""

_MOST = 500
"""How many of the points that are not on the front are drawn, evenly taken."""

Scale = Callable[[float], float]


def front_svg(trials: pd.DataFrame, summary: Summary) -> str:
    """Draws the task's metric against latency, with the front, the baseline and the file sizes.

    The picture has a background of its own, so it reads the same on white and on dark pages, no
    script and no link.

    Args:
        trials: One row a trial.
        summary: The study; without an objective `latency_ms` the file size takes its place.

    Returns:
        An SVG document. Without measured trials it says so in place of the points.
    """
    metric = objective_of(summary, ACCURACY)
    cost = objective_of(summary, "latency_ms") or objective_of(summary, "size_bytes")
    parts = [_text(_LEFT, 30, summary.study, size=17, weight=650, color=_INK)]
    if metric is None or cost is None:
        return _document(summary.study, [*parts, _message("nothing to compare accuracy with")])
    size = objective_of(summary, "size_bytes") if cost.column == "latency_ms" else None
    data = tradeoff_data(trials, summary, cost, metric, size)
    if len(data.points) == 0:
        return _document(summary.study, [*parts, _message("no trial has been measured yet")])
    shown = _in_view(data)
    x = _scale(shown["x"].to_numpy(float), _LEFT, WIDTH - _RIGHT, log=data.log_x)
    bottom = HEIGHT - _BOTTOM
    spread = shown[["y", "y_low", "y_high"]].to_numpy(float).ravel()
    y = _scale(spread, bottom, _TOP, log=data.log_y)
    parts += _vertical_marks(shown["x"].to_numpy(float), cost, x, log=data.log_x)
    parts += _horizontal_marks(spread, metric, y, log=data.log_y)
    parts += _points(shown, data.outline, x, y)
    parts += _legend(size)
    return _document(summary.study, parts)


def _in_view(data: TradeoffData) -> pd.DataFrame:
    return data.points if data.view is None else data.points[data.points["y"].between(*data.view)]


def _scale(values: Floats, start: float, end: float, *, log: bool) -> Scale:
    """Maps values to pixels from start to end, with a margin of 4 % on both sides."""
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    if log:
        low, high = float(np.log10(low)), float(np.log10(high))
    width = (high - low) or 1.0
    low, width = low - 0.04 * width, 1.08 * width

    def place(value: float) -> float:
        position = (np.log10(value) if log else value) - low
        return float(start + (end - start) * position / width)

    return place


def _vertical_marks(
    values: Floats, objective: ObjectiveSummary, x: Scale, *, log: bool
) -> list[str]:
    factor, unit = unit_scale(values, objective.unit)
    parts = []
    for mark in _marks(values / factor, log=log):
        place = x(mark * factor)
        if _LEFT <= place <= WIDTH - _RIGHT:
            parts.append(_line(place, _TOP, place, HEIGHT - _BOTTOM, _LINE))
            label = round_text(mark, "")
            parts.append(_text(place, HEIGHT - _BOTTOM + 20, label, anchor="middle"))
    title = axis_text(objective, unit)
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    return [*parts, _text(middle, HEIGHT - 18, title, anchor="middle", color=_INK)]


def _horizontal_marks(
    values: Floats, objective: ObjectiveSummary, y: Scale, *, log: bool
) -> list[str]:
    parts = []
    for mark in _marks(values[np.isfinite(values)], log=log):
        place = y(mark)
        if _TOP <= place <= HEIGHT - _BOTTOM:
            parts.append(_line(_LEFT, place, WIDTH - _RIGHT, place, _LINE))
            parts.append(_text(_LEFT - 10, place + 4, round_text(mark, ""), anchor="end"))
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    title = _text(
        22, middle, axis_text(objective, objective.unit), anchor="middle", color=_INK, turned=True
    )
    return [*parts, title]


def _marks(values: Floats, *, log: bool) -> list[float]:
    return (log_ticks if log else linear_ticks)(float(values.min()), float(values.max()))


def _points(shown: pd.DataFrame, outline: Floats, x: Scale, y: Scale) -> list[str]:
    """The points, the unremarkable first, so that the front and the baseline lie on top."""
    others = shown[shown["kind"].isin(["other", "outside"]) & ~shown["baseline"]]
    others = others.iloc[evenly(len(others), _MOST)]
    parts = [
        _circle(x(point["x"]), y(point["y"]), point["diameter"] / 2, _OTHER, 0.55)
        for point in rows(others)
    ]
    corners = [(x(across), y(up)) for across, up in outline]
    steps = [f"{across:.1f},{up:.1f}" for across, up in corners[:1]]
    for (_, before), (across, up) in pairwise(corners):
        steps += [f"{across:.1f},{before:.1f}", f"{across:.1f},{up:.1f}"]
    if len(steps) > 1:
        parts.append(
            f'<polyline points="{" ".join(steps)}" fill="none" stroke="{_FRONT}" '
            'stroke-width="1.5"/>'
        )
    for kind, look in LOOKS.items():
        for point in rows(shown[(shown["kind"] == kind) & ~shown["baseline"]]):
            radius = point["diameter"] / 2
            if kind in ON_FRONT:
                parts.append(_interval(point, x, y, _FRONT))
            parts.append(_circle(x(point["x"]), y(point["y"]), radius, *look))
    for point in rows(shown[shown["baseline"]]):
        parts += [_interval(point, x, y, _BASELINE), _star(x(point["x"]), y(point["y"]), 9.5)]
    return parts


def _interval(point: Row, x: Scale, y: Scale, color: str) -> str:
    across = x(point["x"])
    return _line(across, y(point["y_low"]), across, y(point["y_high"]), color)


def _legend(size: ObjectiveSummary | None) -> list[str]:
    parts = []
    for label, offset, symbol in (
        ("front", 0, _circle(_LEFT + 6, 48, 5, *LOOKS["certain"])),
        ("uncertain", 72, _circle(_LEFT + 78, 48, 5, *LOOKS["front"])),
        ("possible", 170, _circle(_LEFT + 176, 48, 5, *LOOKS["possible"])),
        ("beaten", 258, _circle(_LEFT + 264, 48, 5, _OTHER, 0.55)),
        ("baseline", 336, _star(_LEFT + 343, 48, 7)),
    ):
        parts += [symbol, _text(_LEFT + offset + 18, 52, label)]
    if size is not None:
        parts.append(_text(WIDTH - _RIGHT, 52, f"area: {size.label}", anchor="end"))
    return parts


def _message(text: str) -> str:
    return _text(WIDTH / 2, HEIGHT / 2, text, anchor="middle", size=15)


def _line(x1: float, y1: float, x2: float, y2: float, color: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'


def _circle(
    x: float, y: float, radius: float, color: str, opacity: float, edge: str = _PAPER
) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{color}" '
        f'fill-opacity="{opacity}" stroke="{edge}"/>'
    )


def _star(x: float, y: float, radius: float) -> str:
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    lengths = np.where(np.arange(10) % 2 == 0, radius, 0.42 * radius)
    corners = " ".join(
        f"{x + length * np.cos(angle):.1f},{y + length * np.sin(angle):.1f}"
        for angle, length in zip(angles, lengths, strict=True)
    )
    return f'<polygon points="{corners}" fill="{_BASELINE}" stroke="{_PAPER}"/>'


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: int = 13,
    weight: int = 400,
    color: str = _SOFT,
    turned: bool = False,
) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'fill="{color}" text-anchor="{anchor}"{turn}>{escape(text)}</text>'
    )


def _document(title: str, parts: list[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        "font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif\">\n"
        f"<title>{escape(title)}: the front</title>\n"
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="{_PAPER}"/>\n'
        f"{body}\n</svg>\n"
    )
