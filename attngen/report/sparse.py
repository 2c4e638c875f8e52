"""What each part of sparse attention costs at least, and dense attention of the same layer beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from attngen.plan.forward import plan_forward
from attngen.plan.listed import blocks_of, lists_of
from attngen.plan.space.common import why_no_float8
from attngen.plan.work import ELEMENT_BYTES, compulsory_bytes, keys_of, visible_pairs
from attngen.problem import Problem
from attngen.report.work import Work, summed, work_of
from attngen.spec.model import Kind
from attngen.target import Target

Part = Literal["indexer", "select", "gathered"]
SCORING: tuple[Part, Part] = ("indexer", "select")
SCORE_BYTES = 4
INDEX_BYTES = 4


@dataclass(frozen=True)
class SparseCost:
    """Milliseconds at least of a prefill at one length: the parts, one after the other, and dense attention."""

    batch: int
    seq: int
    parts: dict[str, float]
    dense_ms: float

    @property
    def total_ms(self) -> float:
        return sum(self.parts.values())

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "total_ms": self.total_ms}


def sparse_costs(kind: Kind, sizes: Sequence[tuple[int, int]], target: Target) -> list[SparseCost]:
    """The costs at each (batch, length) of a kind that selects keys or blocks, or has branches."""
    dense = plan_forward(without_selection(kind))
    return [
        SparseCost(
            batch,
            seq,
            {name: work.floor_ms if work else 0.0 for name, work in parts_of(kind, batch, seq, target).items()},
            work_of(dense, batch, seq, seq, target).floor_ms,
        )
        for batch, seq in sizes
    ]


def parts_of(kind: Kind, batch: int, seq: int, target: Target) -> dict[str, Work | None]:
    """What a prefill is made of, one part after the other; None for one that so short a sequence has no use for."""
    select = kind.select
    if kind.branches:
        return {
            f"{branch.name}{', ' * bool(part)}{part}": work
            for branch in kind.branches
            for part, work in _branch_parts(kind, branch, batch, seq, target).items()
        }
    assert select is not None
    if select.blocks is not None:
        short = seq <= select.blocks.size * select.blocks.top_k
        scored = None if short else block_scores_work(kind, None, batch, seq, seq, target)
        return {"selection": scored, "attention": block_attention_work(kind, batch, seq, seq, target)}
    short = seq <= (select.top_k or 0) or select.indexer is None
    scored, selected = (None if short else part_work(kind, part, batch, seq, seq, target) for part in SCORING)
    return {"indexer": scored, "selection": selected, "attention": part_work(kind, "gathered", batch, seq, seq, target)}


def whole_work(kind: Kind, batch: int, seq: int, target: Target) -> Work:
    """All parts of a prefill as one: their sums."""
    return summed([part for part in parts_of(kind, batch, seq, target).values() if part is not None], seq * seq)


def _branch_parts(kind: Kind, branch: Kind, batch: int, seq: int, target: Target) -> dict[str, Work | None]:
    """Of one branch, the part called "" being its attention."""
    if branch.select is None or branch.select.blocks is None:
        return {"": work_of(plan_forward(branch), batch, seq, keys_of(branch, seq), target)}
    blocks = branch.select.blocks
    by = next((other for other in kind.branches if other.name == blocks.by), None)
    short = seq <= blocks.size * blocks.top_k
    scored = None if short else block_scores_work(branch, by, batch, seq, seq, target)
    return {"selection": scored, "": block_attention_work(branch, batch, seq, seq, target)}


def block_scores_work(kind: Kind, compressed: Kind | None, batch: int, seq_q: int, seq_k: int, target: Target) -> Work:
    """Every visible block's mean, or every visible compressed key, times every query; no score is kept."""
    blocks = blocks_of(kind)
    if compressed is None or compressed.compress is None:
        pairs = visible_pairs(plan_forward(without_selection(kind)), seq_q, seq_k) // blocks.size
        keys, exps = seq_k, 0.0  # keys are read for their means
    else:
        keys = keys_of(compressed, seq_k)
        pairs = visible_pairs(plan_forward(compressed), seq_q, keys)
        exps = float(kind.heads.query * pairs)
    numbers = (seq_q * kind.heads.query + keys * kind.heads.kv) * kind.head_dim.qk
    moved = float(numbers * ELEMENT_BYTES[kind.dtype] + INDEX_BYTES * seq_q * lists_of(kind) * blocks.top_k)
    flops, rate = 2.0 * kind.heads.query * pairs * kind.head_dim.qk, target.peak_flops(kind.dtype)
    return _work(batch, pairs, seq_q * seq_k, flops, moved, exps, rate, target)


