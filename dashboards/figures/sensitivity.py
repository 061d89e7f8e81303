"""How much the loss grows when one layer alone is rounded: a heat map of layers and bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
        trial: The trial it was measured in.
        layers: Names of the layers, in the order of the model.
        strengths: What was done to each, such as the bits it was rounded to.
        growth: `(layers, strengths)` by how much the loss grew; lower is better.
    """

    trial: int
    layers: tuple[str, ...]
    strengths: tuple[str, ...]
    growth: Floats


def sensitivity_data(trials: pd.DataFrame) -> SensitivityData | None:
    """The table of the first trial that has one.

    A stage leaves it among what it achieved, as `sensitivity`: by layer and strength the growth of
    the loss before training. It does not depend on what else the trial did, as far as stages
    before it changed nothing, so that one table stands for all.

    Returns:
        `None` if no trial has one.
    """
    for trial, achieved in zip(trials["trial"], trials["achieved"], strict=True):
        for facts in (achieved or {}).values() if isinstance(achieved, Mapping) else ():
            table = facts.get("sensitivity") if isinstance(facts, Mapping) else None
            if isinstance(table, Mapping) and table:
                strengths = tuple(next(iter(table.values())))
                growth = [[float(row[each]) for each in strengths] for row in table.values()]
                return SensitivityData(int(trial), tuple(table), strengths, np.array(growth))
    return None


def draw_sensitivity(data: SensitivityData) -> go.Figure:
    """Draws layers from top to bottom, the strongest treatment to the left."""
    figure = base_figure(120 + _ROW * len(data.layers))
    # Losses span orders of magnitude; what did not grow has the colour of the least that did.
    grown = data.growth[data.growth > 0]
    least = float(grown.min()) if len(grown) else 1.0
    names = [each if len(each) <= _LONGEST else f"…{each[-_LONGEST:]}" for each in data.layers]
    figure.add_heatmap(
        z=np.log10(np.maximum(data.growth, least)),
        x=[f"{each} bits" for each in data.strengths],
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
