"""Synthetic studies: frames as a search writes them, made of a plausible model of compression."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from parefront.objectives.front import dominated
from parefront.objectives.front_probability import probability_on_front
from parefront.objectives.measurement import Direction
from parefront.objectives.objective import Bound
from parefront.search.summary import ObjectiveSummary, Summary

VALUES = ("accuracy", "latency_ms", "size_bytes")
MAXIMIZE = [True, False, False]
COLUMNS = [
    *("trial", "state", "reason", "origin", "candidate_id", "candidate"),
    *(f"{name}{end}" for name in VALUES for end in ("", "_low", "_high")),
    *("feasible", "on_front", "front_probability", "speedup", "shrink", "artifact_sha256"),
    *("started", "finished", "seconds", "achieved"),
]
BASELINE = {"accuracy": 0.9412, "latency_ms": 8.4, "size_bytes": 44_712_345.0}

FAILURES = (
    "MeasurementError: the device process was killed (signal 9); it may have run out of memory",
    "BuildError: outputs of the exported file differ from the module's by 0.31, more than 0.001",
    "TrainingError: the loss is not finite after step {step}",
)


def objectives(
    *,
    at_least: float | None = 0.85,
    at_most_ms: float | None = 6.0,
) -> tuple[ObjectiveSummary, ...]:
    return (
        ObjectiveSummary(
            name="accuracy",
            column="accuracy",
            unit="",
            direction=Direction.MAXIMIZE,
            label="accuracy",
            bound=Bound(at_least=at_least),
        ),
        ObjectiveSummary(
            name="latency",
            column="latency_ms",
            unit="ms",
            direction=Direction.MINIMIZE,
            label="latency",
            log=True,
            on_device=True,
            bound=Bound(at_most=at_most_ms),
        ),
        ObjectiveSummary(
            name="size",
            column="size_bytes",
            unit="B",
            direction=Direction.MINIMIZE,
            label="file size",
            log=True,
        ),
    )


def summary(**changes: Any) -> Summary:
    facts: dict[str, Any] = {
        "study": "fashion-resnet18",
        "objectives": objectives(),
        "baseline": 0,
        "seed": 7,
        "budget": "120 trials or 4 hours",
        "protocol": (
            "Accuracy is computed from the outputs of the exported file on 2,000 validation "
            "examples, with a 95 % Wilson interval. Latency is the median ratio of alternating "
            "blocks of 10 candidate and 10 baseline runs in one process of their own, 200 runs "
            "or more after 20 warm-up runs, times the calibrated latency of the baseline; its "
            "interval is a 95 % bootstrap of the block ratios. Size is the length of the file."
        ),
        "fingerprint": {
            "cpu": "Intel Xeon Platinum 8481C",
            "cores": 2,
            "memory_gib": 24,
            "runtime": "onnxruntime 1.32.0",
            "threads": 1,
            "batch_size": 1,
        },
        "versions": {"parefront": "0.1.0", "torch": "2.13.0", "onnxruntime": "1.32.0"},
        "stages_left_out": {"heads": "the model has no attention"},
        "generated": datetime(2026, 3, 5, 14, 30, tzinfo=UTC),
    }
    return Summary(**{**facts, **changes})


def _candidate(rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    candidate: dict[str, dict[str, Any]] = {}
    if rng.random() < 0.75:
        iterative = bool(rng.random() < 0.4)
        candidate["pruning"] = {
            "ratio": float(rng.uniform(0.1, 0.8)),
            "importance": str(rng.choice(["l1", "l2", "taylor", "bn_scale"])),
            "iterative": iterative,
            "steps": int(rng.integers(2, 6)) if iterative else None,
        }
    if rng.random() < 0.35:
        candidate["lowrank"] = {
            "method": str(rng.choice(["svd", "tucker2"])),
            "rank": float(rng.uniform(0.2, 0.8)),
        }
    if candidate and rng.random() < 0.9:
        candidate["distillation"] = {
            "epochs": int(rng.integers(1, 9)),
            "learning_rate": float(10 ** rng.uniform(-4.5, -2)),
            "temperature": float(rng.uniform(1, 8)),
        }
    if rng.random() < 0.6 or not candidate:
        candidate["quantization"] = {
            "mode": str(rng.choice(["static", "dynamic", "weights"])),
            "per_channel": bool(rng.random() < 0.7),
        }
    return candidate


def _values(candidate: dict[str, dict[str, Any]], rng: np.random.Generator) -> dict[str, float]:
    """Accuracy, latency and size a candidate of a small ResNet might have."""
    loss, latency, size = 0.0, BASELINE["latency_ms"], BASELINE["size_bytes"]
    kept = 1.0
    if pruning := candidate.get("pruning"):
        kept *= (1 - pruning["ratio"]) ** 1.5
        loss += 0.12 * pruning["ratio"] ** 3 * (0.8 if pruning["iterative"] else 1.0)
    if lowrank := candidate.get("lowrank"):
        kept *= 0.35 + 0.6 * lowrank["rank"]
        loss += 0.03 * (1 - lowrank["rank"]) ** 2
    if distillation := candidate.get("distillation"):
        loss *= 1 - 0.06 * distillation["epochs"]
        loss += 0.01 * (math.log10(distillation["learning_rate"]) + 3) ** 2
    else:
        loss *= 3
    if quantization := candidate.get("quantization"):
        fast = {"static": 0.42, "dynamic": 1.3, "weights": 1.0}[quantization["mode"]]
        latency *= fast
        size *= 0.26
        loss += 0.004 if quantization["per_channel"] else 0.02
    return {
        "accuracy": max(0.1, BASELINE["accuracy"] - loss + float(rng.normal(0, 0.004))),
        "latency_ms": latency * (0.05 + 0.95 * kept) * float(rng.lognormal(0, 0.05)),
        "size_bytes": float(round(size * (0.02 + 0.98 * kept))),
    }


def _measured(values: dict[str, float]) -> dict[str, float]:
    accuracy, latency = values["accuracy"], values["latency_ms"]
    half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / 2000)
    return {
        **values,
        "accuracy_low": accuracy - half,
        "accuracy_high": min(1.0, accuracy + half),
        "latency_ms_low": latency * 0.975,
        "latency_ms_high": latency * 1.025,
        "size_bytes_low": values["size_bytes"],
        "size_bytes_high": values["size_bytes"],
        "speedup": BASELINE["latency_ms"] / latency,
        "shrink": BASELINE["size_bytes"] / values["size_bytes"],
    }


def empty() -> pd.DataFrame:
    return pd.DataFrame({column: pd.Series(dtype=object) for column in COLUMNS})


def study(count: int = 120, *, seed: int = 0, trouble: bool = True) -> pd.DataFrame:
    """A study of `count` trials, the baseline first; with `trouble` some fail or are refused."""
    rng = np.random.default_rng(seed)
    clock = pd.Timestamp("2026-03-05 10:00:00")
    rows: list[dict[str, Any]] = []
    for trial in range(count):
        candidate = {} if trial == 0 else _candidate(rng)
        seconds = float(rng.uniform(20, 180)) if candidate else 12.0
        row: dict[str, Any] = {
            "trial": trial,
            "state": "complete",
            "origin": "baseline" if trial == 0 else "anchor" if trial < 6 else "sampled",
            "candidate_id": hashlib.sha256(repr(candidate).encode()).hexdigest()[:12],
            "candidate": candidate,
            "feasible": False,
            "achieved": {"pruning": {"channels": {"layer1.0.conv1": 48}}} if candidate else {},
        }
        measured = _measured(_values(candidate, rng) if candidate else BASELINE)
        fate = rng.random() if trouble and candidate else 1.0
        if fate < 0.06:
            row |= {"state": "failed", "reason": str(rng.choice(FAILURES)).format(step=trial * 7)}
        elif fate < 0.5 and measured["latency_ms"] > 6:
            keep = {"latency_ms", "latency_ms_low", "latency_ms_high", "speedup"}
            row |= {key: value for key, value in measured.items() if key in keep}
            text = f"latency {measured['latency_ms']:.2f} ms is over the bound of 6 ms"
            row |= {"state": "infeasible", "reason": text}
            seconds = 3.0
        else:
            row |= measured
            row["feasible"] = measured["latency_ms"] <= 6 and measured["accuracy"] >= 0.85
            row["artifact_sha256"] = hashlib.sha256(f"artifact {trial}".encode()).hexdigest()
        row |= {"started": clock, "finished": clock + pd.Timedelta(seconds=seconds)}
        row["seconds"] = seconds
        clock = row["finished"]
        rows.append(row)
    return with_front(pd.DataFrame(rows, columns=COLUMNS))


def hostile_study(text: str) -> pd.DataFrame:
    """A study in which a text stands wherever text from outside can stand."""
    trials = study(40)
    candidates = [
        {text: {text: text if index % 2 else f"{text}2", "note": index}} if candidate else {}
        for index, candidate in enumerate(trials["candidate"])
    ]
    trials["candidate"] = pd.Series(candidates, dtype=object)
    trials["achieved"] = pd.Series([{text: text}] * len(trials), dtype=object)
    trials["origin"] = text
    trials["candidate_id"] = text
    trials["artifact_sha256"] = text
    trials["reason"] = [
        text if state in ("failed", "infeasible") else None for state in trials["state"]
    ]
    return trials


def with_front(trials: pd.DataFrame) -> pd.DataFrame:
    """Sets `on_front` and `front_probability` as a search does, of what is feasible."""
    floats = [column for column in COLUMNS if column.startswith(VALUES)]
    trials = trials.astype(dict.fromkeys([*floats, "speedup", "shrink", "seconds"], float))
    feasible = trials["feasible"].to_numpy(dtype=bool)

    def box(end: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        values = trials[[f"{name}{end}" for name in VALUES]].to_numpy(dtype=float)
        return np.where(feasible[:, None], values, np.nan)

    trials["feasible"] = feasible
    boxes = (box(""), box("_low"), box("_high"))
    trials["on_front"] = ~dominated(*boxes, MAXIMIZE)
    trials["front_probability"] = probability_on_front(*boxes, MAXIMIZE, samples=128)
    return trials
