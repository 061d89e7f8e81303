"""The process in which artifacts run: `python -m parefront.objectives.targets.worker`.

It reads one JSON request from standard input, pins itself to the cores of the request, runs or
times artifacts, writes one JSON answer to standard output and ends. It imports torch only where a
runtime is torch's own.

A request has `kind` (`"time"`, `"reference"`, `"footprint"` or `"run"`), `parent` (process id of
the asker), `cores`, `runtime`, `threads`, `names` and `feeds` (the inputs' names, and an `.npz`
file with the arrays in that order), and what the kind needs: `candidate`, `baseline` and `runs`;
`artifact` and `runs`; `artifact`; or `artifact`, `batch_size` and `outputs` (the `.npz` file to
write). With `limits` and `seconds` the process is confined first. The answer is `{"ok": ...}` or
`{"error": "reason"}`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parefront.objectives.targets.lifeline import end_with

if TYPE_CHECKING:
    from parefront.objectives.targets.runtime import Array, Session


def main() -> None:
    """Answers the request on standard input."""
    # A runtime that prints must not garble the answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    end_with(request["parent"])
    if "limits" in request:
        from parefront.objectives.targets.limits import Limits, confine

        confine(Limits(**request["limits"]), request["seconds"])
    os.sched_setaffinity(0, request["cores"])
    gc.disable()  # collections would fall into random runs; the process is short-lived

    from parefront.errors import ParefrontError

    try:
        answer = {"ok": _serve(request)}
    except ParefrontError as error:
        answer = {"error": str(error)}
    with answers:
        json.dump(answer, answers)


def _serve(request: dict[str, Any]) -> object:
    # Imported after pinning, so that thread pools see the right number of cores.
    from contextlib import suppress
    from dataclasses import asdict

    import numpy as np

    from parefront.errors import MeasurementError
    from parefront.objectives.targets.batches import run_batches
    from parefront.objectives.targets.timing import others_ns, time_alone, time_pair

    feeds = _feeds(request)
    threads = request["threads"]
    if request["kind"] == "time":
        candidate = _open(request, "candidate")
        baseline = _open(request, "baseline")
        found = time_pair(
            candidate,
            baseline,
            feeds,
            runs=request["runs"],
            threads=threads,
            seed=os.getpid(),  # another order of the blocks in each round
            others_ns=lambda: others_ns(request["cores"]),
        )
        return asdict(found)
    if request["kind"] == "footprint":
        from parefront.errors import MeasurementError
        from parefront.objectives.targets.footprint import look

        # A file that is not there has the library imported, which no artifact should pay for.
        with suppress(MeasurementError):
            _open(request | {"artifact": f"{request['feeds']}.none"}, "artifact")
        return asdict(look(lambda: _open(request, "artifact"), Path(request["artifact"]), feeds))
    session = _open(request, "artifact")
    if request["kind"] == "reference":
        return time_alone(session, feeds, runs=request["runs"], threads=threads)
    outputs = run_batches(session, feeds, request["batch_size"])
    try:
        np.savez(request["outputs"], *outputs, allow_pickle=False)
    except OSError as error:
        raise MeasurementError(f"the outputs cannot be written: {error}") from error
    return len(outputs)


def _feeds(request: dict[str, Any]) -> dict[str, Array]:
    import zipfile
    import zlib

    import numpy as np

    from parefront.errors import MeasurementError

    try:
        with np.load(request["feeds"], allow_pickle=False) as file:
            return {name: file[f"arr_{i}"] for i, name in enumerate(request["names"])}
    except (OSError, ValueError, LookupError, MemoryError, TypeError, AttributeError,
            EOFError, zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        # What a file from elsewhere can raise in numpy and in zipfile.
        reason = str(error) or type(error).__name__
        raise MeasurementError(f"the inputs cannot be read: {reason[:400]}") from error


def _open(request: dict[str, Any], role: str) -> Session:
    from parefront.errors import MeasurementError
    from parefront.objectives.targets.catalog import runtime

    try:
        return runtime(request["runtime"]).open(Path(request[role]), request["threads"])
    except MeasurementError as error:
        raise MeasurementError(f"{role}: {error}") from error


if __name__ == "__main__":
    main()
