"""The keys that each query may select, as an interval: integers on the device, without waiting for it."""

from __future__ import annotations

from functools import reduce

import torch

from attngen.spec.model import Kind


def key_bounds(
    kind: Kind,
    batch: int,
    seq_q: int,
    seq_k: int,
    device: torch.device,
    offsets: torch.Tensor | None = None,
    key_range: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """First and end of each query's keys, int32 (batch, seq_q), the one not below 0 and the other not beyond seq_k;
    where the end is not beyond the first, there are none.

    Of kinds that let a query see neighbouring keys: by causality, a window or a chunk. offsets, int32 (batch,), are the
    positions of the first queries; key_range, int32 (batch, 2), first and end of the valid keys.
    """
    start = seq_k - seq_q if offsets is None else 0
    i = torch.arange(start, start + seq_q, dtype=torch.int32, device=device).expand(batch, seq_q)
    if offsets is not None:
        i = i + offsets[:, None]
    lowers, uppers = [], []
    if kind.causal:
        uppers.append(i + 1)
    if kind.window is not None and kind.window.left is not None:
        lowers.append(i - kind.window.left)
    if kind.window is not None and kind.window.right is not None:
        uppers.append(i + (kind.window.right + 1))
    if kind.chunk is not None:
        chunk = i - i.remainder(kind.chunk)
        lowers.append(chunk)
        uppers.append(chunk + kind.chunk)
    if key_range is not None:
        lowers.append(key_range[:, :1].expand(batch, seq_q))
        uppers.append(key_range[:, 1:].expand(batch, seq_q))
    first = reduce(torch.maximum, lowers).clamp_min(0) if lowers else i.new_zeros(()).expand(batch, seq_q)
    end = reduce(torch.minimum, uppers).clamp(0, seq_k) if uppers else i.new_full((), seq_k).expand(batch, seq_q)
    return first, end
