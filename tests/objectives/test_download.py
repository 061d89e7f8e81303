"""The compressed size, exactly, piece by piece."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import zstandard

from parefront.errors import MeasurementError
from parefront.objectives.artifact import Artifact
from parefront.objectives.download_size import DownloadSize
from parefront.objectives.objective import Scene

NOWHERE = cast(Scene, None)
"""Nothing of the scene is used."""


def packed(path: Path) -> float:
    return DownloadSize().measure(Artifact.of(path, "onnx"), NOWHERE).value


def weights(kind: str) -> bytes:
    rng = np.random.default_rng(0)
    values = rng.normal(size=300_000).astype(np.float32)
    if kind == "sparse":
        values[rng.random(len(values)) < 0.9] = 0
    if kind == "shared":
        values = rng.choice(values[:16], len(values))
    return values.tobytes()


@pytest.mark.parametrize("kind", ["dense", "sparse", "shared"])
def test_it_is_the_length_of_what_unpacks_to_the_file(kind: str, tmp_path: Path) -> None:
    data = weights(kind)  # more than one piece
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    whole = zstandard.ZstdCompressor(level=19).compress(data)
    assert zstandard.ZstdDecompressor().decompress(whole) == data
    assert packed(path) == len(whole)


def test_weights_that_repeat_travel_in_fewer_bytes(tmp_path: Path) -> None:
    sizes = {}
    for kind in ("dense", "sparse", "shared"):
        path = tmp_path / f"{kind}.onnx"
        path.write_bytes(weights(kind))
        sizes[kind] = packed(path)
    assert sizes["dense"] > 0.9 * 1_200_000
    assert sizes["sparse"] < 0.2 * sizes["dense"]
    assert sizes["shared"] < 0.2 * sizes["dense"]


def test_the_measurement_is_exact_and_names_the_library(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"abc" * 100)
    found = DownloadSize().measure(Artifact.of(tmp_path / "m.onnx", "onnx"), NOWHERE)
    assert found.low == found.value == found.high
    assert found.unit == "B"
    assert found.protocol.startswith("zstandard 1.")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"path": Path("missing.onnx")}, "No such file"), ({"size_bytes": 99}, "zstd")],
)
def test_a_file_that_is_gone_or_changed_is_said(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "m.onnx").write_bytes(b"abc" * 100)
    artifact = replace(Artifact.of(tmp_path / "m.onnx", "onnx"), **change)
    with pytest.raises(MeasurementError, match=f"cannot compress .*onnx: .*{message}"):
        DownloadSize().measure(artifact, NOWHERE)
