"""The files of a bundle, and their checksums.

| file | what is in it |
|---|---|
| `model.*` | the artifact, byte for byte what was measured |
| `config.json` | the candidate: each stage's config and what it achieved |
| `metrics.json` | measurements on the validation and the test split, and the baseline's |
| `environment.json` | the device, its runtime, and versions of the libraries |
| `lineage.json` | study, trial, task, data and baseline it came from |
| `check.npz` | a few real inputs with the outputs the artifact gave |
| `run.py` | runs the artifact with nothing but its runtime and numpy |
| `README.md` | model card |
| `SHA256SUMS` | checksums of all of these; `sha256sum -c SHA256SUMS` reads it too |
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from parefront.errors import BundleError
from parefront.objectives.artifact import sha256_of
from parefront.objectives.targets.runtime import Array

CHECKSUMS = "SHA256SUMS"


def write_json(path: Path, content: object) -> None:
    """Writes indented JSON; numbers read back exactly."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Reads a JSON object of a bundle.

    Raises:
        BundleError: If it is missing or not a JSON object.
    """
    try:
        content = json.loads((folder / name).read_text())
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder} is not a bundle: {name} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise BundleError(f"{folder} is not a bundle: {name} holds no JSON object")
    return content


def write_check(path: Path, inputs: Mapping[str, Array], outputs: Sequence[Array]) -> None:
    """Writes inputs under their names and outputs as `output:0`, `output:1`, ..."""
    arrays = {f"output:{index}": output for index, output in enumerate(outputs)}
    np.savez(path, **inputs, **arrays)  # type: ignore[arg-type]


def read_check(folder: Path) -> tuple[dict[str, Array], list[Array]]:
    """The inputs and outputs of `check.npz`; nothing in it is unpickled.

    Raises:
        BundleError: If it cannot be read.
    """
    try:
        with np.load(folder / "check.npz", allow_pickle=False) as content:
            names = list(content)
            outputs = [name for name in names if name.startswith("output:")]
            return (
                {name: content[name] for name in names if name not in outputs},
                [content[f"output:{index}"] for index in range(len(outputs))],
            )
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise BundleError(f"{folder / 'check.npz'} cannot be read: {error}") from error


def write_checksums(folder: Path) -> None:
    """Writes the checksums of all files in a folder."""
    names = sorted(path.name for path in folder.iterdir() if path.name != CHECKSUMS)
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in names]
    (folder / CHECKSUMS).write_text("".join(lines))


def check_checksums(folder: Path) -> int:
    """Compares every file of a bundle with its checksum.

    Returns:
        How many files were compared.

    Raises:
        BundleError: Naming the files that changed, are missing or are new.
    """
    try:
        lines = (folder / CHECKSUMS).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder} is not a bundle: {CHECKSUMS} cannot be read") from error
    listed = {}
    for line in lines:
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or Path(name).name != name:
            raise BundleError(f"{folder / CHECKSUMS} is damaged: {line!r}")
        listed[name] = digest
    found = {path.name for path in folder.iterdir() if path.name != CHECKSUMS}
    wrong = [f"{name} is missing" for name in sorted(set(listed) - found)]
    wrong += [f"{name} is not listed" for name in sorted(found - set(listed))]
    wrong += [
        f"{name} changed"
        for name in sorted(set(listed) & found)
        if not (folder / name).is_file() or sha256_of(folder / name) != listed[name]
    ]
    if wrong:
        raise BundleError(f"{folder} is not what was exported: {', '.join(wrong)}")
    return len(listed)


def agree(given: Sequence[Array], expected: Sequence[Array]) -> float:
    """Largest difference of outputs, relative to the largest expected magnitude.

    Integers and booleans must be equal, else the difference is infinite, as it is for outputs of
    another number, shape or NaN.
    """
    if [x.shape for x in given] != [x.shape for x in expected]:
        return float("inf")
    worst = 0.0
    for x, y in zip(given, expected, strict=True):
        if not np.issubdtype(y.dtype, np.floating):
            worst = max(worst, 0.0 if np.array_equal(x, y) else float("inf"))
        elif y.size:
            a, b = x.astype(np.float64), y.astype(np.float64)
            scale = max(float(np.abs(b).max()), 1e-12)
            difference = float(np.abs(a - b).max()) / scale
            worst = max(worst, difference if np.isfinite(difference) else float("inf"))
    return worst
