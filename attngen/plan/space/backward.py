"""The tunables of the kernels of a backward pass: Triton for any GPU."""

from __future__ import annotations

from itertools import product

from attngen.config import Config
from attngen.plan.backward import BackwardPlan
from attngen.plan.space.common import (
    Family,
    Parameter,
    has_tma,
    query_width,
    splits_keys,
    value_width,
    why_not_in_blocks,
)
from attngen.plan.work import ELEMENT_BYTES
from attngen.problem import Problem, next_power_of_two
from attngen.spec.nodes import Tensor, walk
from attngen.spec.reads import dependence
from attngen.target import Target

REGISTERS = 255  # of a thread
BLACKWELL = 100
RESERVED_SHARED = 1024  # bytes for barriers and reductions
MOST_NUMBERS = 64  # of a row's two tensors, in each thread

Tiles = tuple[int, int, int, int]  # BLOCK_M, BLOCK_N, num_warps, num_stages


def _nothing(plan: BackwardPlan, target: Target) -> str | None:
    return None


def parameters(plan: BackwardPlan, target: Target) -> tuple[Parameter, ...]:
    """The tunables with their choices."""
    full_precision = plan.kind.dtype == "float32"
    return (
        Parameter("schedule", ("portable",)),
        Parameter("BLOCK_M", (16, 32) if full_precision else (16, 32, 64, 128)),
        Parameter("BLOCK_N", (16, 32) if full_precision else (16, 32, 64, 128)),
        Parameter("num_warps", (4, 8)),
        Parameter("num_stages", (1, 2) if target.backend == "hip" else (1, 2, 3)),
    )


