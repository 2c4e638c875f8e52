"""Random inputs of the sparse kernels: an indexer's, scores to select from, what blocks are scored by, and lists."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import torch

from attngen import reference
from attngen.inputs import LARGEST_FLOAT8, make_inputs
from attngen.plan.block_select import BlockSelectPlan
from attngen.plan.indexer import IndexerPlan
from attngen.plan.listed import blocks_of, lists_of, selects_blocks
from attngen.plan.select import SelectPlan
from attngen.spec.model import Kind

LISTED_QUERIES = 256  # whose lists are drawn at a time
DRAWN = 2**26  # numbers that blocks are drawn by at a time


def make_index(
    kind: Kind, batch: int, seq_q: int, seq_k: int, *, device: torch.device | str, seed: int = 0
) -> dict[str, torch.Tensor]:
    """What a kind's indexer takes, in bfloat16: index_q, index_k and index_weights."""
    assert kind.select is not None and kind.select.indexer is not None
    heads, dim = kind.select.indexer.heads, kind.select.indexer.head_dim
    generator = torch.Generator(device=device).manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=torch.bfloat16)

    return {
        "index_q": normal(batch, seq_q, heads, dim).transpose(1, 2),
        "index_k": normal(batch, seq_k, dim),
        "index_weights": normal(batch, seq_q, heads) * heads**-0.5,
    }


