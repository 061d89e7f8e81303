"""Embeddings in two: a narrow table and a linear layer back to the full width."""

from __future__ import annotations

import torch
from torch import nn

from parefront.spaces.lowrank.matrix import truncate


def factorize_embedding(layer: nn.Embedding, rank: int) -> nn.Sequential:
    """A table of `rank` columns and a linear layer, whose product is nearest to the table.

    Factorised embeddings as in ALBERT (Lan et al. 2020, https://arxiv.org/abs/1909.11942), begun
    with the truncated singular value decomposition. The parts are plain torch layers with the
    original's dtype, device and mode; the row of its padding stays zero if it was.

    Args:
        layer: Embedding without a largest norm.
        rank: Columns of the narrow table.
    """
    count, width = layer.num_embeddings, layer.embedding_dim
    with torch.no_grad():
        table, back = truncate(layer.weight, rank)
        if layer.padding_idx is not None and not layer.weight[layer.padding_idx].any():
            table[layer.padding_idx] = 0  # which it is but for rounding
    # Parts are made without memory, and so without drawing from the global random state.
    narrow = nn.Embedding(count, rank, padding_idx=layer.padding_idx, device="meta")
    wide = nn.Linear(rank, width, bias=False, device="meta")
    narrow.weight = nn.Parameter(table, layer.weight.requires_grad)
    wide.weight = nn.Parameter(back.T.contiguous(), layer.weight.requires_grad)
    return nn.Sequential(narrow, wide).train(layer.training)
