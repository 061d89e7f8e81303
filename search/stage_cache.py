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
    """

    def __init__(self, root: Path, most_bytes: int = 2_000_000_000) -> None:
        self.root = root
        self.most_bytes = most_bytes
        self._room = 0

    def get(self, key: str, form: Form) -> Cached | None:
        """The entry of a key, `None` if there is none that can be read."""
        path = self._place(key)
        try:
            sealed = path.read_bytes()
            if not hmac.compare_digest(sealed[:_SEAL], self._seal(key, sealed[_SEAL:])):
                return None
            achieved, payload = _unpacked(sealed[_SEAL:])
            model = _loaded(payload, form)
            os.utime(path)
        except (OSError, ValueError, EOFError, DecodeError, AttributeError, ImportError,
                pickle.UnpicklingError, RuntimeError):  # fmt: skip
            return None  # such as a class that has moved; the stage runs again
        return Cached(model, achieved)

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
        facts = {"achieved": made.achieved, "seconds": seconds, "format": _FORMAT}
        head = json.dumps(facts).encode()
        content = len(head).to_bytes(8, "big") + head + payload
        place = self._place(key)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=place.parent, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(self._seal(key, content) + content)
                Path(draft).replace(place)
            finally:
                Path(draft).unlink(missing_ok=True)
        except OSError:
            return  # a full disk costs a repetition, not a trial
        self._room -= len(content) + _SEAL
        if self._room < 0:
            self._sweep()

    def _place(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.stage"

    def _seal(self, key: str, content: bytes) -> bytes:
        return hmac.digest(self._key(), key.encode() + content, "sha256")

    def _key(self) -> bytes:
        path = self.root / "key"
        try:
            return path.read_bytes()
        except FileNotFoundError:
            self.root.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(
            dir=self.root, suffix=".part"
        )  # readable by its owner only
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(32))
            os.link(draft, path)  # fails when another process was first, whose key is then used
        except FileExistsError:
            pass
        finally:
            Path(draft).unlink(missing_ok=True)
        return path.read_bytes()

    def _sweep(self) -> None:
        """Removes the entries that save the least time for each byte, until there is room."""
        entries = []
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
        now = time.time()
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


def module_digest(module: nn.Module) -> str:
    """Hash of a module's structure and all its tensors."""
    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


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
