"""Means of neighbouring keys: of whole blocks, and of windows that overlap."""

from __future__ import annotations

import torch


def block_means(k: torch.Tensor, size: int, key_range: torch.Tensor | None = None) -> torch.Tensor:
    """The mean of each block of ``size`` keys, (batch, kv heads, blocks, dim) in k's dtype, added up in float32.

    k: (batch, kv heads, seq_k, dim), any strides. The last block may be short; keys outside ``key_range``, int32
    (batch, 2), do not count, and the mean of none is 0.
    """
    seq_k = k.shape[2]
    whole = seq_k // size
    if key_range is None:
        means = k[:, :, : whole * size].unflatten(2, (whole, size)).mean(3, dtype=torch.float32)
        if seq_k > whole * size:
            means = torch.cat([means, k[:, :, whole * size :].mean(2, keepdim=True, dtype=torch.float32)], 2)
        return means.to(k.dtype)
    j = torch.arange(seq_k, device=k.device)
    valid = (j >= key_range[:, :1]) & (j < key_range[:, 1:])  # (batch, seq_k)
    padding = -seq_k % size
    masked = torch.nn.functional.pad(k.masked_fill(~valid[:, None, :, None], 0.0), (0, 0, 0, padding))
    counts = torch.nn.functional.pad(valid, (0, padding)).unflatten(1, (-1, size)).sum(2)
    sums = masked.unflatten(2, (-1, size)).sum(3, dtype=torch.float32)
    return (sums / counts.clamp_min(1)[:, None, :, None]).to(k.dtype)


def window_means(x: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    """The mean of each ``size`` rows, from every ``stride``-th on, (batch, heads, windows, dim) in x's dtype, added up
    in float32; x: (batch, heads, rows, dim). Rows after the last whole window are in none."""
    rows = x.shape[2]
    if rows < size:
        return x[:, :, :0]
    return x.unfold(2, size, stride).mean(-1, dtype=torch.float32).to(x.dtype)
