"""The process in which artifacts run: `python -m parefront.objectives.targets.worker`.

It reads one JSON request from standard input, pins itself to the cores of the request, runs or
times artifacts, writes one JSON answer to standard output and ends. It never imports torch.

A request has `kind` (`"time"`, `"reference"` or `"run"`), `parent` (process id of the asker),
`cores`, `runtime`, `threads`, `names` and `feeds` (the inputs' names, and an `.npz` file with
the arrays in that order), and what the kind needs: `candidate`, `baseline` and `runs`;
`artifact` and `runs`; or `artifact`, `batch_size` and `outputs` (the `.npz` file to write). The
answer is `{"ok": ...}` or `{"error": "reason"}`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parefront.objectives.targets.runtime import Session

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answers the request on standard input."""
    # A runtime that prints must not garble the answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    _end_with(request["parent"])
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
    from dataclasses import asdict

    import numpy as np

    from parefront.objectives.targets.batches import run_batches
    from parefront.objectives.targets.timing import time_alone, time_pair

    with np.load(request["feeds"], allow_pickle=False) as file:
        feeds = {name: file[f"arr_{i}"] for i, name in enumerate(request["names"])}
    threads = request["threads"]
    if request["kind"] == "time":
        candidate = _open(request, "candidate")
        baseline = _open(request, "baseline")
        timing = time_pair(candidate, baseline, feeds, runs=request["runs"], threads=threads)
        return asdict(timing)
    session = _open(request, "artifact")
    if request["kind"] == "reference":
        return time_alone(session, feeds, runs=request["runs"], threads=threads)
    outputs = run_batches(session, feeds, request["batch_size"])
    np.savez(request["outputs"], *outputs, allow_pickle=False)
    return len(outputs)


def _open(request: dict[str, Any], role: str) -> Session:
    from parefront.errors import MeasurementError
    from parefront.objectives.targets.catalog import runtime

    try:
        return runtime(request["runtime"]).open(Path(request[role]), request["threads"])
    except MeasurementError as error:
        raise MeasurementError(f"{role}: {error}") from error


def _end_with(parent: int) -> None:
    """Has the kernel kill this process when the asker dies, even by SIGKILL."""
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)


if __name__ == "__main__":
    main()
