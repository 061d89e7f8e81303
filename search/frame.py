"""The trials of a study as a pandas frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from parefront.objectives.front import dominated
from parefront.search.ledger import Entry
from parefront.search.records import Origin, Status
from parefront.search.summary import ObjectiveSummary, of_target


def trials_frame(entries: Sequence[Entry], objectives: Sequence[ObjectiveSummary]) -> pd.DataFrame:
    """One row a trial, in the order of their numbers.

    Columns: `trial`, `state`, `reason`, `origin`, `candidate_id`, `candidate` (configs by stage);
    for every objective its column and that column with `_low` and `_high` for the 95 % interval,
    NaN where nothing was measured; `feasible` (complete and within every bound), `on_front`,
    `violation` (sum of how far bounds are broken, relative to the bound's size), `speedup` and
    `shrink` (factors against the baseline, larger is better), `artifact_sha256`, `started`,
    `finished`, `seconds`, `achieved` (facts by stage). For each further target there is an
    `on_front_{target}` and a `speedup_{target}`.

    Args:
        entries: The trials.
        objectives: What was measured, accuracy, latency and size among it.
    """
    frame = pd.DataFrame(
        [_row(entry, objectives) for entry in entries], columns=_columns(objectives)
    )
    baseline = frame[(frame["origin"] == Origin.BASELINE) & (frame["state"] == Status.COMPLETE)]
    factors = {"shrink": "size_bytes"}
    for target in dict.fromkeys((None, *(each.target for each in objectives))):
        end = f"_{target}" if target else ""
        frame[f"on_front{end}"] = _on_front(frame, of_target(objectives, target))
        factors[f"speedup{end}"] = f"latency_ms{end}"
    for factor, column in factors.items():
        of = baseline[column].iloc[0] if len(baseline) else np.nan
        frame[factor] = of / frame[column].astype(float)
    return frame


def _columns(objectives: Sequence[ObjectiveSummary]) -> list[str]:
    measured = [
        f"{objective.column}{suffix}"
        for objective in objectives
        for suffix in ("", "_low", "_high")
    ]
    return [
        *("trial", "state", "reason", "origin", "candidate_id", "candidate"),
        *measured,
        *("feasible", "violation", "artifact_sha256", "started", "finished", "seconds", "achieved"),
    ]


def _row(entry: Entry, objectives: Sequence[ObjectiveSummary]) -> dict[str, object]:
    trial, record, outcome = entry.trial, entry.record, entry.outcome
    started, finished = trial.datetime_start, trial.datetime_complete
    row: dict[str, object] = {
        "trial": trial.number,
        "state": Status.INTERRUPTED if entry.status == Status.STOPPED else entry.status,
        "reason": outcome.reason if outcome else None,
        "origin": record.origin,
        "candidate_id": record.candidate_id,
        "candidate": {name: dict(config) for name, config in record.candidate.items()},
        "feasible": False,
        "violation": np.nan,
        "artifact_sha256": outcome.artifact_sha256 if outcome else None,
        "started": pd.Timestamp(started) if started else pd.NaT,
        "finished": pd.Timestamp(finished) if finished else pd.NaT,
        "seconds": (finished - started).total_seconds() if started and finished else np.nan,
        "achieved": dict(outcome.achieved) if outcome else {},
    }
    for objective in objectives:
        found = outcome.measurements.get(objective.name) if outcome else None
        row[objective.column] = found.value if found else np.nan
        row[f"{objective.column}_low"] = found.low if found else np.nan
        row[f"{objective.column}_high"] = found.high if found else np.nan
    if outcome is not None and outcome.measurements:
        broken = {name: v for name, v in outcome.violations.items() if v > 0}
        row["feasible"] = outcome.status == Status.COMPLETE and not broken
        row["violation"] = sum(
            v / max(abs(outcome.measurements[name].value), 1e-12) for name, v in broken.items()
        )
    return row


def _on_front(frame: pd.DataFrame, objectives: Sequence[ObjectiveSummary]) -> pd.Series[bool]:
    rows = frame.index[frame["feasible"].astype(bool)]
    on_front = pd.Series(False, index=frame.index)
    if len(rows) and objectives:
        values, low, high = (
            frame.loc[rows, [f"{each.column}{suffix}" for each in objectives]].to_numpy(dtype=float)
            for suffix in ("", "_low", "_high")
        )
        on_front.loc[rows] = ~dominated(values, low, high, [each.maximize for each in objectives])
    return on_front