def feasible(plan: BackwardPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    """None when ``config`` is worth compiling, else why it is not."""
    queries, keys, warps = (int(config[name] or 0) for name in ("BLOCK_M", "BLOCK_N", "num_warps"))
    rows, columns = (keys, queries) if plan.by_key else (queries, keys)
    full_precision = plan.kind.dtype == "float32"
    if reason := why_not_in_blocks(plan, rows):
        return reason
    if full_precision:
        if rows * columns < 32 * warps * 2:
            return "tile smaller than its warps"
    elif plan.kind.blocks is None and rows < (least := 8 * warps if splits_keys(target) else 64):
        return f"{warps} warps need at least {least} rows"
    scores = columns * 2.5  # s and ds in float32, and one of them as an operand
    if rows * (_accumulated(plan) + scores) / (32 * warps) > REGISTERS + 1:
        return "accumulators and scores need more registers than a thread has"
    return target.why_too_large(shared_bytes(plan, config, target))


def preferences(plan: BackwardPlan, target: Target, problem: Problem | None) -> list[Config]:
    """What a default is taken from, best first."""
    wide, by_key = max(query_width(plan), value_width(plan)), plan.by_key
    if plan.kind.dtype == "float32":
        tiles: list[Tiles] = [(32, 32, 4, 1), (16, 32, 4, 1), (32, 16, 4, 1), (16, 16, 4, 1)]
    elif target.backend == "hip":
        tiles = [(64, 64, 4, 1), (32, 64, 4, 1), (64, 32, 4, 1), (32, 32, 4, 1), (16, 64, 4, 1)]
    elif by_key and wide <= 128 and target.arch == BLACKWELL and plan.kind.heads.group > 1:
        tiles = [(32, 64, 4, 1), (32, 64, 8, 1)]  # sums go from head to head: with more stages they are spilled
    elif by_key and wide <= 128 and splits_keys(target):
        tiles = [(32, 128, 8, 2) if wide <= 64 else (32, 64, 4, 2), (32, 64, 4, 2)]
    elif wide <= 128 and _gathers(plan):  # with more stages, what is loaded ahead takes registers
        tiles = [(64, 64, 4, 1) if by_key and wide <= 64 else (64, 128, 8, 1) if by_key else (128, 64, 8, 1)]
    elif wide <= 64:
        tiles = [(64, 64, 4, 2 if by_key else 3), (64, 64, 4, 2)]
    elif wide <= 128 and by_key:
        tiles = [(64, 128, 8, 2), (32, 64, 4, 2)]
    elif wide <= 128:
        tiles = [(128, 64, 8, 3), (128, 64, 8, 2), (64, 32, 4, 2)]
    elif by_key:
        tiles = [(16, 64, 8, 2), (32, 64, 8, 2), (32, 64, 8, 1), (16, 64, 8, 1)]
    else:
        tiles = [(128, 32, 8, 2), (64, 32, 8, 2), (64, 32, 8, 1)]
    narrow: list[Tiles] = [(64, 16, 4, 1), (16, 64, 4, 1), (16, 64, 8, 1), (64, 16, 8, 1)]
    narrow += [] if plan.kind.blocks is None else [(32, 32, 4, 1), (16, 32, 4, 1), (32, 16, 4, 1), (16, 16, 4, 1)]
    return [_config(*tile) for tile in tiles + narrow]


def _gathers(plan: BackwardPlan) -> bool:
    """Whether each element of a tile reads tensors of the call's, or each query where a program goes over queries."""
    trees = [expression.tree for expression in (plan.kind.score, plan.kind.mask) if expression is not None]
    apart = ("distance", "both", "query") if plan.by_key else ("distance", "both")
    found = (node for tree in trees for node in walk(tree) if isinstance(node, Tensor))
    return any(dependence(read).positions in apart for read in found)


def _config(block_m: int, block_n: int, warps: int, stages: int) -> Config:
    return Config(schedule="portable", BLOCK_M=block_m, BLOCK_N=block_n, num_warps=warps, num_stages=stages)


def _accumulated(plan: BackwardPlan) -> int:
    """Columns of what a row of a tile sums up."""
    widths = {"backward_kv": query_width(plan) + value_width(plan), "backward_q": query_width(plan)}
    return widths.get(plan.kernel, 0)


def shared_bytes(plan: BackwardPlan, config: Config, target: Target) -> int:
    """Shared memory a program needs, about: the tile it keeps, and the stages of those it goes over."""
    queries, keys, stages = (int(config[name] or 0) for name in ("BLOCK_M", "BLOCK_N", "num_stages"))
    kept, passing = (keys, queries) if plan.by_key else (queries, keys)
    if target.backend == "hip":
        kept, stages = 0, max(stages - 1, 1)
    width = query_width(plan) + value_width(plan)
    scores = 0 if has_tma(target) else queries * keys  # as an operand of the next product
    return ((kept + passing * stages) * width + scores) * ELEMENT_BYTES[plan.kind.dtype] + RESERVED_SHARED


def _row_parameters(plan: BackwardPlan, target: Target) -> tuple[Parameter, ...]:
    return (
        Parameter("schedule", ("portable",)),
        Parameter("BLOCK_M", (8, 16, 32, 64, 128)),
        Parameter("num_warps", (2, 4, 8)),
        Parameter("num_stages", (1,)),
    )


def _rows_feasible(plan: BackwardPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    threads = target.warp_size * int(config["num_warps"] or 1)
    numbers = 2 * next_power_of_two(value_width(plan)) * int(config["BLOCK_M"] or 0) // threads
    return None if 4 <= numbers <= MOST_NUMBERS else f"{numbers} numbers a thread; 4 to {MOST_NUMBERS} do"


def _row_preferences(plan: BackwardPlan, target: Target, problem: Problem | None) -> list[Config]:
    return [
        Config(schedule="portable", BLOCK_M=rows, num_warps=warps, num_stages=1)
        for rows, warps in product((16, 32, 64, 8, 128), (4, 8, 2))
    ]


PORTABLE = Family(("portable",), _nothing, parameters, feasible, preferences, shared_bytes)
ROWS = Family(("portable",), _nothing, _row_parameters, _rows_feasible, _row_preferences, lambda *_: 0)
