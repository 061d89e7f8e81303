"""Tasks whose models do to their process what real ones do now and then."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import parefront as pf
from tests.tiny import make, model

FEW = 9
"""Channels of the first layer below which a fragile model does what it should not."""


LOOKED_AT = 64
"""More examples than with which a task is checked."""


def happen(fault: str) -> None:
    """Lets a fault happen."""
    if fault == "segv":
        ctypes.string_at(0)
    elif fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "exit":
        os._exit(3)
    elif fault == "loop":
        while True:
            pass
    elif fault == "lock":  # and no other thread of this Python runs either
        while True:
            ctypes.PyDLL(None).sleep(1000)
    elif fault == "memory":
        taken = [bytes(range(256)) * 400_000 for _ in range(30)]  # 3 GB, 100 MB a step
        time.sleep(1000)
        del taken
    elif fault == "raise":
        raise ValueError("a fault of the model")
    elif fault == "leave":
        raise SystemExit(4)


class Fragile(nn.Module):
    """Fine until it is trained with few channels.

    Args:
        fault: What happens then.
        marker: It happens only while there is this file; it is removed first with `once`.
        once: Whether it happens once.
        few: Channels of the first layer below which it happens.
    """

    def __init__(self, fault: str, marker: Path, *, once: bool = False, few: int = FEW) -> None:
        super().__init__()
        self.layers = model()
        self.fault, self.marker, self.once, self.few = fault, marker, once, few

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channels = len(self.layers.get_parameter("0.weight"))
        if self.training and channels < self.few and self.marker.exists():
            if self.once:
                self.marker.unlink()
            happen(self.fault)
        y: torch.Tensor = self.layers(x)
        return y


def fragile(fault: str, marker: Path, **how: Any) -> pf.Task:
    """A task whose model is fragile in a trial only: its baseline is not trained."""
    few = how.pop("few", FEW)
    once = how.pop("once", False)
    return make(
        model=lambda: Fragile(fault, marker, once=once, few=few), **({"pretrain": None} | how)
    )


def fussy(fault: str, marker: Path) -> pf.Task:
    """A task that looks well, and whose metric cannot be computed while there is a file."""

    def metric(outputs: Any, targets: Any) -> float:
        if len(targets) > LOOKED_AT and marker.exists():
            happen(fault)
        return float((outputs.argmax(1) == targets).mean())

    return make(metric=pf.Metric("fussy", metric, limit=1.0))


class Untakeable:
    """A loss that cannot be taken to another process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets)
