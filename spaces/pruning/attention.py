"""Attention of which any number of heads may be left, in place of `nn.MultiheadAttention`.

That layer ties the width of its heads to their number and holds its projections as one matrix, so
that no head can go. Here each projection is an `nn.Linear`, which every later stage works on.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head attention that is called as `nn.MultiheadAttention` is, and gives the same.

    Args:
        q_proj: Projection of the queries, to `num_heads` times a head's width.
        k_proj: Projection of the keys, to as many channels.
        v_proj: Projection of the values, to a multiple of `num_heads` channels.
        out_proj: Projection of all heads' values, side by side, to the output.
        num_heads: Number of heads.
        dropout: Share of the attention weights that training drops.
        batch_first: Whether inputs and output are `(batch, length, channels)` rather than
            `(length, batch, channels)`.
    """

    # nn.TransformerEncoder and its layers ask for these two before they take a fused path, which
    # wants the projections as one matrix.
    _qkv_same_embed_dim = False
    in_proj_bias = None

    def __init__(
        self,
        q_proj: nn.Linear,
        k_proj: nn.Linear,
        v_proj: nn.Linear,
        out_proj: nn.Linear,
        *,
        num_heads: int,
        dropout: float = 0.0,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        self.q_proj = q_proj
        self.k_proj = k_proj
        self.v_proj = v_proj
        self.out_proj = out_proj
        self.num_heads = num_heads
        self.head_dim = q_proj.out_features // num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.mask_rows = num_heads
        """Heads for which an example has masks, where each head has one of its own."""
        self.kept = tuple(range(num_heads))
        """Those of them that are left."""

    @classmethod
    def of(cls, layer: nn.MultiheadAttention) -> Attention:
        """What computes the same as a layer without biases or zeros beside its keys."""
        weights = (
            layer.in_proj_weight.chunk(3)
            if layer._qkv_same_embed_dim
            else (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
        )
        biases = (None,) * 3 if layer.in_proj_bias is None else layer.in_proj_bias.chunk(3)
        q_proj, k_proj, v_proj = (_linear(w, b) for w, b in zip(weights, biases, strict=True))
        attention = cls(
            q_proj,
            k_proj,
            v_proj,
            _linear(layer.out_proj.weight, layer.out_proj.bias),
            num_heads=layer.num_heads,
            dropout=layer.dropout,
            batch_first=layer.batch_first,
        )
        attention.train(layer.training)
        return attention

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attends, as `nn.MultiheadAttention.forward` does with the same arguments.

        Args:
            query: Queries, `(batch, length, channels)` or as `batch_first` says, or one example
                without a batch.
            key: Keys, as the queries, of a length of their own.
            value: Values, of the length of the keys.
            key_padding_mask: `(batch, keys)`: where `True`, or -inf, a key is left out.
            need_weights: Whether to give the attention weights too.
            attn_mask: `(queries, keys)` or `(batch * mask_rows, queries, keys)`: where `True`
                a query does not see a key; numbers are added to the scores.
            average_attn_weights: Whether the weights are the mean over the heads that are left.
            is_causal: A hint that `attn_mask` is causal; what counts is the mask.

        Returns:
            The output, shaped as the queries, and the weights, `(batch, queries, keys)` or with
            the heads as second dimension, or `None`.

        Raises:
            RuntimeError: If `is_causal` comes without a mask.
        """
        if is_causal and attn_mask is None:
            raise RuntimeError("expected an attn_mask beside is_causal, got none; give the mask")
        batched = query.dim() == 3
        if not batched:
            query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        q, k, v = (e.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for e in (q, k, v))
        mask = self._mask(attn_mask, key_padding_mask, q.dtype)
        dropout = self.dropout if self.training else 0.0
        scale = 1 / math.sqrt(self.head_dim)
        weights = None
        if need_weights:
            scores = (q * scale) @ k.transpose(-2, -1)
            weights = functional.softmax(scores if mask is None else scores + mask, dim=-1)
            weights = functional.dropout(weights, dropout, self.training)
            seen = weights @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
        else:
            seen = functional.scaled_dot_product_attention(q, k, v, mask, dropout, scale=scale)
        output = self.out_proj(seen.transpose(1, 2).flatten(2))
        if not batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return output if self.batch_first else output.transpose(0, 1), weights

    def _mask(
        self,
        attention: torch.Tensor | None,
        padding: torch.Tensor | None,
        dtype: torch.dtype,
    ) -> torch.Tensor | None:
        """What is added to scores of shape `(batch, heads, queries, keys)`."""
        mask = None
        if attention is not None:
            mask = _additive(attention, dtype)
            if mask.dim() == 3:
                mask = mask.view(-1, self.mask_rows, *mask.shape[1:])
                if self.num_heads < self.mask_rows:
                    mask = mask[:, list(self.kept)]
        if padding is not None:
            added = _additive(padding, dtype)[:, None, None]
            mask = added if mask is None else mask + added
        return mask


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -math.inf)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A layer with copies of a weight and a bias, frozen if they are."""
    # Made without memory, and so without drawing from the global random state.
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = _copy(weight)
    if bias is not None:
        layer.bias = _copy(bias)
    return layer


def _copy(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(), requires_grad=tensor.requires_grad)
