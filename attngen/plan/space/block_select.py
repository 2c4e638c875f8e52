"""The tunables of the kernel that selects blocks: tiles of rows and blocks, warps and stages."""

from __future__ import annotations

from itertools import product

from attngen.config import Config
from attngen.plan.block_select import BlockSelectPlan
from attngen.plan.space.common import Family, Parameter
from attngen.problem import Problem
from attngen.target import Target

ROWS = (16, 64, 128)  # queries x heads, of a tile
FEW_ROWS = 32
BLOCKS = (32, 64, 128)  # of a tile
MOST_SCORES = 64  # of a thread, before the heads of a list are summed
MOST_ENTRIES = 40  # of a thread, of lists and of tiles: scores and their blocks, of 64 bits each
LEAST_SCORES = 4
ENTRY_BYTES = 8


def _parameters(plan: BlockSelectPlan, target: Target) -> tuple[Parameter, ...]:
    return (
        Parameter("schedule", ("portable",)),
        Parameter("BLOCK_Q", tuple(sorted({_queries(plan, rows) for rows in ROWS}))),
        Parameter("BLOCK_N", BLOCKS),
        Parameter("num_warps", (4, 8)),
        Parameter("num_stages", (2, 3)),
        *([] if plan.compressed is None else [Parameter("FLATTEN", (False, True))]),
    )


def _feasible(plan: BlockSelectPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    rows, blocks = int(config["BLOCK_Q"] or 0) * plan.padded_heads, int(config["BLOCK_N"] or 0)
    if blocks < plan.listed:
        return f"a tile of {blocks} blocks is shorter than a list of {plan.listed}"
    scores = rows * blocks // (target.warp_size * int(config["num_warps"] or 1))
    if not LEAST_SCORES <= scores <= MOST_SCORES:
        return f"{scores} scores a thread; {LEAST_SCORES} to {MOST_SCORES} are worth trying"
    entries = int(config["BLOCK_Q"] or 0) * (blocks + plan.listed) // (target.warp_size * int(config["num_warps"] or 1))
    if entries > MOST_ENTRIES:
        return f"{entries} entries a thread; {MOST_ENTRIES} fit"
    return target.why_too_large(_shared_bytes(plan, config, target))


def _shared_bytes(plan: BlockSelectPlan, config: Config, target: Target) -> int:
    """Queries once, keys once a stage, entries that warps tell each other; one stage is in registers where loads go
    through them."""
    stages = int(config["num_stages"] or 1) - (target.backend == "hip")
    queries, blocks = int(config["BLOCK_Q"] or 0), int(config["BLOCK_N"] or 0)
    return (queries * plan.padded_heads + stages * blocks) * plan.row_bytes + ENTRY_BYTES * queries * blocks


def _preferences(plan: BlockSelectPlan, target: Target, problem: Problem | None) -> list[Config]:
    """Wide tiles where many heads share keys; of single heads small ones, whose entries fill the registers."""
    few = problem is not None and problem.seq_q * plan.padded_heads <= FEW_ROWS
    summed = plan.padded_heads > 1
    more = {} if plan.compressed is None else {"FLATTEN": False}
    return [
        Config(
            schedule="portable",
            BLOCK_Q=_queries(plan, rows),
            BLOCK_N=blocks,
            num_warps=warps,
            num_stages=stages,
            **more,
        )
        for rows in ((16, 64) if few else (128, 64, 16) if summed else (64, 128, 16))
        for blocks, warps, stages in product((64, 32) if summed else (32, 64), (8, 4) if summed else (4, 8), (3, 2))
    ]


def _queries(plan: BlockSelectPlan, rows: int) -> int:
    return max(rows // plan.padded_heads, 1)


PORTABLE = Family(("portable",), lambda plan, target: None, _parameters, _feasible, _preferences, _shared_bytes)
