"""An output layer that takes the table of an embedding for its weight."""

from __future__ import annotations

import copy

from torch import nn

from parefront.spaces.inspection import run, shared_weights
from parefront.spaces.stage import StageContext


def tyable(model: nn.Module, context: StageContext) -> tuple[tuple[str, str] | None, str]:
    """The output layer and the embedding that can share one weight.

    That is a Linear layer whose outputs are the entries of the embedding, and whose inputs are as
    many as its columns, if there is one such pair (Press and Wolf 2017,
    https://arxiv.org/abs/1608.05859). The layer has to be the last that is computed.

    Args:
        model: The model.
        context: Where the example inputs are from.

    Returns:
        The names of layer and embedding, or `None` and why there is no such pair.
    """
    taken = shared_weights(model)
    free = {n: m for n, m in model.named_modules() if n not in taken}
    tables = {n: m for n, m in free.items() if type(m) is nn.Embedding and not m.sparse}
    if not tables:
        return None, "the model has no embedding whose table could be shared"
    last: list[nn.Module] = []
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    handles = [m.register_forward_hook(lambda *call: last.append(call[0])) for m in linear]
    try:
        run(model, context.example)
    finally:
        for handle in handles:
            handle.remove()
    pairs = [
        (name, other)
        for name, layer in free.items()
        if last and layer is last[-1] and type(layer) is nn.Linear
        for other, table in tables.items()
        if layer.weight.shape == table.weight.shape and layer.weight.dtype == table.weight.dtype
    ]
    if len(pairs) != 1:
        return None, f"expected one embedding of the shape of the output layer, got {len(pairs)}"
    return pairs[0], ""


def tied(model: nn.Module, layer: str, embedding: str) -> nn.Module:
    """A copy of the model in which a layer's weight is the table of an embedding."""
    result = copy.deepcopy(model)
    weight = result.get_parameter(f"{embedding}.weight")
    result.get_submodule(layer).register_parameter("weight", weight)
    return result
