"""Compressed keys of a sequence: how many there are, and which of them are valid and seen."""

from __future__ import annotations

import torch

from attngen.plan.work import compressed_count
from attngen.spec.model import Compress, Kind

Tensor = torch.Tensor
Maybe = torch.Tensor | None


def compressed_range(compress: Compress, seq_k: int, key_range: Maybe) -> Maybe:
    """The valid range of compressed keys, int32 (batch, 2): those that stand for valid keys alone; None for all."""
    if key_range is None:
        return None
    first, end = key_range[:, 0].clamp_min(0), key_range[:, 1].clamp_max(seq_k)
    return torch.stack([_ceil(first, compress.stride), _ends(end, compress)], 1).int()


def compressed_bounds(
    kind: Kind, batch: int, seq_q: int, seq_k: int, device: torch.device, offsets: Maybe, key_range: Maybe
) -> tuple[Tensor, Tensor]:
    """First and end of the compressed keys that each query sees, int32 (batch, seq_q), of a branch that compresses."""
    assert kind.compress is not None
    count = compressed_count(kind.compress, seq_k)
    valid = compressed_range(kind.compress, seq_k, key_range)
    first = torch.zeros((batch, seq_q), dtype=torch.int32, device=device)
    end = torch.full_like(first, count)
    if valid is not None:
        first, end = first + valid[:, :1], torch.minimum(end, valid[:, 1:])
    if kind.causal:
        i = positions(batch, seq_q, seq_k, device, offsets)
        end = torch.minimum(end, _ends(i + 1, kind.compress))
    return first.contiguous(), end.contiguous()


def positions(batch: int, seq_q: int, seq_k: int, device: torch.device, offsets: Maybe) -> Tensor:
    """The position of each query, int32 (batch, seq_q): the last is at the last key, unless offsets say otherwise."""
    i = torch.arange(seq_q, dtype=torch.int32, device=device)
    return (i + (seq_k - seq_q)).expand(batch, seq_q) if offsets is None else i + offsets[:, None]


def first_positions(q: Tensor, seq_k: int, offsets: Maybe) -> Tensor:
    """The position of each sequence's first query, int32 (batch,)."""
    if offsets is not None:
        return offsets
    return torch.full((q.shape[0],), seq_k - q.shape[2], dtype=torch.int32, device=q.device)


def _ends(end: Tensor, compress: Compress) -> Tensor:
    """How many compressed keys stand for keys before ``end`` alone."""
    whole = torch.div(end - compress.size, compress.stride, rounding_mode="floor") + 1
    return whole.clamp_min(0)


def _ceil(x: Tensor, unit: int) -> Tensor:
    return torch.div(x + unit - 1, unit, rounding_mode="floor")
