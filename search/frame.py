"""The trials of a study as a pandas frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from parefront.objectives.front import Bools, dominated
from parefront.objectives.front_probability import CERTAIN, POSSIBLE, probability_on_front
from parefront.search.entry import Entry
from parefront.search.records import Origin, Status
from parefront.search.summary import ObjectiveSummary, of_target

Which = Literal["on", "certain", "possible"]
"""Which part of a front: see `front_rows`."""

_DRAWN = 2_000_000
"""Points drawn for probabilities: with very many trials each is drawn less often, not slower."""


def trials_frame(entries: Sequence[Entry], objectives: Sequence[ObjectiveSummary]) -> pd.DataFrame:
    """One row a trial, in the order of their numbers.

    Columns: `trial`, `state`, `reason`, `origin`, `candidate_id`, `candidate` (configs by stage);
    for every objective its column and that column with `_low` and `_high` for the 95 % interval,
    NaN where nothing was measured; `feasible` (complete and within every bound), `on_front` (not
    beaten beyond the intervals), `front_probability` (that nothing beats it, given the intervals),
    `violation` (sum of how far bounds are broken, relative to the bound's size), `speedup` and
    `shrink` (factors against the baseline, larger is better), `artifact_sha256`, `started`,
    `finished`, `seconds`, `achieved` (facts by stage), `rungs` (what it was worth in the middle of
    its training, each as a `parefront.search.records.Rung`). For each further target there are
    `on_front_{target}`, `front_probability_{target}` and `speedup_{target}`.

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
        used = of_target(objectives, target)
        frame[f"on_front{end}"], frame[f"front_probability{end}"] = _front(frame, used)
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
        *("feasible", "violation", "artifact_sha256", "started", "finished", "seconds"),
        *("achieved", "rungs"),
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
        "rungs": [rung.model_dump(mode="json") for rung in outcome.rungs] if outcome else [],
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


def _front(
    frame: pd.DataFrame, objectives: Sequence[ObjectiveSummary]
) -> tuple[pd.Series[bool], pd.Series[float]]:
    """What is on the front, and how probable that is; never for what is not feasible."""
    rows = frame.index[frame["feasible"].astype(bool)]
    on_front = pd.Series(False, index=frame.index)
    probability = pd.Series(0.0, index=frame.index)
    if len(rows) and objectives:
        values, low, high = (
            frame.loc[rows, [f"{each.column}{suffix}" for each in objectives]].to_numpy(dtype=float)
            for suffix in ("", "_low", "_high")
        )
        maximize = [each.maximize for each in objectives]
        samples = min(max(_DRAWN // len(rows), 128), 1024)
        on_front.loc[rows] = ~dominated(values, low, high, maximize)
        probability.loc[rows] = probability_on_front(values, low, high, maximize, samples=samples)
    return on_front, probability


def front_rows(frame: pd.DataFrame, which: Which = "on", target: str | None = None) -> Bools:
    """Which rows of a trials frame are on the front of a target.

    `"on"` are those that no other beats beyond the intervals; `"certain"` are those of them that
    nothing beats with a probability of at least 0.95; `"possible"` are those on the front, and
    whatever else nothing beats with a probability of at least 0.05. So every certain candidate is
    on the front, and every one on the front is possible; of a front no candidate need be certain.

    Args:
        frame: The trials.
        which: Which part of the front.
        target: Name of a further target, `None` for the main one.

    Returns:
        `(n,)` flags.
    """
    end = f"_{target}" if target else ""
    on_front: Bools = frame[f"on_front{end}"].to_numpy(dtype=bool)
    probability = frame[f"front_probability{end}"].to_numpy(dtype=float)
    match which:
        case "on":
            return on_front
        case "certain":
            return on_front & (probability >= CERTAIN)
        case "possible":
            return on_front | (probability >= POSSIBLE)
