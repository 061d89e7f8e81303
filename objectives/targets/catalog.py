"""All runtimes, by name."""

from __future__ import annotations

import difflib
from types import MappingProxyType

from parefront.errors import UsageError
from parefront.objectives.targets.aot_inductor import AotInductorRuntime
from parefront.objectives.targets.executorch import ExecuTorchRuntime
from parefront.objectives.targets.litert import LiteRtRuntime
from parefront.objectives.targets.onnx_runtime import OnnxRuntime
from parefront.objectives.targets.openvino import OpenVinoRuntime
from parefront.objectives.targets.runtime import Runtime
from parefront.objectives.targets.torch_eager import TorchRuntime

_ALL: tuple[Runtime, ...] = (
    OnnxRuntime(),
    OpenVinoRuntime(),
    TorchRuntime(),
    ExecuTorchRuntime(),
    AotInductorRuntime(),
    LiteRtRuntime(),
)

RUNTIMES = MappingProxyType({entry.name: entry for entry in _ALL})


def runtime(name: str) -> Runtime:
    """The runtime of a name.

    Raises:
        UsageError: If there is none; the message lists the names and the nearest.
    """
    if name in RUNTIMES:
        return RUNTIMES[name]
    near = difflib.get_close_matches(name, RUNTIMES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(f"expected a runtime of {', '.join(RUNTIMES)}, got {name!r}{hint}")
