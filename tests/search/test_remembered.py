"""What stages find out about a model is found once, however often they are applied to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from parefront.search.stage_cache import StageCache
from tests.search.pipelines import pipeline
from tests.tiny import make

SPACE: dict[str, dict[str, Any]] = {
    "prune": {"scope": "sensitivity", "importance": "l2", "multiple": 1},
    "factorize": {"rank": "sensitivity", "multiple": 1, "layers": "all"},
    "sparsify": {"scope": "sensitivity"},
    "round": {"levels": "uniform", "bits": [2, 4], "allocation": "sensitivity", "ends": True},
}
RATIO = {"importance": "l2", "scope": "sensitivity", "multiple": 1}
RANKS = {"rank": "sensitivity", "multiple": 1, "layers": "all"}
SPARSE = {"pattern": "free", "scope": "sensitivity", "saliency": "magnitude", "schedule": "once"}
ROUND = {"levels": "uniform", "allocation": "sensitivity", "ends": True}
CONFIGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "prune": (RATIO | {"ratio": 0.4}, RATIO | {"ratio": 0.6}),
    "factorize": (RANKS | {"ratio": 0.4}, RANKS | {"ratio": 0.6}),
    "sparsify": (SPARSE | {"sparsity": 0.5}, SPARSE | {"sparsity": 0.9}),
    "round": (ROUND | {"bits": 2}, ROUND | {"bits": 4}),
}


@pytest.mark.parametrize("stage", CONFIGS)
@pytest.mark.parametrize("kept", [True, False])
def test_one_measurement_serves_every_strength(tmp_path: Path, stage: str, *, kept: bool) -> None:
    passes = 0

    def counted(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += 1
        return functional.cross_entropy(outputs, targets)

    cache = StageCache(tmp_path / "cache", keys=tmp_path / "keys") if kept else None
    ready = pipeline(tmp_path, replace(make(), loss=counted), SPACE, cache=cache).builder
    counts, tables = [], []
    for config in (*CONFIGS[stage], CONFIGS[stage][0]):
        passes = 0
        candidate = ready.space.candidate({stage: config})
        path = tmp_path / "a.onnx"
        achieved = ready.build(candidate, path, trained=False)[stage]
        counts.append(passes)
        tables.append(achieved["sensitivity"])
    assert counts[0] > 0
    assert counts[1] == (0 if kept else counts[0])
    assert tables[0] == tables[1] == tables[2]

    passes = 0  # another model, here a pruned one, is measured by itself
    if stage != "prune":
        both = ready.space.candidate({"prune": CONFIGS["prune"][0], stage: CONFIGS[stage][0]})
        other = ready.build(both, tmp_path / "b.onnx", trained=False)[stage]["sensitivity"]
        assert passes > 0
        assert other != tables[0]
