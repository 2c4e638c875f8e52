"""The reference of attention.

Slow on purpose and the same for every device: one (sequence, head, block of queries) at a time, so that long
sequences fit in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from attngen.spec.evaluate import evaluate
from attngen.spec.model import Kind

ROWS = 1024  # queries at a time


def attention(
    kind: Kind,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor | None = None,
    *,
    indices: torch.Tensor | None = None,
    sink: torch.Tensor | None = None,
    alibi_slopes: torch.Tensor | None = None,
    prefix: torch.Tensor | None = None,
    offsets: torch.Tensor | None = None,
    key_range: torch.Tensor | None = None,
    q_scale: torch.Tensor | None = None,
    k_scale: torch.Tensor | None = None,
    v_scale: torch.Tensor | None = None,
    cu_seqlens_q: torch.Tensor | None = None,
    cu_seqlens_k: torch.Tensor | None = None,
    block_count: torch.Tensor | None = None,
    block_index: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float64,
    **named: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of ``kind``.

    q is (batch, heads, seq_q, qk dim), k (batch, kv heads, seq_k, qk dim), v (batch, kv heads, seq_k, v dim), or of a
    latent kind the keys' first columns. indices, (batch, seq_q, top_k), or with a list for each KV head or query head
    (batch, heads, seq_q, top_k), are the keys that were selected: what is not 0 to seq_k - 1 is no key, and without
    them a query sees all that it may select. Of compressed keys, positions need ``offsets``.
    Packed documents, of ``cu_seqlens_q`` and ``cu_seqlens_k``, are a batch of one; they have numbers where sequences
    have their place in the batch. The other keywords are those of the op; an 8-bit tensor stands for its values times
    its scale. Returns out (batch, heads, seq_q, v dim) and lse (batch, heads, seq_q), both in ``dtype``: lse is
    natural-log and leaves the sink out; a row that sees no key has out 0 and lse -inf.
    """
    heads, group = q.shape[1], kind.heads.group
    v = k[..., : kind.head_dim.v] if v is None else v
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=dtype, device=q.device)
    lse = torch.full(q.shape[:3], -math.inf, dtype=dtype, device=q.device)
    for b, row, of_q, of_k in sequences(q, k, cu_seqlens_q, cu_seqlens_k):
        seq_q, seq_k = of_q.stop - of_q.start, of_k.stop - of_k.start
        for h in range(heads if seq_k else 0):
            queries = _head(q, row, h, q_scale, dtype)[of_q]
            keys, values = (_head(x, row, h // group, scale, dtype)[of_k] for x, scale in ((k, k_scale), (v, v_scale)))
            for start in range(0, seq_q, ROWS):
                rows = slice(start, min(start + ROWS, seq_q))
                into = slice(of_q.start + rows.start, of_q.start + rows.stop)
                i, j = positions(seq_q, seq_k, rows, b, offsets, q.device)
                names = {"i": i, "j": j, "h": h, "b": b}
                s = (queries[rows] @ keys.T) * kind.scale
                s = scored(kind, s, names, alibi_slopes, named)
                seen = seen_by(kind, names, seq_k, prefix, key_range, named)
                if block_count is not None:
                    seen &= in_blocks(kind, rows, seq_k, block_count, block_index, b, h)
                if indices is not None:
                    places = indices.shape[1] if indices.dim() == 4 else 1  # lists of a query, one for some heads each
                    seen &= listed(indices[b, ..., rows, :], h * places // heads, seq_k)
                s = s.masked_fill(~seen, -math.inf)
                total = torch.logsumexp(s, -1)
                denominator = total if sink is None else torch.logaddexp(total, sink[h].to(dtype))
                p = torch.exp(s - denominator[:, None]).masked_fill(~seen, 0.0)
                p = p.masked_fill((total == -math.inf)[:, None], 0.0)
                usable = values.masked_fill(~usable_keys(j, b, seq_k, key_range).T, 0.0)
                out[row, h, into] = p @ usable
                lse[row, h, into] = total
    return out, lse


def sequences(
    q: torch.Tensor, k: torch.Tensor, cu_seqlens_q: torch.Tensor | None, cu_seqlens_k: torch.Tensor | None
) -> Iterator[tuple[int, int, slice, slice]]:
    """Number, row of the batch, queries and keys of each sequence, or of each packed document."""
    if cu_seqlens_q is None or cu_seqlens_k is None:
        for b in range(q.shape[0]):
            yield b, b, slice(0, q.shape[2]), slice(0, k.shape[2])
        return
    ends_q, ends_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    for n in range(len(ends_q) - 1):
        yield n, 0, slice(ends_q[n], ends_q[n + 1]), slice(ends_k[n], ends_k[n + 1])


def in_blocks(kind: Kind, rows: slice, seq_k: int, block_count: Any, block_index: Any, b: int, h: int) -> torch.Tensor:
    """Which keys are in the blocks that are listed for the blocks of some queries of a head: bool (rows, seq_k)."""
    assert kind.blocks is not None
    row, head = b % block_count.shape[0], h % block_count.shape[1]
    lists, counts = block_index[row, head].long(), block_count[row, head]
    blocks = -(-seq_k // kind.blocks.size)
    given = torch.arange(lists.shape[-1], device=lists.device) < counts[:, None]
    table = torch.zeros(lists.shape[0], blocks + 1, dtype=torch.bool, device=lists.device)
    table.scatter_(1, torch.where(given, lists, blocks), True)
    query = torch.arange(rows.start, rows.stop, device=lists.device) // kind.blocks.size
    return table[query][:, torch.arange(seq_k, device=lists.device) // kind.blocks.size]


def listed(indices: torch.Tensor, place: int, seq_k: int) -> torch.Tensor:
    """Which keys some queries' lists, (rows, top_k) or at a place of (lists, rows, top_k), hold: bool (rows, seq_k)."""
    lists = (indices[place] if indices.dim() == 3 else indices).long()
    kept = torch.where((lists >= 0) & (lists < seq_k), lists, seq_k)
    seen = torch.zeros(lists.shape[0], seq_k + 1, dtype=torch.bool, device=lists.device)
    return seen.scatter_(1, kept, True)[:, :seq_k]


def dequantised(inputs: dict[str, Any], name: str, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """What the tensor ``name`` of a call's keywords stands for: its values, times its scale where it has one."""
    scale = inputs.get(f"{name}_scale")
    values = inputs[name].to(dtype)
    return values if scale is None else values * scale.to(dtype).reshape(-1, 1, 1)


def _head(tensor: torch.Tensor, b: int, h: int, scale: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """One head of one sequence; a scale has one element, or one a head."""
    values = tensor[b, h].to(dtype)
    return values if scale is None else values * scale.reshape(-1)[h % scale.numel()].to(dtype)


def visible(
    kind: Kind,
    seq_q: int,
    seq_k: int,
    *,
    head: int = 0,
    batch: int = 0,
    prefix: torch.Tensor | None = None,
    offsets: torch.Tensor | None = None,
    key_range: torch.Tensor | None = None,
    device: torch.device | str = "cpu",
    **named: Any,
) -> torch.Tensor:
    """Which keys each query sees: bool (seq_q, seq_k), for one head of one sequence."""
    i, j = positions(seq_q, seq_k, slice(0, seq_q), batch, offsets, device)
    return seen_by(kind, {"i": i, "j": j, "h": head, "b": batch}, seq_k, prefix, key_range, named)


def positions(seq_q, seq_k, rows, b, offsets, device):
    """Positions of queries (rows, 1) and keys (1, seq_k)."""
    offset = seq_k - seq_q if offsets is None else int(offsets[b])
    i = torch.arange(rows.start, rows.stop, device=device)[:, None] + offset
    return i, torch.arange(seq_k, device=device)[None, :]


def usable_keys(j, b, seq_k, key_range):
    if key_range is None:
        return torch.ones_like(j, dtype=torch.bool)
    first, end = (int(x) for x in key_range[b])
    return (j >= first) & (j < min(end, seq_k))


def seen_by(kind: Kind, names: dict[str, Any], seq_k: int, prefix, key_range, named) -> torch.Tensor:
    i, j, b = names["i"], names["j"], names["b"]
    seen = torch.ones(i.shape[0], j.shape[1], dtype=torch.bool, device=j.device)
    last = j if kind.compress is None else j * kind.compress.stride + kind.compress.size - 1
    causal = last <= i if kind.causal else torch.ones_like(seen)
    seen &= causal
    if kind.window is not None:
        if kind.window.left is not None:
            seen &= j >= i - kind.window.left
        if kind.window.right is not None:
            seen &= j <= i + kind.window.right
    if kind.chunk is not None:
        seen &= i // kind.chunk == j // kind.chunk
    if kind.dilation is not None:
        seen &= (i - j) % kind.dilation == 0
    if kind.mask is not None:
        seen &= evaluate(kind.mask.tree, names, named)
    if kind.prefix is not None:
        length = int(prefix[b]) if kind.prefix == "argument" else kind.prefix
        seen |= j < length
    if kind.always_first is not None:
        seen |= (j < kind.always_first) & causal
    if kind.global_tokens is not None:
        seen |= ((i < kind.global_tokens) | (j < kind.global_tokens)) & causal
    return seen & usable_keys(j, b, seq_k, key_range)


def scored(kind: Kind, s: torch.Tensor, names: dict[str, Any], alibi_slopes: Any, named: dict) -> torch.Tensor:
    """Scaled products ``s`` after softcap, ALiBi and the score expression; ``names`` holds i, j, h and b."""
    if kind.softcap is not None:
        s = kind.softcap * torch.tanh(s / kind.softcap)
    if kind.alibi:
        s = s - alibi_slopes[names["h"]].to(s.dtype) * (names["i"] - names["j"]).abs()
    if kind.score is not None:
        s = torch.zeros_like(s) + evaluate(kind.score.tree, {**names, "s": s}, named)
    return s
