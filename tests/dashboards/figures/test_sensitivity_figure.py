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
    (found,) = figures.sensitivity_data(
        trials(None, {}, {"prune": {}}, {"round": {"sensitivity": TABLE}}, {"round": {}})
    )
    assert found.stage == "round"
    assert found.trial == 3
    assert found.layers == tuple(TABLE)
    assert found.strengths == ("2", "4", "8")
    assert found.growth.tolist() == [[0.5, 0.01, 0.0], [0.02, 0.0, 0.0]]


def test_without_one_there_is_no_figure() -> None:
    assert figures.sensitivity_data(trials({}, None, {"round": {"levels": {"a": 3}}})) == []


def test_colours_are_logarithmic_and_names_are_escaped() -> None:
    (data,) = figures.sensitivity_data(trials({"round": {"sensitivity": TABLE}}))
    (heat,) = figures.draw_sensitivity(data).data
    np.testing.assert_allclose(heat.z, np.log10([[0.5, 0.01, 0.01], [0.02, 0.01, 0.01]]))
    assert list(heat.y) == ["features.0", "&lt;b&gt;head&lt;/b&gt;"]
    assert list(heat.x) == ["2 bits", "4 bits", "8 bits"]


def test_layers_that_nothing_hurts_are_drawn() -> None:
    calm = {"a": {"2": 0.0, "4": 0.0}}
    (data,) = figures.sensitivity_data(trials({"round": {"sensitivity": calm}}))
    (heat,) = figures.draw_sensitivity(data).data
    assert np.isfinite(np.asarray(heat.z, dtype=float)).all()


def test_each_stage_has_a_table_of_its_own_with_gaps_where_nothing_was_tried() -> None:
    shares = {"a": {"0.75": 0.5, "0.9": 2.0}, "b": {"0.5": 0.25, "0.75": 1.0}}
    rounded, pruned = figures.sensitivity_data(
        trials({"round": {"sensitivity": TABLE}}, {"prune": {"sensitivity": shares}})
    )
    assert (rounded.stage, rounded.trial) == ("round", 0)
    assert (pruned.stage, pruned.trial) == ("prune", 1)
    assert pruned.strengths == ("0.9", "0.75", "0.5")
    np.testing.assert_array_equal(pruned.growth, [[2.0, 0.5, np.nan], [np.nan, 1.0, 0.25]])
    (heat,) = figures.draw_sensitivity(pruned).data
    assert list(heat.x) == ["90 % removed", "75 % removed", "50 % removed"]
    assert np.isnan(heat.z[0][2])
