"""The reference of a selection of blocks: their scores, and the blocks that have the largest."""

from __future__ import annotations

import torch

from attngen.reference.attend import attention, visible
from attngen.reference.select import key_bounds, select_keys
from attngen.spec.model import BlockSelect, Kind


def mean_keys(k: torch.Tensor, size: int, *, key_range: torch.Tensor | None = None) -> torch.Tensor:
    """The mean of each block of ``size`` keys, float64 (batch, kv heads, blocks, dim); k is (batch, kv heads, seq_k,
    dim). The last block may be short; of keys outside ``key_range``, (batch, 2), nothing counts, and 0 is the mean of
    none."""
    batch, heads, seq_k, dim = k.shape
    blocks = -(-seq_k // size)
    out = torch.zeros(batch, heads, blocks, dim, dtype=torch.float64, device=k.device)
    for b in range(batch):
        first, end = (0, seq_k) if key_range is None else (max(int(key_range[b, 0]), 0), int(key_range[b, 1]))
        for block in range(blocks):
            keys = slice(max(block * size, first), min((block + 1) * size, end, seq_k))
            if keys.stop > keys.start:
                out[b, :, block] = k[b, :, keys].double().mean(1)
    return out


def mean_scores(kind: Kind, q: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """q . mean for every block: float64 (batch, lists, seq_q, blocks), a list for each query head, or of the sums over
    the heads that share a KV head."""
    each = means.repeat_interleave(kind.heads.group, 1)
    return _by_list(kind, torch.einsum("bhtd,bhnd->bhtn", q.double(), each.double()))


def paid_scores(
    kind: Kind,
    compressed: Kind,
    q: torch.Tensor,
    k: torch.Tensor,
    blocks: int,
    *,
    offsets: torch.Tensor,
    key_range: torch.Tensor | None = None,
) -> torch.Tensor:
    """What the branch ``compressed`` pays to each block (NSA, arXiv:2502.11089, equations 9 and 10): float64 (batch,
    lists, seq_q, blocks).

    k are the compressed keys, (batch, kv heads, compressed, dim), and key_range is of them. A compressed key pays its
    probability to a block once for each of its strides that lies within it.
    """
    assert compressed.compress is not None
    size, stride = compressed.compress.size, compressed.compress.stride
    batch, heads, seq_q, _ = q.shape
    paid = torch.zeros(batch, heads, seq_q, blocks, dtype=torch.float64, device=q.device)
    _, lse = attention(compressed, q, k, k[..., :1], offsets=offsets, key_range=key_range)
    starts = torch.arange(k.shape[2], device=q.device)[:, None] * stride
    edges = torch.arange(blocks, device=q.device) * _blocks(kind).size
    overlap = torch.minimum(starts + size, edges + _blocks(kind).size) - torch.maximum(starts, edges)
    strides = (overlap.clamp_min(0) / stride).double()
    for b in range(batch):
        seen = visible(compressed, seq_q, k.shape[2], batch=b, offsets=offsets, key_range=key_range, device=q.device)
        for h in range(heads):
            s = q[b, h].double() @ k[b, h // kind.heads.group].double().T * compressed.scale
            p = torch.exp(s - lse[b, h, :, None]).masked_fill(~seen, 0.0)
            paid[b, h] = p @ strides
    return _by_list(kind, paid)


def block_bounds(
    kind: Kind,
    seq_q: int,
    seq_k: int,
    batch: int,
    *,
    offsets: torch.Tensor | None = None,
    key_range: torch.Tensor | None = None,
    device: torch.device | str = "cpu",
) -> tuple[torch.Tensor, torch.Tensor]:
    """First and end of the blocks that hold keys which each query may see, int32 (batch, seq_q); 0 and 0 for none."""
    size = _blocks(kind).size
    first, end = key_bounds(kind, seq_q, seq_k, batch, offsets=offsets, key_range=key_range, device=device)
    first, end = first.clamp_min(0), end.clamp_max(seq_k)
    empty = end <= first
    first_block = torch.div(first, size, rounding_mode="floor").masked_fill(empty, 0)
    return first_block, torch.div(end + size - 1, size, rounding_mode="floor").masked_fill(empty, 0)


def select_blocks(
    kind: Kind,
    scores: torch.Tensor,
    seq_k: int,
    *,
    offsets: torch.Tensor | None = None,
    key_range: torch.Tensor | None = None,
) -> torch.Tensor:
    """The blocks with the largest scores among those that hold keys a query may see, in ascending order, then -1:
    int32 (batch, lists, seq_q, top_k), by the rules of ``select_keys``."""
    batch, lists, seq_q, _ = scores.shape
    blocks = _blocks(kind)
    first_block, end_block = block_bounds(
        kind, seq_q, seq_k, batch, offsets=offsets, key_range=key_range, device=scores.device
    )
    begin, stop = (bound[:, None].expand(batch, lists, seq_q).flatten() for bound in (first_block, end_block))
    made = select_keys(scores.flatten(0, 2), begin, stop, blocks.top_k, first=blocks.first, last=blocks.last)
    return made.reshape(batch, lists, seq_q, blocks.top_k)


def keys_of_blocks(blocks: torch.Tensor, size: int) -> torch.Tensor:
    """Lists of blocks (..., top_k) as lists of their keys (..., top_k * size); those of no block are -1."""
    keys = blocks[..., None] * size + torch.arange(size, dtype=torch.int32, device=blocks.device)
    return keys.masked_fill((blocks < 0)[..., None], -1).flatten(-2)


def _by_list(kind: Kind, scores: torch.Tensor) -> torch.Tensor:
    """Scores of heads, or their sums over the heads that share a KV head."""
    return scores if _blocks(kind).per == "head" else scores.unflatten(1, (-1, kind.heads.group)).sum(2)


def _blocks(kind: Kind) -> BlockSelect:
    assert kind.select is not None and kind.select.blocks is not None
    return kind.select.blocks
