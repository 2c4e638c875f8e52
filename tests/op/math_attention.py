"""Attention as PyTorch's math backend computes it, every intermediate result in the inputs' dtype, with gradients."""

from __future__ import annotations

import math
from typing import Any

import torch

from attngen import reference
from attngen.reference.attend import in_blocks, sequences
from attngen.spec.model import Kind


def math_attention(kind: Kind, q, k, v, *, cu_seqlens_q=None, cu_seqlens_k=None, **given: Any) -> torch.Tensor:
    """out (batch, heads, seq_q, v dim), for any kind that a forward kernel computes; packed documents one by one."""
    if cu_seqlens_q is None:
        return _of_sequences(kind, q, k, v, **given)
    parts = []
    for _, row, of_q, of_k in sequences(q, k, cu_seqlens_q, cu_seqlens_k):
        one = (q[row : row + 1, :, of_q], k[row : row + 1, :, of_k], v[row : row + 1, :, of_k])
        parts.append(_of_sequences(kind, *one, **given))
    return torch.cat(parts, 2)


def _of_sequences(
    kind: Kind,
    q,
    k,
    v,
    *,
    sink=None,
    alibi_slopes=None,
    prefix=None,
    offsets=None,
    key_range=None,
    block_count=None,
    block_index=None,
    **named: Any,
) -> torch.Tensor:
    batch, heads, seq_q, _ = q.shape
    seq_k, device = k.shape[2], q.device
    k, v = (x.repeat_interleave(kind.heads.group, 1) for x in (k, v))
    placed = {"prefix": prefix, "offsets": offsets, "key_range": key_range}
    seen = [
        [reference.visible(kind, seq_q, seq_k, head=h, batch=b, device=device, **placed, **named) for h in range(heads)]
        for b in range(batch)
    ]
    if block_count is not None:
        listed = (kind, slice(0, seq_q), seq_k, block_count, block_index)
        seen = [[seen[b][h] & in_blocks(*listed, b, h) for h in range(heads)] for b in range(batch)]
    offset = torch.full((batch,), seq_k - seq_q, device=device) if offsets is None else offsets
    names = {
        "i": torch.arange(seq_q, device=device)[:, None] + offset[:, None, None, None],
        "j": torch.arange(seq_k, device=device),
        "h": torch.arange(heads, device=device)[:, None, None],
        "b": torch.arange(batch, device=device)[:, None, None, None],
    }
    root = math.sqrt(kind.scale)
    s = reference.scored(kind, (q * root) @ (k * root).mT, names, alibi_slopes, named).to(q.dtype)
    s = s.masked_fill(~torch.stack([torch.stack(row) for row in seen]), -math.inf)
    if sink is not None:
        s = torch.cat((s, sink.to(q.dtype)[None, :, None, None].expand(batch, -1, seq_q, 1)), -1)
    p = torch.softmax(s, -1)[..., :seq_k]
    return torch.nan_to_num(p, nan=0.0) @ v
