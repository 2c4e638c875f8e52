"""How much work a plan is at given sizes: visible pairs, tiles, operations and bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attngen.config import Config
from attngen.plan.attention import AttentionPlan
from attngen.plan.chunks import held_width
from attngen.plan.forward import ForwardPlan
from attngen.plan.keys import Dilation, Interval
from attngen.plan.numbers import Values, evaluate
from attngen.problem import Problem
from attngen.spec.model import Compress, Kind

ELEMENT_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float8_e4m3": 1}


@dataclass(frozen=True)
class TileWork:
    """One launch, counted: what its programs compute and move, padding and masked elements included."""

    programs: int
    tiles_masked: int  # key tiles that go through the elementwise mask, over all programs
    tiles_full: int  # key tiles that do not
    longest: int  # key tiles of the longest program
    flops: float
    exps: float
    bytes: float  # compulsory: each tensor once


def first_position(kind: Kind, seq_q: int, seq_k: int) -> int:
    """Where the first query is if the last one is at the last key, or the last that compressed keys stand for."""
    keys = seq_k if kind.compress is None else (seq_k - 1) * kind.compress.stride + kind.compress.size
    return keys - seq_q


def compressed_count(compress: Compress, seq_k: int) -> int:
    """Compressed keys of ``seq_k`` keys: those that all of their keys are there of."""
    return max((seq_k - compress.size) // compress.stride + 1, 0)


def keys_of(kind: Kind, seq_k: int) -> int:
    """Keys that a kind attends to over ``seq_k``: compressed ones are fewer, but one."""
    return seq_k if kind.compress is None else max(compressed_count(kind.compress, seq_k), 1)


def visible_pairs(plan: ForwardPlan, seq_q: int, seq_k: int) -> int:
    """(query, key) pairs of one head of one sequence that the mask lets be seen.

    Exact, but for tests of single elements: a dilation counts one key in ``step``, a mask expression counts as
    seen wherever its intervals reach. A run-time prefix counts as half the keys.
    """
    rows = _row_values(plan, seq_q, seq_k)
    spans, densities = [], []
    for term in plan.terms:
        lower = np.broadcast_to(evaluate(term.row_lower(), rows), rows["i"].shape)
        upper = np.broadcast_to(evaluate(term.row_upper(), rows), rows["i"].shape)
        spans.append((np.clip(lower, 0, seq_k), np.clip(upper, 0, seq_k)))
        steps = [test.step for test in term.residual if isinstance(test, Dilation)]
        densities.append(1.0 / np.prod(steps) if steps else 1.0)
    if len(spans) == 1:
        lower, upper = spans[0]
        return round(float(np.maximum(upper - lower, 0).sum()) * densities[0])
    order = np.argsort(np.stack([lower for lower, _ in spans]), axis=0, kind="stable")
    lowers = np.take_along_axis(np.stack([lower for lower, _ in spans]), order, 0)
    uppers = np.take_along_axis(np.stack([upper for _, upper in spans]), order, 0)
    density = np.take_along_axis(np.repeat(np.array(densities)[:, None], seq_q, 1), order, 0)
    total, reached = 0.0, np.zeros(seq_q, dtype=np.int64)
    for lower, upper, share in zip(lowers, uppers, density, strict=True):
        start = np.maximum(lower, reached)
        total += float((np.maximum(upper - start, 0) * share).sum())
        reached = np.maximum(reached, upper)
    return round(total)


def compulsory_bytes(plan: ForwardPlan, problem: Problem) -> float:
    """q, k, v read once, out and lse written once."""
    kind = plan.kind
    element, rows = ELEMENT_BYTES[kind.dtype], kind.heads.query * problem.seq_q
    keys = kind.heads.kv * problem.seq_k * (kind.head_dim.qk + kind.head_dim.v) * element
    results = rows * (kind.head_dim.v * ELEMENT_BYTES[kind.out_dtype] + 4)
    return float(problem.batch * (rows * kind.head_dim.qk * element + keys + results))


def useful_flops(plan: ForwardPlan, problem: Problem) -> float:
    """Operations that the visible pairs need: 2 * (qk dim + v dim) a pair."""
    kind = plan.kind
    pairs = visible_pairs(plan, problem.seq_q, problem.seq_k)
    return 2.0 * problem.batch * kind.heads.query * pairs * (kind.head_dim.qk + kind.head_dim.v)


def tile_work(plan: ForwardPlan, config: Config, problem: Problem) -> TileWork:
    """The work of one launch of ``config``."""
    kind = plan.kind
    pack = int(config.get("PACK_HEADS") or 1)
    block_m, block_n = int(config["BLOCK_M"] or 0), int(config["BLOCK_N"] or 0)
    block_q = block_m if config["schedule"] == "window" else block_m // pack
    masked, full = tiles_of(plan, problem.seq_q, problem.seq_k, block_q, block_n, bool(config.get("SPLIT_MASKS", True)))
    heads = problem.batch * kind.heads.query // pack
    rows = block_q * pack
    steps = float((masked + full).sum()) * heads
    widths = held_width(plan.qk_chunks + plan.v_chunks)
    programs = len(masked) * heads
    if config["schedule"] == "window":  # one program goes over all heads of a group
        programs = len(masked) * problem.batch * kind.heads.kv
    return TileWork(
        programs=programs,
        tiles_masked=int(masked.sum()) * heads,
        tiles_full=int(full.sum()) * heads,
        longest=int((masked + full).max(initial=0)),
        flops=2.0 * steps * rows * block_n * widths,
        exps=steps * rows * block_n,
        bytes=compulsory_bytes(plan, problem),
    )


def tiles_of(
    plan: AttentionPlan, seq_q: int, seq_k: int, block_q: int, block_n: int, split_masks: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Masked and unmasked key tiles of every query tile, as the kernel's loops visit them."""
    offset = first_position(plan.kind, seq_q, seq_k)
    starts = np.arange(0, seq_q, block_q)
    values: Values = {
        "i_first": starts + offset,
        "i_last": np.minimum(starts + block_q, seq_q) - 1 + offset,
        "key_first": 0,
        "key_end": seq_k,
        "prefix": seq_k // 2,
    }
    return count_tiles(plan.loops, values, len(starts), block_n, split_masks)


def count_tiles(
    loops: tuple[Interval, ...], values: Values, programs: int, step: int, split_masks: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Masked and unmasked tiles of ``step`` that each program's loops go over, at the ``values`` of its tile."""
    masked = np.zeros(programs, dtype=np.int64)
    full = np.zeros(programs, dtype=np.int64)
    covered = np.zeros(programs, dtype=np.int64)
    for n, loop in enumerate(loops):
        first = np.broadcast_to(evaluate(loop.outer_first, values), covered.shape)
        if n:
            first = np.maximum(first, covered)
        tiles = -(-np.maximum(evaluate(loop.outer_end, values) - first, 0) // step)
        whole = np.zeros_like(tiles)
        if split_masks and loop.inner_first is not None and loop.inner_end is not None:
            lead = -(-np.maximum(evaluate(loop.inner_first, values) - first, 0) // step)
            whole = np.maximum(evaluate(loop.inner_end, values) - (first + lead * step), 0) // step
        masked += tiles - whole
        full += whole
        covered = first + tiles * step
    return masked, full


def _row_values(plan: ForwardPlan, seq_q: int, seq_k: int) -> dict:
    return {
        "i": np.arange(seq_q) + first_position(plan.kind, seq_q, seq_k),
        "key_first": 0,
        "key_end": seq_k,
        "prefix": seq_k // 2,
    }
