"""The reference of a selection: an indexer's scores, and the keys that have the largest."""

from __future__ import annotations

import math

import torch

from attngen.spec.model import Kind

ROWS = 256  # queries at a time


def index_scores(
    index_q: torch.Tensor,
    index_k: torch.Tensor,
    index_weights: torch.Tensor,
    *,
    q_scale: torch.Tensor | None = None,
    k_scale: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """A lightning indexer's scores (DeepSeek-V3.2): sum over heads of weight * relu(q . k).

    index_q is (batch, heads, seq_q, dim), index_k (batch, seq_k, dim), index_weights (batch, seq_q, heads); q_scale
    (batch, seq_q, heads) and k_scale (batch, seq_k) multiply what is quantised. Returns (batch, seq_q, seq_k).
    """
    weights = index_weights.to(dtype)
    if q_scale is not None:
        weights = weights * q_scale.to(dtype)
    keys = index_k.to(dtype)
    if k_scale is not None:
        keys = keys * k_scale.to(dtype)[..., None]
    batch, _, seq_q, _ = index_q.shape
    out = torch.empty(batch, seq_q, index_k.shape[1], dtype=dtype, device=index_q.device)
    for b in range(batch):
        for start in range(0, seq_q, ROWS):
            rows = slice(start, start + ROWS)
            products = torch.relu(torch.einsum("htd,sd->ths", index_q[b, :, rows].to(dtype), keys[b]))
            out[b, rows] = torch.einsum("ths,th->ts", products, weights[b, rows])
    return out


def key_bounds(
    kind: Kind,
    seq_q: int,
    seq_k: int,
    batch: int,
    *,
    offsets: torch.Tensor | None = None,
    key_range: torch.Tensor | None = None,
    device: torch.device | str = "cpu",
) -> tuple[torch.Tensor, torch.Tensor]:
    """First and end of the keys that each query may select, int32 (batch, seq_q); none where end <= first.

    For kinds whose causality, window and chunk let a query see neighbouring keys.
    """
    i = torch.arange(seq_q, dtype=torch.int32, device=device).expand(batch, seq_q)
    i = i + (seq_k - seq_q if offsets is None else offsets[:, None])
    first, end = torch.zeros_like(i), torch.full_like(i, seq_k)
    if key_range is not None:
        first, end = torch.maximum(first, key_range[:, :1]), torch.minimum(end, key_range[:, 1:])
    if kind.causal:
        end = torch.minimum(end, i + 1)
    if kind.window is not None and kind.window.left is not None:
        first = torch.maximum(first, i - kind.window.left)
    if kind.window is not None and kind.window.right is not None:
        end = torch.minimum(end, i + kind.window.right + 1)
    if kind.chunk is not None:
        chunk = torch.div(i, kind.chunk, rounding_mode="floor") * kind.chunk
        first, end = torch.maximum(first, chunk), torch.minimum(end, chunk + kind.chunk)
    return first, end


def select_keys(
    scores: torch.Tensor,
    key_first: torch.Tensor,
    key_end: torch.Tensor,
    top_k: int,
    *,
    first: int = 0,
    last: int = 0,
) -> torch.Tensor:
    """The ``top_k`` keys of each row with the largest scores, in ascending order, then -1: int32 (rows, top_k).

    scores is (rows, keys); a row may take keys from its ``key_first`` to before its ``key_end``, its ``first`` first
    and ``last`` last of them always. Order as of a stable descending sort: NaN is the largest, -0 equals 0, and ties go
    to the lowest index.
    """
    scores = scores.masked_fill(scores.isnan(), math.nan)  # PyTorch's sort on a GPU takes those with a sign for least
    out = torch.full((scores.shape[0], top_k), -1, dtype=torch.int32, device=scores.device)
    for row, (begin, end) in enumerate(zip(key_first.tolist(), key_end.tolist(), strict=True)):
        begin, end = max(begin, 0), min(end, scores.shape[1])
        count = max(end - begin, 0)
        order = torch.sort(scores[row, begin : begin + count], descending=True, stable=True).indices
        place = torch.arange(count, device=scores.device)
        forced = (place < first) | (place >= count - last)
        order = torch.cat([place[forced], order[~forced[order]]])[:top_k]
        out[row, : order.numel()] = (order.sort().values + begin).int()
    return out
