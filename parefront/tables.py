"""A front as a table and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.table import Table

from parefront.dashboards.probability import probability_text
from parefront.objectives.objective import Bound
from parefront.search.summary import Summary
from parefront.spaces.catalog import telling


def front_table(
    rows: pd.DataFrame, summary: Summary, *, title: str, target: str | None = None
) -> Table:
    """A table of candidates, one a row.

    Args:
        rows: Rows of a trials frame.
        summary: The study.
        title: Title of the table.
        target: Name of the further target whose latency is shown, `None` for the main one.

    Returns:
        The table; how probable it is that nothing beats a candidate is shown where it is open.
    """
    end = f"_{target}" if target else ""
    chances = [probability_text(each) for each in rows[f"front_probability{end}"]]
    extras = [
        each
        for each in summary.objectives
        if each.name not in ("accuracy", "size", f"latency{end}")
        and (each.target == target or not each.on_device)
    ]
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("trial", justify="right")
    table.add_column(summary.accuracy.label, justify="right")
    table.add_column("latency ms", justify="right")
    table.add_column("size kB", justify="right")
    table.add_column("faster", justify="right")
    table.add_column("smaller", justify="right")
    for each in extras:
        table.add_column(f"{each.label} {each.unit}".rstrip(), justify="right")
    if any(chances):
        table.add_column("on front", justify="right")
    table.add_column("candidate")
    for row, chance in zip(rows.to_dict("records"), chances, strict=True):
        table.add_row(
            str(row["trial"]),
            _spread(row, "accuracy", ".4f"),
            _spread(row, f"latency_ms{end}", ".4g"),
            f"{row['size_bytes'] / 1000:.1f}",
            _factor(row[f"speedup{end}"]),
            _factor(row["shrink"]),
            *(_spread(row, each.column, ".5g") for each in extras),
            *([chance] if any(chances) else []),
            describe(row["candidate"]),
        )
    return table


def finals_table(finals: pd.DataFrame, runtime: str, summary: Summary) -> Table:
    """A table of the finalists on a runtime, one a row.

    Args:
        finals: The frame of finalists.
        runtime: Name of the runtime.
        summary: The study.
    """
    table = Table(title=f"the front on {runtime}", title_justify="left", header_style="bold")
    names = ("trial", summary.accuracy.label, "latency ms", "size kB", "faster than its baseline")
    for name in (*names, "than on the study's runtime"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in finals[finals["runtime"] == runtime].to_dict("records"):
        if row["state"] != "complete":
            table.add_row(str(row["trial"]), *[""] * 5, f"{row['state']}: {row['reason']}")
            continue
        table.add_row(
            str(row["trial"]),
            _spread(row, "accuracy", ".4f"),
            _spread(row, "latency_ms", ".4g"),
            f"{row['size_bytes'] / 1000:.1f}",
            _factor(row["speedup"]),
            _factor(row["speedup_runtime"], 2),
        )
    return table


def _spread(row: dict[Any, Any], column: str, form: str) -> str:
    half = (row[f"{column}_high"] - row[f"{column}_low"]) / 2
    return f"{row[column]:{form}} ±{half:.1g}" if half else f"{row[column]:{form}}"


def _factor(value: float, digits: int = 1) -> str:
    """A factor against a baseline; empty where that is not measured."""
    return "" if math.isnan(value) else f"{value:.{digits}f}x"


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
        told = telling(name, config)
        values = (
            f"{value:.3g}" if isinstance(value, float) else str(value)
            for value in told.values()
            if not isinstance(value, bool)
        )
        flags = (key for key, value in told.items() if value is True)
        words = " ".join((*values, *flags))
        parts.append(f"{name}({words})" if words else name)
    return " ".join(parts)


def front_json(
    frame: pd.DataFrame,
    fronts: Mapping[str | None, pd.DataFrame],
    finals: pd.DataFrame,
    summary: Summary,
) -> str:
    """The fronts as a JSON object with `study`, `baseline`, `front`, `fronts` and `finals`.

    Args:
        frame: All trials.
        fronts: The front of each target, of the main one under `None`.
        finals: The finalists on further runtimes.
        summary: The study.
    """
    baseline = None
    if summary.baseline is not None:
        baseline = _entry(frame[frame["trial"] == summary.baseline].iloc[0].to_dict(), summary)
    rows = {
        target: [_entry(row, summary) for row in front.to_dict("records")]
        for target, front in fronts.items()
    }
    content = {
        "study": summary.study,
        "baseline": baseline,
        "front": rows.pop(None),
        "fronts": rows,
        "finals": json.loads(finals.to_json(orient="records", double_precision=15)),
    }
    return json.dumps(content, indent=2, allow_nan=False)


def _entry(row: dict[Any, Any], summary: Summary) -> dict[str, Any]:
    entry: dict[str, Any] = {"trial": int(row["trial"])}
    for objective in summary.objectives:
        column = objective.column
        value, low, high = (float(row[f"{column}{end}"]) for end in ("", "_low", "_high"))
        whole = objective.unit == "B"
        entry[column] = int(value) if whole else value
        entry[f"{column}_interval"] = [int(low), int(high)] if whole else [low, high]
    ends = ["", *(f"_{target}" for target in summary.targets)]
    factors = [f"{name}{end}" for name in ("speedup", "front_probability") for end in ends]
    numbers = [*factors, "shrink"]  # without a measured baseline there is nothing to compare with
    return entry | {
        **{name: None if math.isnan(row[name]) else float(row[name]) for name in numbers},
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
