"""Entries of the stage cache in a store that several machines reach."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from parefront.search.remote import Listed, Remote

WORTH_SECONDS = 1.0
WORTH_BYTES = 10_000_000
"""What took longer than so many seconds, and a second more for so many bytes, is shared: the rest
is made anew in about the time that a transfer takes."""
_LOOK_SECONDS = 30.0
"""How long a look at what is there is good for, at least."""
_LOOK_SHARE = 0.05
"""Share of the time that looks may take."""
_REST_SECONDS = 60.0
"""How long a store that failed is left alone, so that trials do not wait for it."""
_SLACK = 0.9
_MOST_REMOVED = 200
"""Files that are removed in one look, so that no trial waits long for it."""
_REFRESH_SECONDS = 3 * 86_400.0
"""Age from which an entry that was used is written again, so that it does not seem forgotten."""


class SharedEntries:
    """Entries by name, found with few requests; whatever fails costs a repetition at most.

    Args:
        remote: Where the entries are.
        most_bytes: What they may take in all. Those that were not used for longest go first, when
            any process looks and finds too much; until then there may be more.
    """

    def __init__(self, remote: Remote, most_bytes: int) -> None:
        self.remote = remote
        self.most_bytes = most_bytes
        self._index: dict[str, Listed] = {}
        self._stale = 0.0
        self._rest = 0.0

    def __reduce__(self) -> tuple[type[SharedEntries], tuple[Remote, int]]:
        # What was seen, and when by this machine's clock, means nothing to another.
        return SharedEntries, (self.remote, self.most_bytes)

    def fetch(self, name: str, path: Path) -> bool:
        """Writes an entry to a local file, if it is there."""
        if self._resting():
            return False
        try:
            self._look()
            entry = self._index.get(name)
            if entry is None:
                return False
            self.remote.fetch(name, path)
            if 0 < entry.changed < time.time() - _REFRESH_SECONDS:
                self.remote.put(path, name)
                self._index[name] = replace(entry, changed=time.time())
        except FileNotFoundError:  # another process removed it
            self._index.pop(name, None)
            return False
        except OSError:
            self._fail()
            return False
        return True

    def offer(self, name: str, path: Path, seconds: float) -> None:
        """Shares an entry that took so many seconds to make, if it is worth a transfer."""
        try:
            size = path.stat().st_size
            if seconds < WORTH_SECONDS + size / WORTH_BYTES or self._resting():
                return
            self.remote.put(path, name)
            self._look()
        except OSError:
            self._fail()
            return
        self._index[name] = Listed(size, time.time())

    def _resting(self) -> bool:
        return time.monotonic() < self._rest

    def _fail(self) -> None:
        self._rest = time.monotonic() + _REST_SECONDS

    def _look(self) -> None:
        """Lists what is there now and then, and makes room if it is too much."""
        began = time.monotonic()
        if began < self._stale:
            return
        self._index = self.remote.listed()
        took = time.monotonic() - began
        self._stale = began + max(_LOOK_SECONDS, took / _LOOK_SHARE)
        total = sum(entry.size for entry in self._index.values())
        if total <= self.most_bytes:
            return
        oldest = sorted(self._index, key=lambda name: self._index[name].changed)
        gone = []
        for name in oldest[:_MOST_REMOVED]:
            total -= self._index[name].size
            gone.append(name)
            if total <= self.most_bytes * _SLACK:
                break
        for name in gone:
            del self._index[name]
        self.remote.remove(gone)
