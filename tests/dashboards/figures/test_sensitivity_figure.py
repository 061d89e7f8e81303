"""The heat map of layers and bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from parefront.dashboards import figures

TABLE = {
    "features.0": {"2": 0.5, "4": 0.01, "8": 0.0},
    "<b>head</b>": {"2": 0.02, "4": 0.0, "8": 0.0},
}


def trials(*achieved: Any) -> pd.DataFrame:
    return pd.DataFrame({"trial": range(len(achieved)), "achieved": list(achieved)})


def test_the_first_table_is_shown() -> None:
    found = figures.sensitivity_data(
        trials(None, {}, {"prune": {}}, {"round": {"sensitivity": TABLE}}, {"round": {}})
    )
    assert found is not None
    assert found.trial == 3
    assert found.layers == tuple(TABLE)
    assert found.strengths == ("2", "4", "8")
    assert found.growth.tolist() == [[0.5, 0.01, 0.0], [0.02, 0.0, 0.0]]


def test_without_one_there_is_no_figure() -> None:
    assert figures.sensitivity_data(trials({}, None, {"round": {"levels": {"a": 3}}})) is None


def test_colours_are_logarithmic_and_names_are_escaped() -> None:
    data = figures.sensitivity_data(trials({"round": {"sensitivity": TABLE}}))
    assert data is not None
    (heat,) = figures.draw_sensitivity(data).data
    np.testing.assert_allclose(heat.z, np.log10([[0.5, 0.01, 0.01], [0.02, 0.01, 0.01]]))
    assert list(heat.y) == ["features.0", "&lt;b&gt;head&lt;/b&gt;"]
    assert list(heat.x) == ["2 bits", "4 bits", "8 bits"]


def test_layers_that_nothing_hurts_are_drawn() -> None:
    calm = {"a": {"2": 0.0, "4": 0.0}}
    data = figures.sensitivity_data(trials({"round": {"sensitivity": calm}}))
    assert data is not None
    (heat,) = figures.draw_sensitivity(data).data
    assert np.isfinite(np.asarray(heat.z, dtype=float)).all()
