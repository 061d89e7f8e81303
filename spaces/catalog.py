"""All stages, in the order in which they are applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parefront.spaces.distillation.recovery import RecoveryTraining
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.packing.stage import Packing
from parefront.spaces.pruning.channels import ChannelPruning
from parefront.spaces.pruning.depth import DepthPruning
from parefront.spaces.pruning.heads import HeadPruning
from parefront.spaces.pruning.weights import WeightPruning
from parefront.spaces.quantization.blocks import BlockQuantization
from parefront.spaces.quantization.half import HalfWeights
from parefront.spaces.quantization.levels import WeightRounding
from parefront.spaces.quantization.onnx_int8 import OnnxInt8
from parefront.spaces.sharing.clusters import WeightClustering
from parefront.spaces.sharing.depth import DepthSharing
from parefront.spaces.stage import Stage

STAGES: tuple[type[Stage[Any, Any]], ...] = (
    DepthPruning,
    HeadPruning,
    ChannelPruning,
    Factorization,
    DepthSharing,
    WeightPruning,
    WeightClustering,
    WeightRounding,
    RecoveryTraining,
    HalfWeights,
    OnnxInt8,
    BlockQuantization,
    Packing,
)

_TYPES = {stage.name: stage.config_type for stage in STAGES}


def telling(stage: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a JSON-able config that tell it apart from its type's defaults.

    Example:
        >>> telling("recover", {"epochs": 3, "optimizer": "adam", "smoothing": 0.1})
        {'epochs': 3, 'smoothing': 0.1}
    """
    fields = _TYPES[stage].model_fields if stage in _TYPES else {}
    return {
        name: value
        for name, value in config.items()
        if value is not None and (name not in fields or value != fields[name].default)
    }
