"""The process of a supervised launch, as the one that watches it sees it."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import sleep

import cloudpickle
import psutil
import torch

from parefront.errors import EngineError, UsageError
from parefront.search.engines.messages import WHERE, Message, message_of
from parefront.search.plan import Plan
from parefront.search.records import Owner

_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.MULTILINE)
_CHUNK = 1 << 16
_WRITING = 0.2
"""Seconds that a process has to write where it is."""
_HINTS = {"SIGKILL": ", perhaps for want of memory", "SIGBUS": ", perhaps for want of disk space"}


class ChildProcess:
    """A fresh process with a launch of its own, which dies with this one.

    It has a session of its own, so that an interrupt from the terminal does not reach it.

    Args:
        plan: What it launches.

    Raises:
        UsageError: If the task cannot be handed over.
        EngineError: If no process can be started.
    """

    def __init__(self, plan: Plan) -> None:
        luggage = packed(plan)
        self._luggage = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._where = tempfile.TemporaryFile()  # noqa: SIM115
        self._luggage.write(luggage)
        self._luggage.seek(0)
        told, self._words = os.pipe()
        self._messages, telling = os.pipe()
        handed = (self._luggage.fileno(), told, telling, self._where.fileno())
        # The child finds parefront and the task where this process finds them, and nothing else in
        # the current directory (-P).
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "parefront.search.engines.child",
                 str(os.getpid()), *map(str, handed)],
                stdin=subprocess.DEVNULL,
                pass_fds=handed,
                env=os.environ | {"PYTHONPATH": path},
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._close()
            raise EngineError(f"the process of the launch cannot be started: {error}") from error
        finally:
            os.close(told)
            os.close(telling)
        self._exit = os.pidfd_open(self._process.pid)
        self._rest = b""
        self.owner = Owner.of(self._process.pid)

    def tell(self, word: bytes) -> None:
        """Sends a word, if there is anyone to hear it."""
        with suppress(BrokenPipeError):  # its end is seen elsewhere
            os.write(self._words, word + b"\n")

    def messages(self, seconds: float) -> list[Message]:
        """What it has told, as soon as there is something or it has ended."""
        if not _ready([self._messages, self._exit], seconds):
            return []
        os.set_blocking(self._messages, False)
        found = self._rest
        with suppress(BlockingIOError):  # processes it has left behind may keep the pipe open
            while chunk := os.read(self._messages, _CHUNK):
                found += chunk
        *lines, self._rest = found.split(b"\n")
        return [message_of(line) for line in lines]

    def ended(self, seconds: float = 0.0) -> bool:
        """Whether it has ended, or does within some seconds."""
        return _ready([self._exit], seconds)

    def memory(self) -> int:
        """Bytes of memory that it and the processes it started take."""
        total = 0
        for process in self._family():
            with suppress(psutil.Error):
                total += process.memory_info().rss
        return total

    def where(self) -> str:
        """Where it was, as `" at task.py:12 in loss"`; nothing if that cannot be told."""
        with suppress(OSError):
            self._where.seek(0)
            frames = _FRAME.findall(self._where.read().decode(errors="replace"))
            installed = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "purelib"))
            own = [each for each in frames if not each[0].startswith(installed)]
            for file, line, name in (own or frames)[:1]:
                return f" at {Path(file).name}:{line} in {name}"
        return ""

    def ask_where(self) -> None:
        """Has a process that hangs write where it does."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._exit, WHERE)
            sleep(_WRITING)

    def how(self) -> str:
        """How it ended, by itself."""
        code = self._process.wait()
        if code >= 0:
            return f"it ended with exit code {code}"
        name = signal.Signals(-code).name
        return f"killed by signal {-code} ({name}){_HINTS.get(name, '')}{self.where()}"

    def kill(self) -> None:
        """Ends it and everything it started, and waits for that."""
        if self._process.returncode is not None:
            return
        family = self._family() if not self.ended() else []
        for each in family:
            with suppress(psutil.Error):
                each.kill()
        # What was left by a process that is gone is found by its group. The process itself is not
        # waited for until then, so that its number is nobody else's.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Ends it, if it runs, and lets go of all that belongs to it."""
        self.kill()
        os.close(self._exit)
        self._close()

    def _family(self) -> list[psutil.Process]:
        with suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            return [process, *process.children(recursive=True)]
        return []

    def _close(self) -> None:
        os.close(self._words)
        os.close(self._messages)
        self._luggage.close()
        self._where.close()


def _ready(descriptors: Sequence[int], seconds: float) -> bool:
    """Whether one of them can be read, or can be within some seconds."""
    poll = select.poll()
    for each in descriptors:
        poll.register(each, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def packed(plan: Plan) -> bytes:
    """A plan as the process of a launch takes it.

    A task of the program that was started, or of a notebook, goes with its code; one of a module
    by its name.

    Raises:
        UsageError: If the task cannot be handed over.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    script = str(Path(script).absolute()) if script is not None else None
    try:
        return bytes(cloudpickle.dumps((script, torch.get_num_threads())) + cloudpickle.dumps(plan))
    except Exception as error:  # whatever the user's objects raise
        raise UsageError(
            "the task cannot be handed to the process of the launch: "
            f"{type(error).__name__}: {error}; name it as path/to/file.py:name, or use the engine "
            "'inline'"
        ) from error
