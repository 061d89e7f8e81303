"""The front as a table and as JSON, from synthetic trials."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO

import pandas as pd
import pytest
from rich.console import Console

from parefront.dashboards.probability import probability_text
from parefront.tables import front_json, front_table
from tests.dashboards import frames


def printed(rows: pd.DataFrame, target: str | None = None) -> str:
    text = StringIO()
    table = front_table(rows, frames.summary(), title="front", target=target)
    Console(width=220, file=text).print(table)
    return text.getvalue()


@pytest.fixture
def rows() -> pd.DataFrame:
    trials = frames.study(60)
    return trials[trials["on_front"]].reset_index(drop=True).iloc[:3]


def test_what_is_open_is_shown_in_percent(rows: pd.DataFrame) -> None:
    text = printed(rows.assign(front_probability=[1.0, 0.871, 0.0]))
    assert "on front" in text
    assert text.count("%") == 1
    assert "87 %" in text


def test_without_anything_open_there_is_no_column(rows: pd.DataFrame) -> None:
    text = printed(rows.assign(front_probability=1.0))
    assert "on front" not in text
    assert "%" not in text


def test_a_further_target_has_its_own(rows: pd.DataFrame) -> None:
    further = rows.assign(
        **{f"latency_ms_pi{end}": rows[f"latency_ms{end}"] for end in ("", "_low", "_high")}
    )
    further = further.assign(
        speedup_pi=1.0, front_probability=1.0, front_probability_pi=[0.5, 1.0, 1.0]
    )
    assert "50 %" in printed(further, "pi")
    assert "%" not in printed(further)


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.0, ""), (1.0, ""), (0.001, "<1 %"), (0.996, ">99 %"), (0.5, "50 %"), (0.994, "99 %")],
)
def test_a_probability_is_never_rounded_to_certainty(probability: float, text: str) -> None:
    assert probability_text(probability) == text


def test_the_json_has_the_probability_on_each_target(rows: pd.DataFrame) -> None:
    rows = rows.assign(front_probability=[0.25, 0.5, 1.0])
    rows = rows.assign(front_probability_pi=0.75, speedup_pi=2.0)
    summary = replace(frames.summary(), targets=("pi",), baseline=None)
    content = json.loads(front_json(rows, {None: rows, "pi": rows}, pd.DataFrame(), summary))
    assert [each["front_probability"] for each in content["front"]] == [0.25, 0.5, 1.0]
    assert [each["front_probability_pi"] for each in content["fronts"]["pi"]] == [0.75] * 3


def test_without_a_measured_baseline_no_factor_is_made_up(rows: pd.DataFrame) -> None:
    rows = rows.assign(speedup=float("nan"), shrink=float("nan"))
    assert "nan" not in printed(rows)
    summary = replace(frames.summary(), baseline=None)
    content = json.loads(front_json(rows, {None: rows}, pd.DataFrame(), summary))
    assert {(each["speedup"], each["shrink"]) for each in content["front"]} == {(None, None)}
