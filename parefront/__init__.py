"""parefront: search for Pareto-optimal compressed PyTorch models.

    import parefront as pf

    task = pf.Task(model=..., train=..., validation=..., test=...)
    study = pf.Study(task, name="mine", trials=40).optimize()
    print(study.front())

Names are imported when they are first used: what runs on a device never needs torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parefront import errors as errors
    from parefront.errors import ParefrontError as ParefrontError
    from parefront.objectives.measurement import Direction as Direction
    from parefront.objectives.objective import Bound as Bound
    from parefront.objectives.targets.target import Target as Target
    from parefront.search import metrics as metrics
    from parefront.search import samplers as samplers
    from parefront.search.data import Split as Split
    from parefront.search.metrics import Metric as Metric
    from parefront.search.task import Pretrain as Pretrain
    from parefront.search.task import Task as Task
    from parefront.spaces.quantization.binary_activation import BinaryActivation as BinaryActivation
    from parefront.study import Study as Study

_HOMES = {
    "BinaryActivation": "parefront.spaces.quantization.binary_activation",
    "Bound": "parefront.objectives.objective",
    "Direction": "parefront.objectives.measurement",
    "Metric": "parefront.search.metrics",
    "ParefrontError": "parefront.errors",
    "Pretrain": "parefront.search.task",
    "Split": "parefront.search.data",
    "Study": "parefront.study",
    "Target": "parefront.objectives.targets.target",
    "Task": "parefront.search.task",
}
_MODULES = {
    "errors": "parefront.errors",
    "metrics": "parefront.search.metrics",
    "samplers": "parefront.search.samplers",
}

__all__ = [
    "BinaryActivation",
    "Bound",
    "Direction",
    "Metric",
    "ParefrontError",
    "Pretrain",
    "Split",
    "Study",
    "Target",
    "Task",
    "errors",
    "metrics",
    "samplers",
]


def __getattr__(name: str) -> object:
    try:
        if name in _HOMES:
            return getattr(import_module(_HOMES[name]), name)
        if name in _MODULES:
            return import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        from parefront.extras import extra_of

        if extra := extra_of(error):
            error.add_note(f"pip install 'parefront[{extra}]'")
        raise
    raise AttributeError(f"module 'parefront' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
