"""How much the loss grows when one layer alone is compressed: a heat map of layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from parefront.dashboards.figures.style import SCALE, base_figure, quoted
from parefront.dashboards.frame import Floats

_ROW = 22
"""Height of a layer, in pixels."""
_LONGEST = 40
"""Characters of a layer's name that are shown, its end, which tells layers apart."""


@dataclass(frozen=True)
class SensitivityData:
    """What the figure shows.

    Attributes:
        stage: The stage that measured it.
        trial: The trial it was measured in.
        layers: Names of the layers, in the order of the model.
        strengths: What was done to each, the strongest first: the bits it was rounded to, or the
            share of it that was removed.
        growth: `(layers, strengths)` by how much the loss grew; lower is better, NaN where it was
            not measured.
    """

    stage: str
    trial: int
    layers: tuple[str, ...]
    strengths: tuple[str, ...]
    growth: Floats


def sensitivity_data(trials: pd.DataFrame) -> list[SensitivityData]:
    """The first table of each stage that has one.

    A stage leaves it among what it achieved, as `sensitivity`: by layer and strength the growth of
    the loss before training. It does not depend on what else the trial did, as far as stages
    before it changed nothing, so that one table stands for all.

    Returns:
        By stage in the order in which they are found; empty if no trial has one.
    """
    found: dict[str, SensitivityData] = {}
    for trial, achieved in zip(trials["trial"], trials["achieved"], strict=True):
        for stage, table in _tables(achieved):
            if stage not in found:
                strengths = {each: None for row in table.values() for each in row}
                # Few bits are strong, and so are large shares.
                ordered = sorted(strengths, key=float, reverse=max(map(float, strengths)) < 1)
                growth = [[float(row.get(s, np.nan)) for s in ordered] for row in table.values()]
                found[stage] = SensitivityData(
                    stage, int(trial), tuple(table), tuple(ordered), np.array(growth)
                )
    return list(found.values())


def _tables(achieved: object) -> Iterator[tuple[str, Mapping[str, Mapping[str, Any]]]]:
    """The stages that left a table that is not empty, with it."""
    for stage, facts in achieved.items() if isinstance(achieved, Mapping) else ():
        table = facts.get("sensitivity") if isinstance(facts, Mapping) else None
        if isinstance(table, Mapping) and any(table.values()):
            yield stage, table


def draw_sensitivity(data: SensitivityData) -> go.Figure:
    """Draws layers from top to bottom, the strongest treatment to the left."""
    figure = base_figure(120 + _ROW * len(data.layers))
    # Losses span orders of magnitude; what did not grow has the colour of the least that did.
    grown = data.growth[data.growth > 0]
    least = float(grown.min()) if len(grown) else 1.0
    names = [each if len(each) <= _LONGEST else f"…{each[-_LONGEST:]}" for each in data.layers]
    figure.add_heatmap(
        z=np.log10(np.maximum(data.growth, least)),
        x=[_title(each) for each in data.strengths],
        y=[quoted(each) for each in names],
        customdata=data.growth,
        colorscale=[[1.0 - place, colour] for place, colour in reversed(SCALE)],
        showscale=False,
        xgap=2,
        ygap=2,
        hovertemplate="<b>%{y}</b> at %{x}<br>loss + %{customdata:.3g}<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed", title={"text": ""}, automargin=True)
    figure.update_xaxes(type="category", side="top")
    return figure


def _title(strength: str) -> str:
    """Bits are whole numbers from 2, shares are below 1."""
    share = float(strength)
    return f"{100 * share:.4g} % removed" if share < 1 else f"{strength} bits"
