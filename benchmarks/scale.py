"""What a search costs on many workers, and what they bring.

    python -m benchmarks.scale [--quick] [--parts NAME ...]

- `workers`: one driver with a thousand simulated workers at a real PostgreSQL; what is timed is the
  driver's own work: asking for a trial, judging and recording it.
- `clients`: processes that write trials at once, through Optuna's gRPC proxy and straight to
  PostgreSQL, in turn.
- `speedup`: trials that do nothing but train, on one Ray worker and on two, in turn; and beside
  them in one study without Ray and in two at once, which is what the machine allows.
- `overhead`: trials that take next to nothing, through the engines `ray` and `inline` in turn, and
  beside them Ray Tune with a function that does nothing.
- `latency`: latencies while the other core trains, beside those alone.

The last line is a JSON object. `trials_per_s` is what one driver keeps up with at the most workers
(`simulated_workers`) and after the most trials, `ask_p50_ms` and `ask_p99_ms` how long a worker
waits there for its next trial; `busy_workers` is how many workers that keeps busy with trials of a
median of five minutes. `two_worker_speedup` and `ray_overhead_s_per_trial` are medians of the
repeats, with their ranges beside them; `clients_per_s_NAME_N` are trials a second of N processes.
Quick: fewer trials, up to 100 workers, few repeats.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict

Results = dict[str, float]

_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""What a driver beside workers has: one core. Libraries read it when they are loaded."""


def workers(*, quick: bool) -> Results:
    """One driver and many simulated workers."""
    from benchmarks.postgres import postgres
    from benchmarks.thousand_workers import MEDIAN_SECONDS, SPREAD, Cell, simulate

    widths = (10, 100) if quick else (10, 100, 1000)
    lengths = (0, 300) if quick else (0, 1_000, 10_000)
    last: Cell | None = None
    parts = ("ask", "read", "propose", "create", "judge", "finish")
    head = "".join(f"{name:>16}" for name in parts)
    print(f"{'workers':>8}{'trials':>8}{'per s':>7}{head}   ms, median / p99")
    found: Results = {}
    with postgres() as server, server.database() as url:
        for cell in simulate(url, widths, lengths, steps=30 if quick else 200):
            times = "".join(
                f"{median:8.1f} /{high:6.0f}"
                for median, high in (cell.milliseconds.get(name, (0.0, 0.0)) for name in parts)
            )
            print(f"{cell.workers:8}{cell.trials:8,}{cell.trials_per_s:7.1f}{times}", flush=True)
            print(
                f"{'':>16} {cell.transactions:.0f} transactions, {cell.rows_read:,.0f} rows read, "
                f"{cell.rows_written:.0f} written and {cell.bytes:,.0f} bytes a trial",
                flush=True,
            )
            name = f"{cell.workers}_{cell.trials}"
            found[f"trials_per_s_{name}"] = round(cell.trials_per_s, 2)
            found[f"ask_p50_ms_{name}"] = round(cell.milliseconds["ask"][0], 1)
            found[f"ask_p99_ms_{name}"] = round(cell.milliseconds["ask"][1], 1)
            last = cell
    assert last is not None
    mean = MEDIAN_SECONDS * math.exp(SPREAD**2 / 2.0)
    return found | {
        "simulated_workers": last.workers,
        "trials_per_s": round(last.trials_per_s, 2),
        "busy_workers": round(last.trials_per_s * mean),
        "ask_p50_ms": round(last.milliseconds["ask"][0], 1),
        "ask_p99_ms": round(last.milliseconds["ask"][1], 1),
        "finish_p50_ms": round(last.milliseconds["finish"][0], 1),
        "finish_p99_ms": round(last.milliseconds["finish"][1], 1),
        "database_transactions_per_trial": round(last.transactions, 1),
        "database_rows_read_per_trial": round(last.rows_read),
        "database_rows_written_per_trial": round(last.rows_written),
        "database_bytes_per_trial": round(last.bytes),
    }


def clients(*, quick: bool) -> Results:
    """Many processes that write at once."""
    from benchmarks.postgres import postgres
    from benchmarks.storage_clients import measured

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    counts, trials, repeats = ((8,), 160, 1) if quick else ((8, 32), 640, 3)
    found: dict[str, list[float]] = {}
    with postgres() as server, server.database() as url:
        for each in measured(url, port, counts, trials, repeats):
            name = f"clients_per_s_{each.through}_{each.processes}"
            found.setdefault(name, []).append(each.trials_per_s)
            print(
                f"{each.processes:4} processes, {each.through:>10}: "
                f"{each.trials_per_s:7.1f} trials a second",
                flush=True,
            )
    return {name: round(statistics.median(values), 1) for name, values in found.items()}


def speedup(*, quick: bool) -> Results:
    """Two workers against one."""
    from benchmarks.ray_trials import ceilings, speedups, spread

    trials, repeats = (14, 1) if quick else (30, 3)
    found = speedups(trials, repeats)
    print(f"two workers: {spread(found)} times the trials of one")
    most = ceilings(trials, repeats)
    print(f"two studies at once, without Ray: {spread(most)} times the trials of one")
    return _range("two_worker_speedup", found) | _range("two_study_speedup", most)


def overhead(*, quick: bool) -> Results:
    """What Ray costs a trial."""
    from benchmarks.ray_trials import overheads, spread, tune_functions

    found = overheads(trials=50, repeats=1 if quick else 3)
    functions = tune_functions(8 if quick else 20)
    print(f"ray: {spread(found)} s a trial more than inline")
    print(f"ray tune, a function that does nothing: {functions:.2f} s a trial")
    return _range("ray_overhead_s_per_trial", found) | {
        "tune_function_s_per_trial": round(functions, 2)
    }


def latency(*, quick: bool) -> Results:
    """Latencies beside a training."""
    from benchmarks.latency_beside_training import latency_agreement

    found = latency_agreement(candidates=20, quick=quick)
    return {f"latency_{name}": round(float(v), 4) for name, v in asdict(found).items()}


def _range(name: str, values: list[float]) -> Results:
    return {
        name: round(statistics.median(values), 3),
        f"{name}_least": round(min(values), 3),
        f"{name}_most": round(max(values), 3),
    }


PARTS: Mapping[str, Callable[..., Results]] = {
    "workers": workers,
    "clients": clients,
    "speedup": speedup,
    "overhead": overhead,
    "latency": latency,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few minutes in all")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="these parts alone")
    arguments = parser.parse_args()
    chosen = list(PARTS) if arguments.parts is None else arguments.parts
    if len(chosen) == 1:
        print(json.dumps(PARTS[chosen[0]](quick=arguments.quick)))
        return
    # Each in a process of its own, so that none inherits the threads and settings of another.
    results: Results = {}
    for name in chosen:
        print(f"\n{name}: {PARTS[name].__doc__}", flush=True)
        more = ["--quick"] if arguments.quick else []
        environment = os.environ | (_THREADS if name in ("workers", "clients") else {})
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.scale", "--parts", name, *more],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process:
            last = ""
            for line in process.stdout or ():
                if last:
                    print(last, end="", flush=True)
                last = line
        if process.returncode != 0:
            raise SystemExit(f"{name} failed")
        results |= json.loads(last)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
