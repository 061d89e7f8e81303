"""The report: one HTML file that needs nothing else, not even a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import plotly.offline
from markupsafe import Markup

from parefront.dashboards import outcomes, words
from parefront.dashboards.frame import (
    Row,
    baseline_of,
    front_of,
    on_target,
    rows,
)
from parefront.dashboards.picks import headline_picks
from parefront.dashboards.probability import possible_of, probability_text
from parefront.dashboards.report_figures import report_figures
from parefront.search.frame import front_rows
from parefront.search.summary import ObjectiveSummary, Summary

_SHOWN_TRIALS = 12
"""How many trial numbers of a group of reasons, and possible candidates, are listed."""


def write_report(
    path: Path, trials: pd.DataFrame, summary: Summary, finals: pd.DataFrame | None = None
) -> None:
    """Writes a study's report as one self-contained HTML file.

    The file holds Plotly's script, all data and all styles, and forbids itself any connection.
    Everything in it that comes from the study is escaped.

    Args:
        path: File to write; an existing one is replaced.
        trials: One row a trial.
        summary: The study.
        finals: One row a finalist and runtime.

    Raises:
        OSError: If the file cannot be written.
    """
    path.write_text(report_html(trials, summary, finals), encoding="utf-8")


def report_html(trials: pd.DataFrame, summary: Summary, finals: pd.DataFrame | None = None) -> str:
    """The report as the text of an HTML file; arguments as `write_report`."""
    folder = files("parefront.dashboards")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(folder.joinpath("report.html").read_text(encoding="utf-8"))
    return template.render(
        **_context(trials, summary),
        finals=_finals(finals, summary),
        # Both are shipped with a package and hold nothing of the study.
        css=Markup(folder.joinpath("report.css").read_text(encoding="utf-8")),  # noqa: S704
        plotly=Markup(plotly.offline.get_plotlyjs()),  # noqa: S704
    )


def _context(trials: pd.DataFrame, summary: Summary) -> dict[str, Any]:
    """Everything the template shows, as texts, numbers and ready-made figures."""
    front = rows(front_of(trials, summary))
    baseline = baseline_of(trials, summary)
    picks, possible = headline_picks(trials, summary), possible_of(trials)
    possible = possible[possible["trial"] != summary.baseline]
    by_number = {row["trial"]: row for row in front}
    titles: dict[int, list[str]] = {}
    for pick in picks:
        if pick.trial is not None:
            titles.setdefault(pick.trial, []).append(pick.title)
    beaten = [] if baseline is None or baseline["trial"] in by_number else [baseline]
    nearest = outcomes.nearest_to_bounds(trials, summary) if not front else trials.iloc[:0]
    return {
        "summary": summary,
        "generated": summary.generated.strftime("%Y-%m-%d %H:%M %Z").strip(),
        "counts": outcomes.state_counts(trials),
        "states": words.STATES,
        "total": len(trials),
        "bounds": [words.bound_text(each) for each in outcomes.bounded_objectives(summary)],
        "picks": [
            {
                "pick": pick,
                "row": by_number.get(pick.trial),
                **_cells(by_number[pick.trial], summary),
            }
            if pick.trial is not None
            else {"pick": pick, "row": None}
            for pick in picks
        ],
        "only_baseline": len(front) == 1 and front[0]["trial"] == summary.baseline,
        "no_front": outcomes.no_front_reason(trials),
        "nearest": [
            {**_cells(row, summary), "broken": outcomes.broken_bounds(row, summary)}
            for row in rows(nearest)
        ],
        "front": [
            {**_cells(row, summary), "titles": titles.get(row["trial"], [])} for row in front
        ],
        "certain": int(front_rows(trials, "certain").sum()),
        "possible": [_cells(row, summary) for row in rows(possible[:_SHOWN_TRIALS])],
        "more_possible": max(0, len(possible) - _SHOWN_TRIALS),
        "beaten_baseline": [_cells(row, summary) for row in beaten],
        "further": [
            {
                "name": target,
                "rows": [
                    _cells({**row, "speedup": row[f"speedup_{target}"]}, summary)
                    for row in rows(front_of(on_target(trials, target), summary))
                ],
            }
            for target in summary.targets
        ],
        "figures": report_figures(trials, summary),
        "failed": _reasons(trials, "failed"),
        "refused": _reasons(trials, "infeasible"),
        "gated": _reasons(trials, "gated"),
        "early_stopped": _reasons(trials, "early_stopped"),
        "fingerprint": {key: _fact(value) for key, value in summary.fingerprint.items()},
    }


def _finals(finals: pd.DataFrame | None, summary: Summary) -> list[dict[str, Any]]:
    """The finalists by runtime, each as a row of texts."""
    if finals is None:
        return []
    shown = [each for each in summary.objectives if each.name in ("accuracy", "latency", "size")]
    return [
        {
            "runtime": runtime,
            "labels": [each.label for each in shown],
            "rows": [
                {
                    "trial": row["trial"],
                    "reason": row["reason"] if row["state"] != "complete" else "",
                    "values": [_value_cell(row, each) for each in shown],
                    "speedup": words.ratio_text(row["speedup"]),
                    "speedup_runtime": words.ratio_text(row["speedup_runtime"]),
                }
                for row in rows(group)
            ],
        }
        for runtime, group in finals.groupby("runtime")
    ]


def _cells(row: Row, summary: Summary) -> dict[str, Any]:
    """The texts of a table's row."""
    sha256, achieved = row["artifact_sha256"], row["achieved"]
    return {
        "trial": row["trial"],
        "origin": row["origin"],
        "values": [_value_cell(row, objective) for objective in summary.objectives],
        "chance": probability_text(row["front_probability"]),
        "speedup": words.ratio_text(row["speedup"]),
        "shrink": words.ratio_text(row["shrink"]),
        "ratios": [
            words.ratio_words(row["speedup"], "faster", "slower"),
            words.ratio_words(row["shrink"], "smaller", "larger"),
        ],
        "stages": words.stage_texts(row["candidate"]) or ["unchanged model"],
        "sha256": sha256 if isinstance(sha256, str) else "",
        "achieved": json.dumps(achieved, indent=1, default=str)
        if isinstance(achieved, Mapping) and achieved
        else "",
    }


def _value_cell(row: Row, objective: ObjectiveSummary) -> dict[str, str]:
    column, unit = objective.column, objective.unit
    return {
        "label": objective.label,
        "value": words.value_text(row[column], unit),
        "interval": words.interval_text(row[f"{column}_low"], row[f"{column}_high"], unit),
    }


def _reasons(trials: pd.DataFrame, state: str) -> list[dict[str, Any]]:
    return [
        {
            "count": len(group.trials),
            "first": group.reason.splitlines()[0],
            "rest": "\n".join(group.reason.splitlines()[1:]),
            "trials": ", ".join(str(number) for number in group.trials[:_SHOWN_TRIALS]),
            "more": max(0, len(group.trials) - _SHOWN_TRIALS),
        }
        for group in outcomes.reason_groups(trials, state)
    ]


def _fact(value: object) -> str:
    return (
        json.dumps(value, default=str) if isinstance(value, Mapping | list | tuple) else str(value)
    )
