"""Blocks of neighbouring keys: their means, and which of them hold the keys that a query sees."""

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


def blocks_between(first: torch.Tensor, end: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """First and end of the blocks that hold keys from ``first`` to before ``end``, int32; none where there are none."""
    some = end > first
    block_first = torch.div(first, size, rounding_mode="floor")
    block_end = torch.div(end + (size - 1), size, rounding_mode="floor")
    return torch.where(some, block_first, 0), torch.where(some, block_end, 0)
