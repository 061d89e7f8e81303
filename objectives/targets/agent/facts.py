"""The fingerprint of a runtime, read in a process of its own.

A runtime's library is imported there, and not into the agent, which stays small and goes on when
the library is broken: `python -m parefront.objectives.targets.agent.facts RUNTIME THREADS`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parefront.errors import ParefrontError
from parefront.objectives.targets.agent.refusal import Refusal
from parefront.objectives.targets.fingerprint import fingerprint

_MODULE = "parefront.objectives.targets.agent.facts"
_SECONDS = 120.0


def facts(runtime: str, threads: int) -> Mapping[str, Any]:
    """The fingerprint.

    Args:
        runtime: Name of a runtime that there is.
        threads: Threads the runtime may use.

    Raises:
        Refusal: If it cannot be read, for example because the runtime is not installed.
    """
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", _MODULE, runtime, str(threads)],
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
        answer = json.loads(done.stdout)
        if "ok" in answer:
            found: dict[str, Any] = answer["ok"]
            return found
        reason = str(answer["error"])
    except (OSError, ValueError, LookupError, subprocess.TimeoutExpired) as error:
        reason = f"the runtime {runtime!r} cannot be looked at: {error}"
    raise Refusal(400, reason)


def main() -> None:
    """Writes the fingerprint, or why there is none, as JSON."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library that prints must not garble the answer
    try:
        answer: dict[str, Any] = {"ok": fingerprint(sys.argv[1], int(sys.argv[2]))}
    except (ParefrontError, ImportError) as error:
        answer = {"error": str(error)}
    with answers:
        json.dump(answer, answers)


if __name__ == "__main__":
    main()
