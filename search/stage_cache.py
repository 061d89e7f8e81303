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
import secrets
import stat
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError
from torch import nn

from parefront.spaces.stage import Form

_FORMAT = 1
_SEAL = hashlib.sha256().digest_size
_HALF_LIFE_DAYS = 7.0
"""Days after which an entry that nobody used is worth half."""
_SLACK = 0.9
"""When the cache is full it is emptied to this share, so that not every entry sweeps."""
_DRAFT = ".part"
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

    Args:
        root: Folder of the cache; made when the first entry comes.
        most_bytes: What the entries may take in all; the least valuable go first.
        keys: Folder of the key. It is the user's own and not beside the entries, so that a copied
            cache brings no key; `$XDG_STATE_HOME/parefront` by default.
    """

    def __init__(
        self, root: Path, most_bytes: int = 2_000_000_000, keys: Path | None = None
    ) -> None:
        self.root = root
        self.most_bytes = most_bytes
        self.keys = keys or _state_folder()
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
            handle, draft = tempfile.mkstemp(dir=place.parent, suffix=_DRAFT)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(seal + content)
                Path(draft).replace(place)
            finally:
                Path(draft).unlink(missing_ok=True)
            self._room -= len(content) + _SEAL
            if self._room < 0:
                self._sweep()
        except OSError:
            return  # a full disk costs a repetition, not a trial

    def _place(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.stage"

    def _seal(self, key: str, content: bytes) -> bytes:
        return hmac.digest(_own_key(self.keys), key.encode() + content, "sha256")

    def _sweep(self) -> None:
        """Removes the entries that save the least time for each byte, until there is room."""
        entries = []
        now = time.time()
        for draft in self.root.glob(f"*/*{_DRAFT}"):  # of a process that was killed
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


def _state_folder() -> Path:
    """Where the user's programs keep what is theirs alone, by the XDG specification."""
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local/state") / "parefront"


def _own_key(folder: Path) -> bytes:
    """The user's key, made when it is first needed.

    Raises:
        OSError: If it cannot be read or written, or others could have written it.
    """
    path = folder / "cache.key"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=folder, suffix=_DRAFT)  # readable by its owner only
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(32))
            os.link(draft, path)  # fails when another process was first, whose key is then used
        except FileExistsError:
            pass
        finally:
            Path(draft).unlink(missing_ok=True)
    facts = path.stat()
    if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o077:
        raise PermissionError(f"{path} is not this user's alone")
    return path.read_bytes()


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
