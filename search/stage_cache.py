"""What stages have made, kept so that no stage runs twice for the same beginning of a candidate.

An entry is found by everything that its making depends on: the trained baseline, the task's data
and loss, and for each stage so far its config, seed and code, and the versions of the libraries.
Change one byte of any, and the entry is another one.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import os
import pickle
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError
from torch import nn

from parefront.search.cache_key import own_key
from parefront.search.remote import PART, Remote
from parefront.search.shared_entries import SharedEntries
from parefront.spaces.stage import Form

_FORMAT = 1
_SEAL = hashlib.sha256().digest_size
_HALF_LIFE_DAYS = 7.0
"""Days after which an entry that nobody used is worth half."""
_SLACK = 0.9
"""When the cache is full it is emptied to this share, so that not every entry sweeps."""
_DRAFT_SECONDS = 3600.0
_WRITERS = 4
"""How many processes may write between two looks at what is there, without filling it over."""

Model = nn.Module | onnx.ModelProto


@dataclass(frozen=True)
class Cached:
    """What a stage made.

    Attributes:
        model: The module or ONNX model.
        achieved: What the stage said it had done.
    """

    model: Model
    achieved: Mapping[str, Any]


class StageCache:
    """Entries in a folder, shared by trials, studies and processes.

    Modules are kept as pickles, which can run code when they are read. So every entry is sealed
    with a key that only this user can read, and an entry without the right seal is not read.

    With a store that several machines reach, the folder is what this machine keeps of it: what is
    not here is looked for there, and what is worth it is shared. A store has a folder a key, so
    that users with keys of their own neither read nor displace each other's entries.

    Args:
        root: Folder of the cache; made when the first entry comes.
        most_bytes: What the entries may take in all; the least valuable go first.
        keys: Folder of the key. It is the user's own and not beside the entries, so that a copied
            cache brings no key; by default as `parefront.search.cache_key.own_key` finds it.
        remote: Where entries are shared, which are then bounded there alike.
    """

    def __init__(
        self,
        root: Path,
        most_bytes: int = 2_000_000_000,
        keys: Path | None = None,
        remote: Remote | None = None,
    ) -> None:
        self.root = root
        self.most_bytes = most_bytes
        self.keys = keys
        self.remote = remote
        self._room = 0

    def get(self, key: str, form: Form) -> Cached | None:
        """The entry of a key, `None` if there is none that can be read."""
        found = self._read(key)
        if found is None:
            return None
        achieved, payload = found
        try:
            return Cached(_loaded(payload, form), achieved)
        except (OSError, ValueError, EOFError, DecodeError, AttributeError, ImportError, TypeError,
                LookupError, pickle.UnpicklingError, RuntimeError):  # fmt: skip
            return None  # such as a class that has moved; the stage runs again

    def put(self, key: str, made: Cached, seconds: float) -> None:
        """Keeps what a stage made; what cannot be kept is left out.

        Args:
            key: The key.
            made: What was made.
            seconds: What the stage took, which is what the entry is worth.
        """
        try:
            payload = _dumped(made.model)
        except (pickle.PicklingError, AttributeError, TypeError, ValueError, RuntimeError):
            return  # such as a module of a class that was defined inside a function
        self._write(key, made.achieved, payload, seconds)

    def facts(self, key: str) -> Mapping[str, Any]:
        """The facts of a key, empty if there are none that can be read."""
        found = self._read(key)
        return found[0] if found is not None else {}

    def put_facts(self, key: str, facts: Mapping[str, Any], seconds: float) -> None:
        """Keeps JSON-able facts that took so many seconds to find."""
        self._write(key, facts, b"", seconds)

    def _read(self, key: str) -> tuple[Mapping[str, Any], bytes] | None:
        found = self._opened(key)
        if found is not None or self._shared is None:
            return found
        place = self._place(key)
        if not self._shared.fetch(self._name(key), place):
            return None
        found = self._opened(key)
        if found is not None:
            with suppress(OSError):
                self._take_room(len(found[1]) + _SEAL)
        return found

    def _opened(self, key: str) -> tuple[Mapping[str, Any], bytes] | None:
        """What an entry of the folder says, if its seal is right."""
        path = self._place(key)
        try:
            sealed = path.read_bytes()
            if not hmac.compare_digest(sealed[:_SEAL], self._seal(key, sealed[_SEAL:])):
                return None
            found = _unpacked(sealed[_SEAL:])
            os.utime(path)
        except (OSError, ValueError, LookupError):
            return None
        return found

    def _write(self, key: str, facts: Mapping[str, Any], payload: bytes, seconds: float) -> None:
        try:
            head = json.dumps({"achieved": facts, "seconds": seconds, "format": _FORMAT}).encode()
        except (TypeError, ValueError):
            return
        content = len(head).to_bytes(8, "big") + head + payload
        place = self._place(key)
        try:
            seal = self._seal(key, content)
            place.parent.mkdir(parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=place.parent, suffix=PART)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(seal + content)
                Path(draft).replace(place)
            finally:
                Path(draft).unlink(missing_ok=True)
            if self._shared is not None:
                self._shared.offer(self._name(key), place, seconds)
            self._take_room(len(content) + _SEAL)
        except OSError:
            return  # a full disk costs a repetition, not a trial

    @cached_property
    def _shared(self) -> SharedEntries | None:
        if self.remote is None:
            return None
        try:
            owner = hmac.digest(own_key(self.keys), b"owner", "sha256").hex()[:16]
        except OSError:  # without a key nothing can be read or written
            return None
        return SharedEntries(self.remote.within(owner), self.most_bytes)

    def _name(self, key: str) -> str:
        return f"{key[:2]}/{key}.stage"

    def _place(self, key: str) -> Path:
        return self.root / self._name(key)

    def _seal(self, key: str, content: bytes) -> bytes:
        return hmac.digest(own_key(self.keys), key.encode() + content, "sha256")

    def _take_room(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            self._sweep()

    def _sweep(self) -> None:
        """Removes the entries that save the least time for each byte, until there is room."""
        entries = []
        now = time.time()
        for draft in self.root.glob(f"*/*{PART}"):  # of a process that was killed
            if now - draft.stat().st_mtime > _DRAFT_SECONDS:
                draft.unlink(missing_ok=True)
        for path in self.root.glob("*/*.stage"):
            try:
                facts = path.stat()
            except OSError:
                continue
            entries.append((path, facts.st_size, facts.st_mtime))
        total = sum(size for _, size, _ in entries)
        # Others may write too, so a look at the folder is good for a share of what is left.
        self._room = max(0, self.most_bytes - total) // _WRITERS
        if total <= self.most_bytes:
            return
        entries.sort(key=lambda entry: _worth(entry[0], entry[1], entry[2], now))
        for path, size, _ in entries:
            path.unlink(missing_ok=True)
            total -= size
            if total <= self.most_bytes * _SLACK:
                break


def chained(before: str, *parts: object) -> str:
    """The key of what is made of the entry `before` and JSON-able parts: 64 hexadecimal digits."""
    text = json.dumps([before, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _worth(path: Path, size: int, used: float, now: float) -> float:
    try:
        with path.open("rb") as file:
            file.seek(_SEAL)
            length = int.from_bytes(file.read(8), "big")
            seconds = float(json.loads(file.read(min(length, 10_000_000)))["seconds"])
    except (OSError, ValueError, KeyError):
        return 0.0
    days = max(0.0, now - used) / 86_400
    return float(seconds / size * 0.5 ** (days / _HALF_LIFE_DAYS))


def _dumped(model: Model) -> bytes:
    if isinstance(model, nn.Module):
        buffer = io.BytesIO()
        torch.save(model, buffer)
        return buffer.getvalue()
    return bytes(model.SerializeToString(deterministic=True))


def _unpacked(content: bytes) -> tuple[Mapping[str, Any], bytes]:
    length = int.from_bytes(content[:8], "big")
    facts = json.loads(content[8 : 8 + length])
    if facts.get("format") != _FORMAT:
        raise ValueError("another format")
    return facts["achieved"], content[8 + length :]


def _loaded(payload: bytes, form: Form) -> Model:
    if form is Form.MODULE:
        # Sealed by this user's own key above.
        module = torch.load(io.BytesIO(payload), weights_only=False)
        if not isinstance(module, nn.Module):
            raise ValueError("not a module")
        return module
    found: onnx.ModelProto = onnx.ModelProto.FromString(payload)
    return found
