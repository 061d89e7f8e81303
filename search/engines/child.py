"""The process of a supervised launch: `python -m parefront.search.engines.child`.

It takes the process id of whoever watches it, and file descriptors: of the plan, of the words it is
told, of the messages it tells, and of the file where it writes where it was when it crashed.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import pickle
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from types import FrameType
from typing import IO

import torch

from parefront.errors import EngineError, ParefrontError, UsageError
from parefront.objectives.targets.lifeline import end_with
from parefront.search.engines.messages import (
    HEARD,
    NOW,
    SOON,
    WHERE,
    Alive,
    Began,
    End,
    Ended,
    Failure,
    Message,
    Outlook,
    Phase,
)
from parefront.search.launch import Stop
from parefront.search.plan import Plan
from parefront.search.records import Outcome
from parefront.search.run import driven
from parefront.spaces.space import Candidate

_EVERY = 0.5
"""Seconds between signs of life."""


class Wire:
    """To and from whoever watches.

    Args:
        told: Words come here.
        telling: Messages go there.
    """

    def __init__(self, told: IO[bytes], telling: IO[bytes]) -> None:
        self._told = told
        self._telling = telling
        self._writing = Lock()
        self._heard = Event()
        self._last = 0.0

    def tell(self, message: Message) -> None:
        """Sends a message."""
        with self._writing:
            self._telling.write(message.line())

    def alive(self) -> None:
        """Gives a sign of life, if the last was a while ago."""
        now = monotonic()
        if now - self._last > _EVERY:
            self._last = now
            self.tell(Alive())

    def listen(self, stop: Stop) -> None:
        """Takes words from now on."""

        def take() -> None:
            for line in self._told:
                word = line.strip()
                if word == HEARD:
                    self._heard.set()
                elif word in (SOON, NOW):
                    stop.request(now=word == NOW)

        Thread(target=take, daemon=True).start()

    def phase(self, text: str) -> None:
        """Tells it."""
        self.tell(Phase(text=text))

    def began(self, trial: int, candidate: Candidate) -> None:
        """Tells it."""
        self.tell(Began(trial=trial, candidate=candidate.as_dict()))

    def ended(self, trial: int, outcome: Outcome) -> None:
        """Tells it, and waits until that was passed on."""
        self._heard.clear()
        self.tell(Ended(trial=trial, outcome=outcome))
        self._heard.wait()

    def outlook(self, share: float, trials: int) -> None:
        """Tells it."""
        self.tell(Outlook(share=share, trials=trials))


class WatchedStop(Stop):
    """A request to end that gives a sign of life whenever it is asked.

    Args:
        wire: Where the sign goes.
    """

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def attend(self) -> None:
        """Gives a sign of life."""
        self._wire.alive()

    @property
    def requested(self) -> bool:
        """Whether the launch is to end."""
        self.attend()
        return super().requested

    @property
    def requested_now(self) -> bool:
        """Whether the trial under way is to be given up."""
        self.attend()
        return super().requested_now


def main() -> None:
    """Runs the launch."""
    parent, luggage, told, telling, where = map(int, sys.argv[1:])
    end_with(parent)
    for each in (luggage, told, telling, where):
        os.set_inheritable(each, False)
    _leave_signals_to_the_parent()
    atexit.register(_leave)
    faulthandler.enable(where, all_threads=False)
    faulthandler.register(WHERE, where, all_threads=False)
    with suppress(OSError):  # when memory runs out, it is not the parent that has to go
        Path("/proc/self/oom_score_adj").write_text("500")
    # Without buffers, whose locks a thread that waits for a word would hold to the very end.
    wire = Wire(os.fdopen(told, "rb", buffering=0), os.fdopen(telling, "wb", buffering=0))
    wire.tell(_launched(luggage, wire))


def _launched(luggage: int, wire: Wire) -> Message:
    """How the launch ended."""
    try:
        with os.fdopen(luggage, "rb") as file:
            plan = _unpacked(file)
        stop = WatchedStop(wire)
        stop.attend()
        wire.listen(stop)
        return End(reason=driven(plan, wire, stop))
    except ParefrontError as error:
        again = isinstance(error, EngineError) and error.again
        return Failure(type=type(error).__name__, message=str(error), again=again)
    except Exception as error:  # noqa: BLE001 - the parent raises it
        name, trace = type(error).__name__, traceback.format_exc()
        return Failure(type=name, message=str(error), trace=trace)


def _unpacked(luggage: IO[bytes]) -> Plan:
    """What the parent hands over.

    Raises:
        UsageError: If it cannot be read here.
    """
    main_file, threads = pickle.load(luggage)  # noqa: S301 - the parent wrote it
    # Classes of the user's script say where they were written, as they do in the script itself.
    script = sys.modules["__main__"]
    if main_file is None:
        del script.__file__
    else:
        script.__file__ = main_file
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    try:
        found: Plan = pickle.load(luggage)  # noqa: S301 - as above
    except Exception as error:  # whatever the user's modules raise when they are imported
        raise UsageError(
            "the task cannot be taken to the process of the launch: "
            f"{type(error).__name__}: {error}; name it as path/to/file.py:name, or use the engine "
            "'inline'"
        ) from error
    return found


def _leave() -> None:
    """Ends at once, for taking down torch object by object takes seconds.

    What the task has registered to be done at exit was done before.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)


def _leave_signals_to_the_parent() -> None:
    """Has interrupts do nothing here, for the parent says what they mean."""
    me = os.getpid()

    def leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if os.getpid() != me:  # what a stage has forked meets its signals as ever
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)


if __name__ == "__main__":
    main()