def block_attention_work(kind: Kind, batch: int, seq_q: int, seq_k: int, target: Target) -> Work:
    """Attention to the keys of each query's blocks, of which a causal query sees its own in part."""
    blocks, plan = blocks_of(kind), plan_forward(without_selection(kind))
    i = np.arange(seq_q) + seq_k - seq_q
    listed = (blocks.top_k - 1) * blocks.size + (i % blocks.size + 1 if kind.causal else blocks.size)
    pairs = min(int(np.minimum(listed, i + 1 if kind.causal else seq_k).sum()), visible_pairs(plan, seq_q, seq_k))
    problem = Problem(plan.kernel, plan.kind.digest(), 1, seq_q, seq_k)
    moved = compulsory_bytes(plan, problem) + INDEX_BYTES * seq_q * lists_of(kind) * blocks.top_k
    flops = 2.0 * kind.heads.query * pairs * (kind.head_dim.qk + kind.head_dim.v)
    exps, rate = float(kind.heads.query * pairs), target.peak_flops(kind.dtype)
    return _work(batch, pairs, seq_q * seq_k, flops, moved, exps, rate, target)


def part_work(kind: Kind, part: Part, batch: int, seq_q: int, seq_k: int, target: Target) -> Work:
    """What one part must do at least: every visible key scored, every score read, every listed key attended to."""
    select = kind.select
    assert select is not None and select.top_k is not None
    plan = plan_forward(without_selection(kind))
    pairs = visible_pairs(plan, seq_q, seq_k)
    flops = exps = 0.0
    rate = target.peak_flops("bfloat16")
    if part == "gathered":
        pairs = min(_listed_pairs(kind, select.top_k, seq_q, seq_k), pairs)
        dims = kind.head_dim.qk + kind.head_dim.v
        flops, exps = 2.0 * kind.heads.query * pairs * dims, float(kind.heads.query * pairs)
        of_keys = dims if kind.latent is None else kind.head_dim.qk
        numbers = seq_q * kind.heads.query * dims + seq_k * kind.heads.kv * of_keys
        moved = float(numbers * ELEMENT_BYTES[kind.dtype] + INDEX_BYTES * seq_q * select.top_k)
        rate = target.peak_flops(kind.dtype)
    elif part == "select":
        moved = float(SCORE_BYTES * pairs + INDEX_BYTES * seq_q * select.top_k)
    else:
        indexer = select.indexer
        assert indexer is not None
        flops, rate = 2.0 * indexer.heads * indexer.head_dim * pairs, _rate(target, indexer.dtype)
        numbers = (seq_q * indexer.heads + seq_k) * indexer.head_dim
        moved = float(numbers * ELEMENT_BYTES[indexer.dtype] + SCORE_BYTES * pairs)
    return _work(batch, pairs, seq_q * seq_k, flops, moved, exps, rate, target)


def _work(
    batch: int, pairs: int, all_pairs: int, flops: float, moved: float, exps: float, rate: float, target: Target
) -> Work:
    """Of ``batch`` sequences that need so much each."""
    return Work(
        pairs=pairs,
        all_pairs=all_pairs,
        flops=batch * flops,
        bytes=batch * moved,
        exps=batch * exps,
        math_ms=batch * flops / rate * 1e3,
        bytes_ms=batch * moved / target.memory_bandwidth * 1e3,
        exp_ms=batch * exps / target.exp2_rate * 1e3,
    )


def without_selection(kind: Kind) -> Kind:
    """The same attention over every key that a query may select: what it is compared with."""
    return replace(kind, select=None, latent=None, branches=())


def _listed_pairs(kind: Kind, top_k: int, seq_q: int, seq_k: int) -> int:
    """Pairs of queries and listed keys: as many as a query sees, and at most ``top_k``."""
    if not kind.causal:
        return seq_q * min(top_k, seq_k)
    first = seq_k - seq_q + 1  # keys that the first query sees
    growing = max(0, min(seq_q, top_k - first + 1))
    return sum(max(0, first + n) for n in range(growing)) + (seq_q - growing) * top_k


def _rate(target: Target, dtype: str) -> float:
    """Of an indexer's products: in bfloat16 where a GPU has no FP8."""
    return target.peak_flops("bfloat16" if dtype == "float8_e4m3" and why_no_float8(target) else dtype)
