"""The tunables of the ``hopper`` schedule: warp-specialised kernels for sm_90, dense or in wide windows."""

from __future__ import annotations

import math

from attngen.config import Config, Value
from attngen.plan.forward import ForwardPlan
from attngen.plan.hopper import NAMED_BARRIERS, ROWS, WIDE_VALUES, HopperShape, most_keys, most_keys_in_order
from attngen.plan.space.common import (
    FEW_QUERIES,
    Family,
    Parameter,
    query_width,
    value_width,
    why_not_for_hopper,
)
from attngen.plan.work import ELEMENT_BYTES
from attngen.problem import Problem
from attngen.target import Target

MOST_PACKED = 8  # heads of one tile: of 64 rows a warpgroup, 8 queries are left
THREE_WARPGROUPS = {128: 64, 64: 128}  # keys of a tile, and columns beside them that 160 registers a thread hold
SMALL_WINDOW = 256  # keys: a few tiles at most, so that filling the pipeline costs more than it gains
L2_BYTES = 32 * 2**20  # of an H100's 50 MB, for keys and values of heads that run side by side
SHORT = 4096  # queries: below, large tiles are too few to even out; a quarter where all tiles are alike


def why_not(plan: ForwardPlan, target: Target) -> str | None:
    """Why no config of this schedule can run ``plan`` on ``target``; None where some can."""
    if reason := why_not_for_hopper(plan, target, "16-bit and 8-bit"):
        return reason
    return "values of packed documents are not turned" if plan.kind.documents and plan.kind.quantised else None


def parameters(plan: ForwardPlan, target: Target) -> tuple[Parameter, ...]:
    """The schedule's own tunables with their choices."""
    packs = (1, 2, 4, 8) if plan.kind.heads.group > 1 else (1,)
    return (
        Parameter("schedule", ("hopper",)),
        Parameter("BLOCK_M", (128, 192) if _keys_of_three(plan) else (128,)),
        Parameter("BLOCK_N", (64, 128, 256) if plan.kind.quantised else (64, 128)),
        Parameter("num_warps", (4,)),
        Parameter("num_stages", (2, 3)),
        Parameter("PACK_HEADS", tuple(n for n in packs if plan.kind.heads.group % n == 0)),
        Parameter("HEADS_TOGETHER", tuple(sorted({1, 2, 4, 8, 16, 32, plan.kind.heads.group}))),
        Parameter("PING_PONG", (False, True)),
    )


