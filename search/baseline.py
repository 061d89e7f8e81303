"""The baseline of a study: trained once, kept, and measured against ever after."""

from __future__ import annotations

import os
import pickle
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from parefront.errors import ArtifactError, TaskError
from parefront.search.stage_cache import Cached, StageCache, chained
from parefront.search.stage_code import Undescribed, code_digest, object_digest, versions
from parefront.search.task import PreparedTask, Pretrain
from parefront.spaces.distillation.training import train
from parefront.spaces.stage import Form


def trained_baseline(
    task: PreparedTask,
    path: Path,
    *,
    seed: int,
    tick: Callable[[], None],
    cache: StageCache | None = None,
) -> nn.Module:
    """The trained baseline, from `path` if it is there, else trained and kept there.

    Only tensors are read from the file, never code.

    Args:
        task: The task; its baseline module is trained in place.
        path: Where the weights are kept.
        seed: Seed of the training.
        tick: Called between steps.
        cache: Keeps the trained baseline for other studies of the same task.

    Returns:
        The module in evaluation mode.

    Raises:
        TaskError: If kept weights do not fit the task's model.
        TrainingError: If training diverges.
        ArtifactError: If the weights cannot be written or read.
    """
    module = task.baseline
    if path.exists():
        return _loaded(module, path)
    pretrain = task.source.pretrain
    if pretrain is not None:
        key = _key(task, pretrain, seed)
        kept = cache.get(key, Form.MODULE) if cache is not None and key is not None else None
        if kept is not None and isinstance(kept.model, nn.Module):
            module.load_state_dict(kept.model.state_dict())
            return _kept(module, path)
        began = time.perf_counter()
        train(
            module,
            task.train,
            lambda inputs, outputs, targets: task.loss(outputs, targets),  # noqa: ARG005
            epochs=pretrain.epochs,
            learning_rate=pretrain.learning_rate,
            batch_size=pretrain.batch_size,
            seed=seed,
            tick=tick,
        )
        if cache is not None and key is not None:
            cache.put(key, Cached(module, {}), time.perf_counter() - began)
    return _kept(module, path)


def _key(task: PreparedTask, pretrain: Pretrain, seed: int) -> str | None:
    """What the trained baseline depends on; `None` when some of it cannot be told."""
    try:
        return chained(
            "baseline",
            object_digest(task.baseline),
            task.digest(),
            object_digest(task.loss),
            asdict(pretrain),
            code_digest(train),
            seed,
            versions(),
        )
    except Undescribed:
        return None


def _loaded(module: nn.Module, path: Path) -> nn.Module:
    try:
        weights = torch.load(path, weights_only=True)
    except (OSError, ValueError, EOFError, AttributeError, TypeError, LookupError,
            pickle.UnpicklingError, RuntimeError) as error:  # fmt: skip
        reason = str(error).partition("\n")[0]
        raise ArtifactError(
            f"cannot read the baseline's weights in {path}: {reason}; put a copy back, or give the "
            "study a new name"
        ) from error
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise TaskError(
            f"the task's model is not the one this study began with ({path} does not fit it); "
            "put the model back or give the study a new name"
        ) from error
    return module.eval()


def _kept(module: nn.Module, path: Path) -> nn.Module:
    """The module, whose weights are kept; or with those that another machine kept meanwhile."""
    if path.exists():
        return _loaded(module, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".pt")
        with os.fdopen(handle, "wb") as file:
            torch.save(module.state_dict(), file)
        Path(name).replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise ArtifactError(f"cannot write the baseline's weights to {path}: {error}") from error
    return module.eval()
