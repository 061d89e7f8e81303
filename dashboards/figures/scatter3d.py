"""Three objectives at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from parefront.dashboards.figures.style import (
    BASELINE,
    FRONT,
    FRONT_NAMES,
    MANY,
    OTHER,
    UNSURE,
    axis,
    base_figure,
    front_view,
    hover_texts,
    wants_log,
)
from parefront.dashboards.frame import Bools, evenly, measured_rows, numbers
from parefront.dashboards.probability import ON_FRONT, kinds
from parefront.search.summary import ObjectiveSummary, Summary


@dataclass(frozen=True)
class Scatter3dData:
    """What the figure shows.

    Attributes:
        objectives: Objectives on the x, y and z axis.
        points: One row a measured trial with columns `trial`, `x`, `y`, `z` and `kind`
            (`"baseline"`, `"certain"`, `"front"` and `"possible"` as in
            `parefront.dashboards.probability.kinds`, `"other"`). Of the others, those not far
            worse in z than the front, and at most `MANY` of them, evenly taken.
        log: Whether each axis is logarithmic.
        left_out: How many of the others are not shown.
    """

    objectives: tuple[ObjectiveSummary, ObjectiveSummary, ObjectiveSummary]
    points: pd.DataFrame
    log: tuple[bool, ...]
    left_out: int


def scatter3d_data(
    trials: pd.DataFrame,
    summary: Summary,
    objectives: tuple[ObjectiveSummary, ObjectiveSummary, ObjectiveSummary],
) -> Scatter3dData:
    """Data of three objectives; trials without all three values are left out."""
    points = pd.DataFrame({"trial": trials["trial"].to_numpy(dtype=int)})
    for key, objective in zip("xyz", objectives, strict=True):
        points[key] = numbers(trials, objective.column)
    points["kind"] = kinds(trials).replace("outside", "other").to_numpy()
    points.loc[points["trial"] == summary.baseline, "kind"] = "baseline"
    measured = measured_rows(trials, objectives)
    points = points.iloc[measured]
    other = (points["kind"] == "other").to_numpy()
    near = np.flatnonzero(other & _near_front(points, trials.iloc[measured], objectives[2]))
    shown = near[evenly(len(near), MANY)]
    left_out = int(other.sum()) - len(shown)
    points = points.iloc[np.union1d(np.flatnonzero(~other), shown)].reset_index(drop=True)
    log = tuple(
        wants_log(points[key].to_numpy(dtype=float), objective)
        for key, objective in zip("xyz", objectives, strict=True)
    )
    return Scatter3dData(objectives, points, log, left_out)


def _near_front(points: pd.DataFrame, trials: pd.DataFrame, z: ObjectiveSummary) -> Bools:
    """Which points are not far worse in z than the front and the baseline."""
    values = numbers(points, "z")
    low, high = (numbers(trials, f"{z.column}_{end}") for end in ("low", "high"))
    kept = points["kind"].isin([*ON_FRONT, "baseline"]).to_numpy(dtype=bool)
    view = front_view(values, low, high, kept, maximize=z.maximize)
    if view is None:
        return np.ones(len(points), dtype=bool)
    return (values >= view[0]) & (values <= view[1])


def draw_scatter3d(data: Scatter3dData, trials: pd.DataFrame, summary: Summary) -> go.Figure:
    """Draws three objectives at once.

    Args:
        data: What to show.
        trials: The trials frame the data came from, for the texts under the pointer.
        summary: The study.
    """
    figure = base_figure(470)
    front = {"color": FRONT, "opacity": 0.95, "size": 5.5}
    looks = {
        "other": ("not on the front", {"color": OTHER, "opacity": 0.45, "size": 3}),
        "possible": (FRONT_NAMES["possible"], {**front, "symbol": "circle-open"}),
        "front": (FRONT_NAMES["front"], {**front, "color": UNSURE}),
        "certain": (FRONT_NAMES["certain"], front),
        "baseline": ("baseline", {"color": BASELINE, "size": 7, "symbol": "diamond"}),
    }
    for kind, (name, marker) in looks.items():
        points = data.points[data.points["kind"] == kind]
        if len(points) == 0:
            continue
        order = pd.Index(trials["trial"]).get_indexer(points["trial"])
        figure.add_scatter3d(
            x=points["x"],
            y=points["y"],
            z=points["z"],
            mode="markers",
            name=name,
            marker=marker,
            hovertext=hover_texts(trials.iloc[order], summary),
            hovertemplate="%{hovertext}<extra></extra>",
        )
    scene = {
        f"{key}axis": {
            **axis(objective, data.points[key].to_numpy(dtype=float), log=log, hint=False),
            # WebGL takes no transparency here.
            "gridcolor": "#98a0ae",
            "linecolor": "#98a0ae",
            "zeroline": False,
            "showgrid": True,
            "showline": True,
            "showbackground": False,
            "showspikes": False,
        }
        for key, objective, log in zip("xyz", data.objectives, data.log, strict=True)
    }
    figure.update_layout(
        scene={**scene, "camera": {"eye": {"x": 1.8, "y": 1.65, "z": 0.8}}, "aspectmode": "cube"},
        margin={"l": 0, "r": 0, "t": 24, "b": 24},
        legend={"y": 0},
    )
    return figure
