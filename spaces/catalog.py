"""All stages, in the order in which they are applied."""

from __future__ import annotations

from typing import Any

from parefront.spaces.distillation.recovery import RecoveryTraining
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.pruning.channels import ChannelPruning
from parefront.spaces.quantization.onnx_int8 import OnnxInt8
from parefront.spaces.stage import Stage

STAGES: tuple[type[Stage[Any, Any]], ...] = (
    ChannelPruning,
    Factorization,
    RecoveryTraining,
    OnnxInt8,
)
