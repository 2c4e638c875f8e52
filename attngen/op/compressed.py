"""Compressed keys, each of which stands for ``size`` keys from every ``stride``-th on: means, and which are seen."""

from __future__ import annotations

import torch


def window_means(x: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    """The mean of each ``size`` rows, from every ``stride``-th on, (batch, heads, windows, dim) in x's dtype, added up
    in float32; x: (batch, heads, rows, dim). Rows after the last whole window are in none."""
    rows = x.shape[2]
    if rows < size:
        return x[:, :, :0]
    return x.unfold(2, size, stride).mean(-1, dtype=torch.float32).to(x.dtype)


def compressed_range(seq_k: int, size: int, stride: int, key_range: torch.Tensor | None) -> torch.Tensor | None:
    """The valid range of compressed keys, int32 (batch, 2): those that stand for valid keys alone; None for all."""
    if key_range is None:
        return None
    first, end = key_range[:, 0].clamp_min(0), key_range[:, 1].clamp_max(seq_k)
    return torch.stack(
        [torch.div(first + stride - 1, stride, rounding_mode="floor"), _ends(end, size, stride)], 1
    ).int()


def compressed_bounds(
    i: torch.Tensor,
    seq_k: int,
    size: int,
    stride: int,
    *,
    compressed: int,
    causal: bool,
    key_range: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """First and end of those of ``compressed`` keys that each query sees, int32 (batch, seq_q), of queries at positions
    ``i``, int32 (batch, seq_q)."""
    valid = compressed_range(seq_k, size, stride, key_range)
    first, end = torch.zeros_like(i), torch.full_like(i, compressed)
    if valid is not None:
        first, end = first + valid[:, :1], torch.minimum(end, valid[:, 1:])
    if causal:
        end = torch.minimum(end, _ends(i + 1, size, stride))
    return first.contiguous(), end.contiguous()


def positions(q: torch.Tensor, seq_k: int, offsets: torch.Tensor | None) -> torch.Tensor:
    """The position of each query of q (batch, heads, seq_q, dim), int32 (batch, seq_q)."""
    return first_positions(q, seq_k, offsets)[:, None] + torch.arange(q.shape[2], dtype=torch.int32, device=q.device)


def first_positions(q: torch.Tensor, seq_k: int, offsets: torch.Tensor | None) -> torch.Tensor:
    """The position of each sequence's first query, int32 (batch,): the last query is at the last of ``seq_k`` keys,
    unless offsets say otherwise."""
    if offsets is not None:
        return offsets
    return torch.full((q.shape[0],), seq_k - q.shape[2], dtype=torch.int32, device=q.device)


def _ends(end: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    """How many compressed keys stand for keys before ``end`` alone."""
    return (torch.div(end - size, stride, rounding_mode="floor") + 1).clamp_min(0)
