"""A launch in a process of its own, whose trials cost nothing.

Args: URL of the storage, trials in all, how many to finish before it takes one more and hangs; a
negative number for never.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from parefront.search.budget import Budget
from parefront.search.desk import Desk
from parefront.search.heartbeat import Heartbeat
from parefront.search.launch import Progress, Silent, Stop
from parefront.search.ledger import Ledger
from parefront.search.locks import lock_of
from parefront.search.patience import Patience
from parefront.search.pipeline import NoChecks
from tests.search.fakes import outcome
from tests.search.trials import ledger, proposer


def desk(
    url: str,
    trials: int,
    *,
    patience: Patience | None = None,
    progress: Progress | None = None,
    heartbeat: Heartbeat | None = None,
    into: Ledger | None = None,
) -> Desk:
    """The desk of a launch."""
    return Desk(
        ledger=into or ledger(url, patience),
        proposer=proposer(sampler="random"),
        checks=lambda _: NoChecks(),
        budget=Budget(trials),
        lock=lock_of(url, "s", patience=patience),
        stop=Stop(),
        progress=progress or Silent(),
        heartbeat=heartbeat,
    )


def work(at: Desk, most: int = -1) -> int:
    """Takes and finishes trials, at most so many; how many there were."""
    done = 0
    while done != most:
        started = at.next()
        if isinstance(started, str):
            break
        at.finish(started, outcome(started.candidate))
        done += 1
    return done


if __name__ == "__main__":
    url, trials, most = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    here = desk(url, trials)
    print(work(here, most), flush=True)
    if most >= 0:
        print(here.next(), flush=True)
        signal.pause()
