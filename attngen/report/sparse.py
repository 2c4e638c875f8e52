"""What each part of DeepSeek's sparse attention costs at least, and dense attention of the same layer beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from attngen.plan.forward import plan_forward
from attngen.plan.space.common import why_no_float8
from attngen.plan.work import ELEMENT_BYTES, visible_pairs
from attngen.report.work import Work, work_of
from attngen.spec.model import Kind
from attngen.target import Target

Part = Literal["indexer", "select", "gathered"]
SCORE_BYTES = 4
INDEX_BYTES = 4


@dataclass(frozen=True)
class SparseCost:
    """Milliseconds at least of a prefill at one length: the parts, one after the other, and dense attention."""

    batch: int
    seq: int
    indexer_ms: float
    select_ms: float
    gathered_ms: float
    dense_ms: float

    @property
    def total_ms(self) -> float:
        return self.indexer_ms + self.select_ms + self.gathered_ms

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "total_ms": self.total_ms}


def sparse_costs(kind: Kind, sizes: Sequence[tuple[int, int]], target: Target) -> list[SparseCost]:
    """The costs at each (batch, length): where a query sees no more keys than it selects, attention alone."""
    assert kind.select is not None
    costs = []
    for batch, seq in sizes:
        short = seq <= (kind.select.top_k or 0) or kind.select.indexer is None
        parts = [part_work(kind, part, batch, seq, seq, target).floor_ms for part in ("indexer", "select", "gathered")]
        dense = work_of(plan_forward(without_selection(kind)), batch, seq, seq, target).floor_ms
        indexer, select, gathered = (0.0, 0.0, parts[2]) if short else parts
        costs.append(SparseCost(batch, seq, indexer, select, gathered, dense))
    return costs


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
    return Work(
        pairs=pairs,
        all_pairs=seq_q * seq_k,
        flops=batch * flops,
        bytes=batch * moved,
        exps=batch * exps,
        math_ms=batch * flops / rate * 1e3,
        bytes_ms=batch * moved / target.memory_bandwidth * 1e3,
        exp_ms=batch * exps / target.exp2_rate * 1e3,
    )


def without_selection(kind: Kind) -> Kind:
    """The same attention over every key that a query may select: what it is compared with."""
    return replace(kind, select=None, latent=None)


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
