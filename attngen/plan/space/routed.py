"""The tunables of the kernel that attends to chosen blocks: Triton for any GPU."""

from __future__ import annotations

from attngen.config import Config
from attngen.plan.routed import RoutedPlan
from attngen.plan.space.common import (
    Family,
    Parameter,
    has_tma,
    query_width,
    rows_are_aligned,
    splits_keys,
    value_width,
)
from attngen.plan.work import ELEMENT_BYTES
from attngen.problem import Problem, next_power_of_two
from attngen.target import Target

REGISTERS = 255  # of a thread
RESERVED_SHARED = 1024  # bytes for barriers and reductions
MOST_ROWS = 128  # of a tile: of one row of a list, it holds all heads


def why_not(plan: RoutedPlan, target: Target) -> str | None:
    """Why no config can run ``plan`` on ``target``; None where some can."""
    if plan.heads_of_list > MOST_ROWS:
        return f"{plan.heads_of_list} heads share a list; tiles have up to {MOST_ROWS} rows"
    return None


def parameters(plan: RoutedPlan, target: Target) -> tuple[Parameter, ...]:
    """The tunables with their choices."""
    full_precision = plan.kind.dtype == "float32"
    return (
        Parameter("schedule", ("portable",)),
        Parameter("BLOCK_M", (16, 32, 64, 128) if full_precision else (32, 64, 128)),
        Parameter("BLOCK_N", (16, 32) if full_precision else (32, 64, 128)),
        Parameter("num_warps", (4, 8)),
        Parameter("num_stages", (1, 2) if target.backend == "hip" else (1, 2, 3)),
        Parameter("loads", ("pointer", "descriptor") if has_tma(target) and not full_precision else ("pointer",)),
    )


def feasible(plan: RoutedPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    """None when ``config`` is worth compiling, else why it is not."""
    if reason := why_not(plan, target):
        return reason
    rows, keys, warps, stages = (int(config[name] or 0) for name in ("BLOCK_M", "BLOCK_N", "num_warps", "num_stages"))
    full_precision = plan.kind.dtype == "float32"
    if rows < plan.heads_of_list:
        return f"{rows} rows for the {plan.heads_of_list} heads of a list"
    if keys > max(next_power_of_two(plan.select.size), 32):
        return f"{keys} keys of blocks of {plan.select.size}"
    if full_precision and rows * keys < 2 * 32 * warps:
        return "tile smaller than its warps"
    if not full_precision and rows < (8 if splits_keys(target) else 16) * warps:
        return f"{warps} warps share {rows} rows"
    scores = keys * (2 if full_precision else 1.5) + (query_width(plan) if full_precision else 0)
    if rows * (value_width(plan) + scores) / (target.warp_size * warps) > REGISTERS + 1:
        return "accumulators and scores need more registers than a thread has"
    if config["loads"] == "descriptor":
        if not (has_tma(target) and rows_are_aligned(plan)):
            return "the copy engine needs sm_90 or sm_100 and rows of a multiple of 16 bytes"
        if plan.select.size % keys:
            return f"the copy engine takes whole tiles: {keys} keys do not divide blocks of {plan.select.size}"
    elif stages == 1 and has_tma(target) and not full_precision:
        return "pointer loads without a pipeline never win where there is a copy engine"
    return target.why_too_large(shared_bytes(plan, config, target))


def preferences(plan: RoutedPlan, target: Target, problem: Problem | None) -> list[Config]:
    """What a default is taken from, best first."""
    wide = max(query_width(plan), value_width(plan))
    described: list[tuple[int, int, int, int]] = []
    if plan.kind.dtype == "float32":
        tiles = [(32, 16, 8, 1), (16, 16, 4, 1), (64, 16, 8, 1), (128, 16, 8, 1)]
    elif target.backend == "hip":
        tiles = [(64, 64, 4, 1), (64, 32, 4, 1), (128, 32, 8, 1)]
    elif has_tma(target):
        described = [(64, 64, 4, 3), (64, 64, 4, 2)] if wide <= 128 else []
        described += [(128, 64, 8, 2), (64, 32, 4, 2), (128, 32, 8, 2)]
        tiles = [(128, 64, 8, 2), (128, 32, 8, 2)]
    else:
        tiles = [(64, 64, 4, 2)] if wide <= 64 else [(128, 32, 8, 2)] if wide <= 128 else [(64, 64, 8, 2)]
        tiles += [(64, 32, 4, 2), (64, 32, 8, 2), (128, 32, 8, 2)]
    return [_config(*tile, "descriptor") for tile in described] + [_config(*tile, "pointer") for tile in tiles]


def _config(rows: int, keys: int, warps: int, stages: int, loads: str) -> Config:
    return Config(schedule="portable", BLOCK_M=rows, BLOCK_N=keys, num_warps=warps, num_stages=stages, loads=loads)


def shared_bytes(plan: RoutedPlan, config: Config, target: Target) -> int:
    """Shared memory that a program needs, about: queries, and the stages of key and value tiles."""
    rows, keys, stages = (int(config[name] or 0) for name in ("BLOCK_M", "BLOCK_N", "num_stages"))
    qk, v = query_width(plan), value_width(plan)
    if target.backend == "hip":
        rows, stages = 0, max(stages - 1, 1)
    return (keys * (qk + v) * stages + rows * qk) * ELEMENT_BYTES[plan.kind.dtype] + RESERVED_SHARED


PORTABLE = Family(("portable",), why_not, parameters, feasible, preferences, shared_bytes)
