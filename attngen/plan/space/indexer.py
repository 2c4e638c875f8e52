"""The tunables of an indexer's logits: portable, and Gluon for sm_90."""

from __future__ import annotations

from itertools import product

from attngen.config import Config
from attngen.plan import indexer_hopper
from attngen.plan.indexer import IndexerPlan
from attngen.plan.indexer_hopper import OVERLAPPED_HEADS, IndexerShape, overlaps
from attngen.plan.space.common import Family, Parameter, is_hopper, why_no_float8
from attngen.problem import Problem
from attngen.target import Target

COLUMNS = (64, 128, 256)  # queries x heads, of a tile
WIDE = 128  # columns of a product that reads less of shared memory than it could
MOST_PRODUCTS = 128  # registers of a thread
FEW_PROGRAMS_QUERIES = 32  # fewer queries are one tile or few


def why_not(plan: IndexerPlan, target: Target) -> str | None:
    """Why no kernel can run ``plan`` on ``target``; None where some can."""
    return why_no_float8(target) if plan.scaled else None


def why_not_hopper(plan: IndexerPlan, target: Target) -> str | None:
    return None if is_hopper(target) else f"it is made for sm_90, and {target.name} is {target.arch_name}"


def _queries(plan: IndexerPlan) -> tuple[int, ...]:
    return tuple(sorted({max(columns // plan.padded_heads, 1) for columns in COLUMNS}))


def _stages(plan: IndexerPlan) -> tuple[int, ...]:
    """Tiles of keys in shared memory beside queries, on Hopper."""
    return (8,) if plan.element_bytes == 1 else (4,)


def _portable_parameters(plan: IndexerPlan, target: Target) -> tuple[Parameter, ...]:
    return (
        Parameter("schedule", ("portable",)),
        Parameter("BLOCK_Q", _queries(plan)),
        Parameter("BLOCK_N", (64, 128)),
        Parameter("num_warps", (4, 8)),
        Parameter("num_stages", (2, 3)),
    )


def _portable_feasible(plan: IndexerPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    if reason := why_not(plan, target):
        return reason
    columns = int(config["BLOCK_Q"] or 0) * plan.padded_heads
    products = columns * int(config["BLOCK_N"] or 0) // (32 * int(config["num_warps"] or 1))
    if products > MOST_PRODUCTS:
        return f"{products} registers of products a thread; {MOST_PRODUCTS} fit"
    if products < 16:
        return "too little work for so many warps"
    return target.why_too_large(_portable_shared(plan, config, target))


def _portable_shared(plan: IndexerPlan, config: Config, target: Target) -> int:
    """Queries once, keys once a stage; one stage is in registers where loads go through them."""
    stages = int(config["num_stages"] or 1) - (target.backend == "hip")
    rows = int(config["BLOCK_Q"] or 0) * plan.padded_heads + stages * int(config["BLOCK_N"] or 0)
    return rows * plan.width * plan.element_bytes


def _portable_preferences(plan: IndexerPlan, target: Target, problem: Problem | None) -> list[Config]:
    """Few columns where products take their operands from registers: queries stay there."""
    few = problem is not None and problem.seq_q * plan.padded_heads <= COLUMNS[0]
    widths = (64,) if few or target.arch == 80 or target.backend == "hip" else (128, 64)
    return [
        Config(schedule="portable", BLOCK_Q=queries, BLOCK_N=block_n, num_warps=warps, num_stages=stages)
        for queries in (max(width // plan.padded_heads, 1) for width in widths)
        for (block_n, warps), stages in product(_tiles(queries, queries * plan.padded_heads, target), (3, 2))
    ]


def _tiles(queries: int, columns: int, target: Target) -> tuple[tuple[int, int], ...]:
    """Keys and warps: products of a whole tile leave registers for little else, unless they come from wgmma."""
    crowded = columns >= MOST_PRODUCTS and (not is_hopper(target) or queries > 8)
    return ((128, 8), (64, 4)) if crowded else ((128, 4), (64, 4))


def _hopper_parameters(plan: IndexerPlan, target: Target) -> tuple[Parameter, ...]:
    return (
        Parameter("schedule", ("hopper",)),
        Parameter("BLOCK_Q", _queries(plan)),
        Parameter("BLOCK_N", (64, 128)),
        Parameter("num_warps", (4,)),
        Parameter("num_stages", _stages(plan)),
        Parameter("WARPGROUPS", (2, 3, 4)),
        Parameter("OVERLAP", (False, True)),
        Parameter("MIXED", (False, True)),
        Parameter("PERSISTENT", (False, True)),
    )


def _hopper_feasible(plan: IndexerPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    if reason := why_not_hopper(plan, target) or indexer_hopper.why_not(plan, config):
        return reason
    shape = IndexerShape.of(plan, config)
    if shape.warpgroups > 2 and shape.columns < WIDE:
        return "narrow products read shared memory more than they multiply, and more warpgroups read more of it"
    if not config["PERSISTENT"] and shape.accumulators < MOST_PRODUCTS:
        return "products so small do not make up for how long a program takes to begin"
    if shape.mixed and shape.accumulators < MOST_PRODUCTS and shape.warpgroups < 4:
        return "sums of so few products keep no pipe busy"
    if shape.accumulators < MOST_PRODUCTS // 2 and problem is not None and problem.seq_q > 32:
        return "so few products hide no latency"
    return target.why_too_large(shape.shared_bytes(plan))


def _hopper_shared(plan: IndexerPlan, config: Config, target: Target) -> int:
    return IndexerShape.of(plan, config).shared_bytes(plan)


def _hopper_preferences(plan: IndexerPlan, target: Target, problem: Problem | None) -> list[Config]:
    """Products as wide as can be, for which shared memory is read least; of few heads, whose sums are many, less."""
    queries = reversed(_queries(plan) if plan.padded_heads >= OVERLAPPED_HEADS else _queries(plan)[:-1])
    if problem is not None and problem.seq_q <= FEW_PROGRAMS_QUERIES:
        queries = iter([q for q in _queries(plan) if 2 * q <= problem.seq_q][-1:] or _queries(plan)[:1])
    return [
        Config(
            schedule="hopper",
            BLOCK_Q=block_q,
            BLOCK_N=block_n,
            num_warps=4,
            num_stages=stages,
            WARPGROUPS=2,
            OVERLAP=overlaps(plan, block_q, block_n) and (plan.scaled or not plan.clean),
            MIXED=False,
            PERSISTENT=True,
        )
        for block_q in queries
        for block_n, stages in product((128, 64), _stages(plan))
    ]


PORTABLE = Family(
    ("portable",), why_not, _portable_parameters, _portable_feasible, _portable_preferences, _portable_shared
)
HOPPER = Family(("hopper",), why_not_hopper, _hopper_parameters, _hopper_feasible, _hopper_preferences, _hopper_shared)
