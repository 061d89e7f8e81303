"""Figures: pure functions from frame to data, and from data to a Plotly figure.

Text that comes from outside is escaped where it enters a figure, since Plotly reads a part of
HTML in labels. Backgrounds are transparent and text is a mid grey, for light and dark pages.
"""

from parefront.dashboards.figures.history import HistoryData, draw_history, history_data
from parefront.dashboards.figures.parallel import ParallelData, draw_parallel, parallel_data
from parefront.dashboards.figures.rungs import RungsData, draw_rungs, rungs_data
from parefront.dashboards.figures.scatter3d import Scatter3dData, draw_scatter3d, scatter3d_data
from parefront.dashboards.figures.sensitivity import (
    SensitivityData,
    draw_sensitivity,
    sensitivity_data,
)
from parefront.dashboards.figures.tradeoff import TradeoffData, draw_tradeoff, tradeoff_data

__all__ = [
    "HistoryData",
    "ParallelData",
    "RungsData",
    "Scatter3dData",
    "SensitivityData",
    "TradeoffData",
    "draw_history",
    "draw_parallel",
    "draw_rungs",
    "draw_scatter3d",
    "draw_sensitivity",
    "draw_tradeoff",
    "history_data",
    "parallel_data",
    "rungs_data",
    "scatter3d_data",
    "sensitivity_data",
    "tradeoff_data",
]
