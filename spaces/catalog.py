"""All stages, in the order in which they are applied."""

from __future__ import annotations

from typing import Any

from parefront.spaces.distillation.recovery import RecoveryTraining
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.packing.stage import Packing
from parefront.spaces.pruning.channels import ChannelPruning
from parefront.spaces.pruning.depth import DepthPruning
from parefront.spaces.pruning.weights import WeightPruning
from parefront.spaces.quantization.blocks import BlockQuantization
from parefront.spaces.quantization.half import HalfWeights
from parefront.spaces.quantization.levels import WeightRounding
from parefront.spaces.quantization.onnx_int8 import OnnxInt8
from parefront.spaces.sharing.clusters import WeightClustering
from parefront.spaces.stage import Stage

STAGES: tuple[type[Stage[Any, Any]], ...] = (
    DepthPruning,
    ChannelPruning,
    Factorization,
    WeightPruning,
    WeightClustering,
    WeightRounding,
    RecoveryTraining,
    HalfWeights,
    OnnxInt8,
    BlockQuantization,
    Packing,
)