def feasible(plan: ForwardPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    """None when ``config`` is worth compiling, else why it is not."""
    if reason := why_not(plan, target):
        return reason
    rows, keys, stages = (int(config[name] or 0) for name in ("BLOCK_M", "BLOCK_N", "num_stages"))
    most = most_keys(plan)
    if rows not in (2 * ROWS, 3 * ROWS):
        return "two or three warpgroups compute, of 64 rows each"
    three = rows == 3 * ROWS
    if three and keys != _keys_of_three(plan):
        sizes = " or ".join(
            f"{keys} keys beside {columns} columns" for keys, columns in _three_warpgroups(plan).items()
        )
        return f"three warpgroups have registers for {sizes} of queries and of values"
    if keys > most_keys_in_order(plan):
        return "accumulators, scores and weights need more registers than a thread has"
    if keys > most and plan.span is not None:
        return "tiles of so many keys waste too many at the edges of a window"
    shape = HopperShape.of(plan, config)
    if shape.named_barriers > NAMED_BARRIERS:
        return f"{shape.named_barriers} named barriers; {NAMED_BARRIERS} are free"
    more = config.replace(BLOCK_N=most, num_stages=2)
    fits = shared_bytes(plan, more, target) <= target.shared_per_block
    if plan.span is None and fits and keys < most and not three:
        return "as many keys as fit are best, except at the edges of a window"
    if _in_small_window(plan) and (shape.ping_pong or stages > 2 or rows > 2 * ROWS):
        return "a window of a few tiles is over before these matter"
    if stages not in ((2, 3) if keys < most else (2,)):
        return "two tiles of keys are in flight, or three smaller ones"
    if needed := _packing(plan, shape.pack, rows, problem):
        return needed
    if problem is not None and shape.heads_together not in _together(plan, problem):
        return "fewer heads side by side share the L2 cache badly, and more do not fit into it"
    return target.why_too_large(shared_bytes(plan, config, target))


def preferences(plan: ForwardPlan, target: Target, problem: Problem | None) -> list[Config]:
    """What a default is taken from, best first: several loops over keys, and scores that are more than scaled products,
    are too much for the registers of three warpgroups."""
    if why_not(plan, target) or _in_small_window(plan):
        return []
    together = 8 if plan.unbalanced else 1
    if plan.unbalanced and problem is not None:
        together = _heads_in_cache(plan, problem)
    dense = plan.span is None
    even = dense and not plan.unbalanced
    queries = math.inf if problem is None else problem.seq_q
    best: list[Config] = []
    pack = math.gcd(plan.kind.heads.group, MOST_PACKED)
    wide = not plan.kind.quantised and query_width(plan) > THREE_WARPGROUPS[128]
    if not dense and pack > 1 and wide and len(plan.loops) == 1:
        # Heads of a group in one tile: it spans fewer queries, and so fewer keys.
        rows, stages = (192, 3) if _keys_of_three(plan) else (128, 2)
        best.append(_preference(rows, 64, PACK_HEADS=pack, HEADS_TOGETHER=together, num_stages=stages))
    if _keys_of_three(plan) == most_keys(plan):
        long = queries > (SHORT // 4 if even else SHORT)
        if long and len(plan.loops) == 1 and plan.plain_scores:
            best.append(_preference(192, 128, HEADS_TOGETHER=together, PING_PONG=dense))
        best.append(_preference(128, 128, HEADS_TOGETHER=together, PING_PONG=dense))
    elif value_width(plan) <= WIDE_VALUES:
        turns = dense or query_width(plan) > WIDE_VALUES
        if plan.kind.quantised and dense and plan.plain_scores and queries > (SHORT // 4 if even else SHORT):
            best.append(_preference(128, most_keys_in_order(plan), HEADS_TOGETHER=together, PING_PONG=True))
        best.append(_preference(128, 128, HEADS_TOGETHER=together, PING_PONG=turns))
    return [*best, _preference(128, 64, HEADS_TOGETHER=together)]


def shared_bytes(plan: ForwardPlan, config: Config, target: Target) -> int:
    """Shared memory of a program: queries, results, and the stages of keys and values."""
    return HopperShape.of(plan, config).shared_bytes(plan)


HOPPER = Family(("hopper",), why_not, parameters, feasible, preferences, shared_bytes)


def _preference(block_m: int, block_n: int, **values: Value) -> Config:
    return Config(
        **{
            "schedule": "hopper",
            "BLOCK_M": block_m,
            "BLOCK_N": block_n,
            "num_warps": 4,
            "num_stages": 2,
            "PACK_HEADS": 1,
            "HEADS_TOGETHER": 1,
            "PING_PONG": False,
            **values,
        }
    )


def _three_warpgroups(plan: ForwardPlan) -> dict[int, int]:
    """Keys of a tile, and columns beside them that three warpgroups have registers for; FP8 needs more of them."""
    return {128: THREE_WARPGROUPS[128]} if plan.kind.quantised else THREE_WARPGROUPS


def _keys_of_three(plan: ForwardPlan) -> int:
    """The most keys of a tile that three warpgroups have registers for; 0 where there are none."""
    columns = max(query_width(plan), value_width(plan))
    return max((keys for keys, most in _three_warpgroups(plan).items() if columns <= most), default=0)


def _in_small_window(plan: ForwardPlan) -> bool:
    return plan.span is not None and sum(plan.span) <= SMALL_WINDOW


def _together(plan: ForwardPlan, problem: Problem) -> set[int]:
    """Heads worth running side by side: so many that their longest tiles come first and their keys stay in the L2
    cache; where tiles are of one length, one head, those that share keys, or as many as the cache holds."""
    fitting = _heads_in_cache(plan, problem)
    if plan.unbalanced:
        return {8, fitting, max(fitting // 2, 1)}
    return {1, 8, plan.kind.heads.group} if plan.span is not None else {1, 8, fitting}


def _heads_in_cache(plan: ForwardPlan, problem: Problem) -> int:
    """A power of two of query heads whose keys and values fit into a part of the L2 cache."""
    columns = plan.kind.head_dim.qk + plan.kind.head_dim.v
    fitting = L2_BYTES // (problem.seq_k * columns * ELEMENT_BYTES[plan.kind.dtype]) * plan.kind.heads.group
    return 2 ** min(max(fitting, 1).bit_length() - 1, 5)


def _packing(plan: ForwardPlan, pack: int, rows: int, problem: Problem | None) -> str | None:
    """Heads share a tile where queries are few; of windows and triangles, so that a tile spans fewer queries."""
    group = plan.kind.heads.group
    if group % pack or ROWS % pack:
        return f"{pack} heads do not divide the group of {group} or a warpgroup's rows"
    few = problem is not None and problem.seq_q <= FEW_QUERIES
    if problem is not None and problem.seq_q * pack <= rows // 2:
        return "more than half of every tile would be padding"
    if pack == 1 or few:
        return None
    if plan.span is None and not plan.unbalanced:
        return f"heads are packed for at most {FEW_QUERIES} queries, or where a tile of fewer queries sees fewer keys"
    return None if pack == math.gcd(group, MOST_PACKED) else "one head, or as many of the group as fit"