def make_quantised_index(
    plan: IndexerPlan, batch: int, seq_q: int, seq_k: int, *, device: torch.device | str, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Keywords of an indexer's kernel: q, k and their scales as quantising random numbers leaves them, and bounds."""
    index = make_index(plan.kind, batch, seq_q, seq_k, device=device, seed=seed)
    dtype = torch.float8_e4m3fn if plan.scaled else getattr(torch, plan.dtype)
    size = LARGEST_FLOAT8 / 4  # of a standard deviation
    first, end = reference.key_bounds(plan.kind, seq_q, seq_k, batch, device=device)
    made = {
        "q": (index["index_q"].transpose(1, 2) * size).clamp(-LARGEST_FLOAT8, LARGEST_FLOAT8).to(dtype),
        "k": (index["index_k"] * size).clamp(-LARGEST_FLOAT8, LARGEST_FLOAT8).to(dtype),
        "w": index["index_weights"].float() / size,
        "key_first": first,
        "key_end": end,
    }
    if plan.scaled:
        generator = torch.Generator(device=device).manual_seed(seed + 1)
        made["k_scale"] = (torch.rand(batch, seq_k, generator=generator, device=device) + 0.5) / size
    return made


def make_scores(
    plan: SelectPlan, rows: int, seq_k: int, *, device: torch.device | str, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Keywords of a selection: scores as of an indexer, and the bounds of causal rows at the end of the keys."""
    generator = torch.Generator(device=device).manual_seed(seed)
    columns = -(-seq_k // 256) * 256 + 256
    logits = torch.randn(rows, columns, generator=generator, device=device).to(getattr(torch, plan.logits))
    end = torch.arange(rows, dtype=torch.int32, device=device) + (seq_k - rows + 1)
    return {"logits": logits, "key_first": torch.zeros_like(end), "key_end": end.clamp_(0, seq_k)}


def make_block_select(
    plan: BlockSelectPlan, batch: int, seq_q: int, seq_k: int, *, device: torch.device | str, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Keywords of a selection of blocks: q laid out heads last, means or compressed keys, and the bounds of queries at
    the end of the keys; of a compressed branch its lse too."""
    kind, compressed = plan.kind, plan.compressed
    generator = torch.Generator(device=device).manual_seed(seed)
    dtype, dim = getattr(torch, kind.dtype), kind.head_dim.qk

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device).to(dtype)

    first, end = reference.block_bounds(kind, seq_q, seq_k, batch, device=device)
    made = {"q": normal(batch, seq_q, kind.heads.query, dim).transpose(1, 2), "block_first": first, "block_end": end}
    if compressed is None or compressed.compress is None:
        return {**made, "keys": normal(batch, kind.heads.kv, -(-seq_k // plan.blocks.size), dim)}
    size, stride = compressed.compress.size, compressed.compress.stride
    count = max((seq_k - size) // stride + 1, 0)
    keys = made["keys"] = normal(batch, kind.heads.kv, count, dim)
    offsets = torch.full((batch,), seq_k - seq_q, dtype=torch.int32, device=device)
    _, lse = reference.attention(compressed, made["q"], keys, keys[..., :1], offsets=offsets)
    i = torch.arange(seq_q, dtype=torch.int32, device=device).expand(batch, seq_q) + offsets[:, None]
    seen = torch.div(i - size + 1, stride, rounding_mode="floor") + 1
    key_end = seen.clamp(0, count) if compressed.causal else torch.full_like(i, count)
    return {**made, "lse": lse.float(), "key_first": torch.zeros_like(i), "key_end": key_end}


def make_listed(
    kind: Kind, batch: int, seq_q: int, seq_k: int, *, device: torch.device | str, seed: int = 0
) -> dict[str, Any]:
    """Keywords of attention over lists of keys, or of blocks that queries take as they are."""
    if not selects_blocks(kind):
        return make_indices(kind, batch, seq_q, seq_k, device=device, seed=seed)
    made = make_blocks(kind, batch, seq_q, seq_k, device=device, seed=seed)
    made["indices"] = made.pop("blocks")
    return made


def make_indices(
    kind: Kind, batch: int, seq_q: int, seq_k: int, *, device: torch.device | str, seed: int = 0
) -> dict[str, Any]:
    """Keywords of attention over lists: q, k, v (None of a latent kind) laid out heads last, and for each query a list
    of different keys before it, in ascending order and then -1."""
    assert kind.select is not None and kind.select.top_k is not None
    top_k = kind.select.top_k
    inputs: dict[str, Any] = make_inputs(
        replace(kind, select=None, latent=None), batch, seq_q, seq_k, device=device, seed=seed
    )
    inputs["q"], inputs["k"] = (inputs[name].transpose(1, 2).contiguous().transpose(1, 2) for name in "qk")
    if kind.latent is not None:
        inputs["v"] = None
    generator = torch.Generator(device=device).manual_seed(seed)
    _, end = reference.key_bounds(kind, seq_q, seq_k, batch, device=device)
    lists = torch.full((batch, seq_q, top_k), -1, dtype=torch.int32, device=device)
    keys, count = torch.arange(seq_k, device=device), min(top_k, seq_k)
    for b in range(batch):
        for start in range(0, seq_q, LISTED_QUERIES):
            rows = slice(start, start + LISTED_QUERIES)
            past = keys >= end[b, rows, None]
            order = torch.rand(past.shape, generator=generator, device=device).masked_fill_(past, -1.0).topk(count, 1)
            chosen = order.indices.masked_fill(order.values < 0, seq_k).sort(1).values
            lists[b, rows, :count] = chosen.masked_fill(chosen == seq_k, -1).int()
    return {**inputs, "indices": lists}


def make_blocks(
    kind: Kind,
    batch: int,
    seq_q: int,
    seq_k: int,
    *,
    device: torch.device | str,
    seed: int = 0,
    together: int = 1,
) -> dict[str, Any]:
    """Keywords of attention over chosen blocks: q, k, v laid out heads last, and lists of different blocks that each
    query may see, in ascending order and then -1: those that the kind always selects, and others at random.

    ``together`` neighbouring queries choose alike where they may.
    """
    select = blocks_of(kind)
    inputs: dict[str, Any] = make_inputs(replace(kind, select=None), batch, seq_q, seq_k, device=device, seed=seed)
    inputs |= {name: inputs[name].transpose(1, 2).contiguous().transpose(1, 2) for name in "qkv"}
    generator = torch.Generator(device=device).manual_seed(seed)
    blocks, lists = -(-seq_k // select.size), lists_of(kind)
    first, end = reference.key_bounds(kind, seq_q, seq_k, batch, device=device)
    first, end = first.clamp(min=0) // select.size, (end.clamp(0, seq_k) + select.size - 1) // select.size
    made = torch.full((batch, lists, seq_q, select.top_k), -1, dtype=torch.int32, device=device)
    place, count = torch.arange(blocks, device=device), min(select.top_k, blocks)
    step = max(DRAWN // blocks // together, 1) * together
    for b, n, start in product(range(batch), range(lists), range(0, seq_q, step)):
        rows = slice(start, start + step)
        begin, stop = first[b, rows, None], end[b, rows, None]
        drawn = torch.rand((-(-begin.shape[0] // together), blocks), generator=generator, device=device)
        scores = drawn.repeat_interleave(together, 0)[: begin.shape[0]]
        scores = scores + 2.0 * ((place < begin + select.first) | (place >= stop - select.last))
        best = scores.masked_fill_((place < begin) | (place >= stop), -1.0).topk(count, 1)
        chosen = best.indices.masked_fill(best.values < 0, blocks).sort(1).values
        made[b, n, rows, :count] = chosen.masked_fill(chosen == blocks, -1).int()
    return {**inputs, "blocks": made}


def make_gated(kind: Kind, batch: int, seq_q: int, *, device: torch.device | str, seed: int = 0) -> dict[str, Any]:
    """Keywords of a sum of branches: results laid out heads last, and gates."""
    generator = torch.Generator(device=device).manual_seed(seed)
    shape, dtype = (batch, seq_q, kind.heads.query, kind.head_dim.v), getattr(torch, kind.dtype)
    results = [torch.randn(*shape, generator=generator, device=device).to(dtype).transpose(1, 2) for _ in kind.branches]
    gates = torch.rand(batch, kind.heads.query, seq_q, len(results), generator=generator, device=device)
    return {"results": results, "gates": gates}
