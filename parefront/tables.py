"""A front as a table and as JSON."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
from rich.table import Table

from parefront.objectives.objective import Bound
from parefront.search.summary import Summary


def front_table(rows: pd.DataFrame, summary: Summary, *, title: str) -> Table:
    """A table of candidates, one a row.

    Args:
        rows: Rows of a trials frame.
        summary: The study.
        title: Title of the table.
    """
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("trial", justify="right")
    table.add_column(summary.accuracy.label, justify="right")
    table.add_column("latency ms", justify="right")
    table.add_column("size kB", justify="right")
    table.add_column("faster", justify="right")
    table.add_column("smaller", justify="right")
    table.add_column("candidate")
    for row in rows.to_dict("records"):
        table.add_row(
            str(row["trial"]),
            _spread(row, "accuracy", ".4f"),
            _spread(row, "latency_ms", ".4g"),
            f"{row['size_bytes'] / 1000:.1f}",
            f"{row['speedup']:.1f}x",
            f"{row['shrink']:.1f}x",
            describe(row["candidate"]),
        )
    return table


def _spread(row: dict[Any, Any], column: str, form: str) -> str:
    half = (row[f"{column}_high"] - row[f"{column}_low"]) / 2
    return f"{row[column]:{form}} ±{half:.1g}"


def describe(candidate: dict[str, dict[str, Any]]) -> str:
    """A candidate in a line.

    Example:
        >>> describe({"prune": {"ratio": 0.5, "importance": "l2"}})
        'prune(0.5 l2)'
    """
    if not candidate:
        return "baseline"
    parts = []
    for name, config in candidate.items():
        values = (
            f"{value:.3g}" if isinstance(value, float) else str(value)
            for key, value in config.items()
            if value is not None and not isinstance(value, bool)
        )
        flags = (key for key, value in config.items() if value is True)
        parts.append(f"{name}({' '.join((*values, *flags))})")
    return " ".join(parts)


def front_json(frame: pd.DataFrame, front: pd.DataFrame, summary: Summary) -> str:
    """The front as a JSON object with `study`, `baseline` and `front`.

    Args:
        frame: All trials.
        front: The front.
        summary: The study.
    """
    baseline = None
    if summary.baseline is not None:
        baseline = _entry(frame[frame["trial"] == summary.baseline].iloc[0].to_dict(), summary)
    rows = [_entry(row, summary) for row in front.to_dict("records")]
    content = {"study": summary.study, "baseline": baseline, "front": rows}
    return json.dumps(content, indent=2, allow_nan=False)


def _entry(row: dict[Any, Any], summary: Summary) -> dict[str, Any]:
    entry: dict[str, Any] = {"trial": int(row["trial"])}
    for objective in summary.objectives:
        column = objective.column
        value, low, high = (float(row[f"{column}{end}"]) for end in ("", "_low", "_high"))
        whole = objective.unit == "B"
        entry[column] = int(value) if whole else value
        entry[f"{column}_interval"] = [int(low), int(high)] if whole else [low, high]
    return entry | {
        "speedup": float(row["speedup"]),
        "shrink": float(row["shrink"]),
        "candidate": row["candidate"],
        "candidate_id": row["candidate_id"],
        "artifact_sha256": row["artifact_sha256"],
    }


def no_front(frame: pd.DataFrame, summary: Summary) -> str:
    """Why a study has no front, with the candidate that came nearest."""
    done = frame[frame["state"] == "complete"]
    told = frame[frame["state"].isin(["complete", "infeasible"])]
    if told.empty:
        failed = frame[frame["state"] == "failed"]
        if failed.empty:
            return "no trial has ended yet, so there is no front"
        reason = failed["reason"].value_counts().index[0]
        return f"all {len(failed)} trials failed, so there is no front; most often: {reason}"
    nearest = told.sort_values("violation").iloc[0]
    bounds = ", ".join(
        f"{objective.column} {sign} {limit:g}"
        for objective in summary.objectives
        for sign, limit in _limits(objective.bound)
    )
    values = ", ".join(
        f"{objective.column} {nearest[objective.column]:.5g}"
        for objective in summary.objectives
        if pd.notna(nearest[objective.column])
    )
    return (
        f"no candidate met the bounds ({bounds}), so there is no front; of {len(done)} measured, "
        f"trial {nearest['trial']} came nearest: {values}"
    )


def _limits(bound: Bound) -> list[tuple[str, float]]:
    sides = ((">=", bound.at_least), ("<=", bound.at_most))
    return [(sign, limit) for sign, limit in sides if limit is not None]
