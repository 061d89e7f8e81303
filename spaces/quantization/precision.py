"""How many bits static quantisation has, and whether zero is in the middle of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onnxruntime.quantization import QuantType

Bits = Literal[8, 16]

OPSET = 21
"""The first operator set whose QuantizeLinear knows 16 bits."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What static quantisation stores.

    Attributes:
        activations: Bits of an activation, unsigned.
        weights: Bits of a weight, signed.
        per_channel: Whether each output channel of a weight has a scale of its own.
        symmetric_activations: Whether the range of an activation reaches as far below zero as
            above, so that zero is the middle integer.
        symmetric_weights: Whether zero is the integer 0 of a weight.
        reduce_range: Whether a weight uses one bit less than it has.
    """

    activations: Bits = 8
    weights: Bits = 8
    per_channel: bool = True
    symmetric_activations: bool = False
    symmetric_weights: bool = True
    reduce_range: bool = False

    @property
    def wide(self) -> bool:
        """Whether anything has 16 bits."""
        return 16 in (self.activations, self.weights)

    @property
    def activation_type(self) -> QuantType:
        """Unsigned, because signed activations of 8 bits are slower than floats on x86."""
        return QuantType.QUInt8 if self.activations == 8 else QuantType.QUInt16

    @property
    def weight_type(self) -> QuantType:
        """Signed."""
        return QuantType.QInt8 if self.weights == 8 else QuantType.QInt16

    @property
    def options(self) -> dict[str, bool]:
        """The quantiser's own words for symmetry."""
        return {
            "ActivationSymmetric": self.symmetric_activations,
            "WeightSymmetric": self.symmetric_weights,
        }
