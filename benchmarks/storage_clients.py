"""Many processes that write trials at once: through Optuna's gRPC proxy, and straight.

Each process creates and finishes trials as a ledger does. All of them begin together, and the time
is that until the last one is done.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

import optuna

from benchmarks.growth import default_space
from benchmarks.made_up_trials import OBJECTIVES, candidates, outcome, record
from parefront.search.guide import Drawn, optuna_directions
from parefront.search.ledger import Ledger
from parefront.search.records import Owner
from parefront.search.serve_storage import served
from parefront.search.storage import open_storage

_SECONDS = 600.0
"""What the slowest process may take to get ready, and to write."""


@dataclass(frozen=True)
class Throughput:
    """What processes write together.

    Attributes:
        through: `"grpc"` or `"postgresql"`.
        processes: How many there are.
        trials_per_s: Trials a second that all of them create and finish.
    """

    through: str
    processes: int
    trials_per_s: float


def measured(
    url: str, port: int, processes: Sequence[int], trials: int, repeats: int
) -> Iterator[Throughput]:
    """Throughputs of each number of processes, of the proxy and without it in turn.

    Args:
        url: An empty database.
        port: A free port for the proxy.
        processes: Numbers of processes.
        trials: Trials that all of them write together.
        repeats: How often each is measured.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with served(url, "127.0.0.1", port) as proxy:
        for count in processes:
            for turn in range(repeats):
                for through, address in (("postgresql", url), ("grpc", proxy)):
                    name = f"{through}-{count}-{turn}"
                    optuna.create_study(
                        study_name=name,
                        storage=open_storage(url),
                        directions=optuna_directions(list(OBJECTIVES.values())),
                    )
                    seconds = together(address, name, count, trials // count)
                    yield Throughput(through, count, trials // count * count / seconds)


def together(url: str, name: str, processes: int, trials: int) -> float:
    """Seconds in which so many processes write so many trials each."""
    # One process loads the libraries, and the others are forked from it: it has no threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.storage_clients"])
    ready = context.Barrier(processes + 1)
    clients = [
        context.Process(target=write, args=(url, name, number, trials, ready), daemon=True)
        for number in range(processes)
    ]
    for client in clients:
        client.start()
    ready.wait(_SECONDS)
    start = time.perf_counter()
    ready.wait(_SECONDS)
    seconds = time.perf_counter() - start
    for client in clients:
        client.join(_SECONDS)
    failed = [client.exitcode for client in clients if client.exitcode != 0]
    if failed:
        raise RuntimeError(f"expected all processes to end well, got {failed}")
    return seconds


def write(url: str, name: str, number: int, trials: int, ready: Barrier) -> None:
    """One process: creates and finishes trials between the two times that all wait for each other.

    Args:
        url: The storage.
        name: Name of the study.
        number: Which process it is.
        trials: How many trials it writes.
        ready: What all wait at.
    """
    try:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = open_storage(url)
        study = optuna.load_study(study_name=name, storage=storage)
        ledger, space = Ledger(study, storage, list(OBJECTIVES)), default_space()
        draws, owner = random.Random(number), Owner.me()
        chosen = list(candidates(space, trials, seed=number))
        drawn = [Drawn.of(each, space) for each in chosen]
        ready.wait(_SECONDS)
        for candidate, each in zip(chosen, drawn, strict=True):
            trial = ledger.create(record(candidate, owner), each.parameters, each.distributions, {})
            ledger.finish(trial, outcome(draws))
        ready.wait(_SECONDS)
    except BaseException:
        ready.abort()  # nobody waits for who will not come
        raise
