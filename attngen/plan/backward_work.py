"""How much work the kernels of a backward pass are at given sizes: operations, bytes, and the tiles that they go over.

A backward pass is counted as 2.5 times the operations of the forward pass, five products of queries and keys for two:
S and dP, then dV, dK and dQ. Of the seven that these kernels compute, with S and dP once for each of them, backward_kv
has four and backward_q three; each is credited with that share of the five. backward_fused computes the five.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attngen.config import Config
from attngen.plan.backward import BackwardPlan
from attngen.plan.chunks import held_width
from attngen.plan.forward import ForwardPlan
from attngen.plan.numbers import evaluate
from attngen.plan.work import (
    ELEMENT_BYTES,
    TileWork,
    compulsory_bytes,
    count_tiles,
    first_position,
    tiles_of,
    useful_flops,
)
from attngen.problem import Problem

FORWARD_SHARE = 2.5  # operations of a backward pass for each of the forward pass
SHARES = {"backward_kv": 4 / 7, "backward_q": 3 / 7, "backward_fused": 1.0}  # of the operations
ROW_BYTES = 4  # of a number in float32


def backward_flops(forward: ForwardPlan, problem: Problem) -> float:
    """Operations that the gradients of q, k and v need for the visible pairs."""
    return FORWARD_SHARE * useful_flops(forward, problem)


def backward_bytes(forward: ForwardPlan, problem: Problem) -> float:
    """q, k, v, out, its gradient and lse read once, the gradients of q, k and v written once."""
    kind, element = forward.kind, ELEMENT_BYTES[forward.kind.dtype]
    queries, keys = _rows(problem, kind.heads.query, problem.seq_q), _rows(problem, kind.heads.kv, problem.seq_k)
    gradients = queries * (kind.head_dim.qk + kind.head_dim.v) + keys * (kind.head_dim.qk + kind.head_dim.v)
    return compulsory_bytes(forward, problem) + float(gradients * element)


def kernel_flops(plan: BackwardPlan, forward: ForwardPlan, problem: Problem) -> float:
    """Of one kernel: its products' share of the whole pass's operations; of backward_rows those of delta."""
    kind = plan.kind
    if plan.kernel == "backward_rows":
        return 2.0 * _rows(problem, kind.heads.query, problem.seq_q) * kind.head_dim.v
    return backward_flops(forward, problem) * SHARES[plan.kernel]


def kernel_bytes(plan: BackwardPlan, problem: Problem) -> float:
    """Of one kernel: what it takes, read once, and what it makes, written once."""
    kind, element = plan.kind, ELEMENT_BYTES[plan.kind.dtype]
    queries, keys = _rows(problem, kind.heads.query, problem.seq_q), _rows(problem, kind.heads.kv, problem.seq_k)
    if plan.kernel == "backward_rows":  # out, its gradient and lse; two numbers of each row
        return float(queries * (2 * kind.head_dim.v * element + 3 * ROW_BYTES))
    width = kind.head_dim.qk + kind.head_dim.v
    taken = (queries + keys) * width * element + 2 * queries * ROW_BYTES
    made = (keys * width if plan.by_key else 0) + (queries * kind.head_dim.qk if "q" in plan.gradients else 0)
    return float(taken + made * element)


def backward_tile_work(plan: BackwardPlan, config: Config, problem: Problem) -> TileWork:
    """The work of one launch of a kernel that goes over pairs of queries and keys, in tiles of ``config``."""
    kind = plan.kind
    block_m, block_n = int(config["BLOCK_M"] or 0), int(config["BLOCK_N"] or 0)
    qk, v = held_width(plan.qk_chunks), held_width(plan.v_chunks)
    if plan.by_key:  # one program goes over all heads of a group
        masked, full = tiles_of_keys(plan, problem.seq_q, problem.seq_k, block_m, block_n)
        heads, turns, widths = problem.batch * kind.heads.kv, kind.heads.group, 2 * qk + 2 * v
        widths += qk if "q" in plan.gradients else 0
    else:
        masked, full = tiles_of(plan, problem.seq_q, problem.seq_k, block_m, block_n)
        heads, turns = problem.batch * kind.heads.query, 1
        widths = (2 * qk if plan.kernel == "backward_q" else qk) + v
    steps = float((masked + full).sum()) * heads * turns
    return TileWork(
        programs=len(masked) * heads,
        tiles_masked=int(masked.sum()) * heads * turns,
        tiles_full=int(full.sum()) * heads * turns,
        longest=int((masked + full).max(initial=0)) * turns,
        flops=2.0 * steps * block_m * block_n * widths,
        exps=steps * block_m * block_n,
        bytes=kernel_bytes(plan, problem),
    )


def tiles_of_keys(
    plan: BackwardPlan, seq_q: int, seq_k: int, block_m: int, block_n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Masked and unmasked tiles of queries of every tile of keys, as the loops over them go."""
    starts = np.arange(0, seq_k, block_n)
    values = _of_keys(plan, starts, np.minimum(starts + block_n, seq_k), seq_q, seq_k)
    return count_tiles(plan.loops, values, len(starts), block_m)


def queries_of_keys(plan: BackwardPlan, keys: slice, seq_q: int, seq_k: int, prefix: int | None = None) -> slice:
    """Neighbouring queries, with all among them that see one of ``keys``."""
    values = _of_keys(plan, keys.start, keys.stop, seq_q, seq_k) | ({} if prefix is None else {"prefix": prefix})
    first = values["key_first"]
    begins = [int(evaluate(loop.outer_first, values)) - first for loop in plan.loops]
    ends = [int(evaluate(loop.outer_end, values)) - first for loop in plan.loops]
    begin = min(max(min(begins), 0), seq_q)
    return slice(begin, max(min(max(ends), seq_q), begin))


def _of_keys(plan: BackwardPlan, first: Any, end: Any, seq_q: int, seq_k: int) -> dict[str, Any]:
    """Symbols of ``attngen.plan.transpose``: of a tile of keys, and of all queries."""
    offset = first_position(plan.kind, seq_q, seq_k)
    of_queries = {"key_first": offset, "key_end": offset + seq_q}
    return {"i_first": first, "i_last": end - 1, **of_queries, "prefix": seq_k // 2}


def _rows(problem: Problem, heads: int, length: int) -> int:
    return problem.batch * heads * length
