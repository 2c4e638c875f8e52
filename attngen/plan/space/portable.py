"""The tunables of the ``portable`` and ``window`` schedules: Triton for any GPU."""

from __future__ import annotations

from attngen.config import Config, Value
from attngen.plan.forward import ForwardPlan
from attngen.plan.space.common import (
    FEW_QUERIES,
    Family,
    Parameter,
    has_tma,
    query_width,
    rows_are_aligned,
    splits_keys,
    value_width,
    why_no_kernel,
    why_not_in_blocks,
)
from attngen.plan.work import ELEMENT_BYTES
from attngen.problem import Problem
from attngen.target import Target

SMALL_WINDOW = 1024  # keys: up to here masking every tile may beat three loops
WINDOW_TILES = 4  # key tiles that the window schedule keeps resident
FLOAT8_KEYS = 32  # at least: 8-bit products are summed so many at a time
REGISTERS = 255  # a thread
RESERVED_SHARED = 1024  # bytes for barriers and reductions


def parameters(plan: ForwardPlan, target: Target) -> tuple[Parameter, ...]:
    """The tunables of both schedules with their choices; most combinations are ruled out by ``feasible``."""
    small = _window_is_small(plan)
    full_precision = plan.kind.dtype == "float32"
    group = plan.kind.heads.group
    packs = tuple(n for n in (1, 2, 4, 8, 16) if group % n == 0)
    return (
        Parameter("schedule", ("portable", "window") if small else ("portable",)),
        Parameter("BLOCK_M", (16, 32, 64) if full_precision else (16, 32, 64, 128, 256)),
        Parameter("BLOCK_N", (16, 32) if full_precision else (32, 64, 128)),
        Parameter("num_warps", (4, 8)),
        Parameter("num_stages", (1, 2, 3)),
        Parameter("loads", ("pointer", "descriptor") if has_tma(target) else ("pointer",)),
        Parameter("PACK_HEADS", packs),
        Parameter("SPLIT_MASKS", (True, False) if small else (True,)),
        Parameter("HEADS_TOGETHER", (1,) if _window_is_small(plan, SMALL_WINDOW // 2) else (1, 8)),
        Parameter("maxnreg", (None, 128, 168) if small and target.backend == "cuda" else (None,)),
    )


def feasible(plan: ForwardPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    """None when ``config`` is worth compiling, else why it is not."""
    if reason := why_no_kernel(plan, target):
        return reason
    for rule in (_shape, _packing, _schedule, _memory):
        if reason := rule(plan, config, target, problem):
            return reason
    return None


def in_core(plan: ForwardPlan, config: Config) -> bool:
    """Whether ``config`` may win beside a schedule made for the target: windows, and the best of dense work."""
    if config["schedule"] == "window":
        return True
    plain = config["loads"] == "descriptor" and config["PACK_HEADS"] == 1 and config["BLOCK_M"] in (64, 128)
    if _window_is_small(plan):
        return plain
    return plain and config["HEADS_TOGETHER"] == (8 if plan.unbalanced else 1) and config["num_stages"] != 1


def preferences(plan: ForwardPlan, target: Target, problem: Problem | None) -> list[Config]:
    """What a default is taken from, best first; then the same for tensors that the copy engine does not take."""
    pack = _useful_pack(plan, problem)
    plain = _preferences(plan, target)
    if plan.kind.blocks is not None:
        plain += [_preference(rows, 32, 4, 2) for rows in (64, 32, 16)]
    configs = [config.replace(PACK_HEADS=pack) for config in plain] + plain if pack > 1 else plain
    return configs + [_without_descriptors(config) for config in configs if config["loads"] == "descriptor"]


def _without_descriptors(config: Config) -> Config:
    stages = int(config["num_stages"] or 1)
    return config.replace(loads="pointer", num_stages=stages if config["schedule"] == "window" else max(stages, 2))


def last_resort(plan: ForwardPlan) -> Config:
    """Fits wherever anything does."""
    block_m, block_n = {"float32": (16, 16), "float8_e4m3": (32, FLOAT8_KEYS)}.get(plan.kind.dtype, (32, 16))
    return _preference(block_m if plan.kind.blocks is None else 16, block_n, 4, 1)


def _preference(block_m: int, block_n: int, warps: int, stages: int, **values: Value) -> Config:
    return Config(
        **{
            "schedule": "portable",
            "BLOCK_M": block_m,
            "BLOCK_N": block_n,
            "num_warps": warps,
            "num_stages": stages,
            "loads": "pointer",
            "PACK_HEADS": 1,
            "SPLIT_MASKS": True,
            "HEADS_TOGETHER": 1,
            "maxnreg": None,
            **values,
        }
    )


def _useful_pack(plan: ForwardPlan, problem: Problem | None) -> int:
    """Heads to share a tile of 64 rows when there are too few queries to fill it."""
    if problem is None:
        return 1
    fitting = [pack for pack in (8, 4, 2) if plan.kind.heads.group % pack == 0 and pack * problem.seq_q <= 64]
    return fitting[0] if fitting else 1


def _preferences(plan: ForwardPlan, target: Target) -> list[Config]:
    width = max(query_width(plan), value_width(plan))
    if plan.kind.dtype == "float32":
        block_m, block_n = (32, 32) if width <= 64 else (16, 32) if width <= 128 else (16, 16)
        return [_preference(block_m, block_n, 4, 1)]
    loads = "descriptor" if has_tma(target) and rows_are_aligned(plan) else "pointer"
    small = _window_is_small(plan, SMALL_WINDOW // 2)
    preferences = []
    if small and plan.kind.heads.group > 1 and (has_tma(target) or target.backend == "hip"):
        preferences.append(_preference(64, 64, 4, 1, schedule="window", loads=loads, SPLIT_MASKS=False))
    if small:
        preferences.append(_preference(64, 64, 4, 1 if loads == "descriptor" else 2, loads=loads, SPLIT_MASKS=False))
    if target.backend == "hip":
        return preferences + ([_preference(64, 64, 4, 1)] if width <= 128 else [_preference(64, 32, 4, 1)])
    if has_tma(target):
        if width <= 64:
            preferences.append(_preference(64, 128, 4, 2, loads=loads))
        if width <= 128:
            preferences.append(_preference(64, 64, 4, 3, loads=loads))
        wide = [_preference(128, 64, 8, 2, loads=loads, HEADS_TOGETHER=8)] if width > 128 else []
        return [*preferences, *wide, _preference(64, 64, 4, 2, loads=loads), _preference(64, 32, 4, 2, loads=loads)]
    if width <= 64:
        preferences.append(_preference(64, 64, 4, 2))
    elif width <= 128:
        preferences.append(_preference(128, 64, 8, 2))
    else:
        preferences += [_preference(64, 64, 8, 2), _preference(64, 32, 8, 2)]
    return [*preferences, _preference(64, 32, 4, 2), _preference(64, 16, 4, 2)]


def _window_is_small(plan: ForwardPlan, most: int = SMALL_WINDOW) -> bool:
    return plan.span is not None and sum(plan.span) <= most


def _shape(plan: ForwardPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    block_m, block_n, warps = config["BLOCK_M"], config["BLOCK_N"], config["num_warps"]
    assert isinstance(block_m, int) and isinstance(block_n, int) and isinstance(warps, int)
    full_precision = plan.kind.dtype == "float32"
    if reason := why_not_in_blocks(plan, block_m):
        return reason
    if full_precision:
        if block_m * block_n < 32 * warps * 2:
            return "tile smaller than its warps"
    elif plan.kind.blocks is None and block_m < (rows := 8 if splits_keys(target) else 16) * warps:
        return f"{warps} warps need at least {rows * warps} rows of {rows} each"
    if plan.kind.quantised and block_n < FLOAT8_KEYS:
        return f"8-bit products are summed {FLOAT8_KEYS} keys at a time"
    if block_m > 64 * warps:
        return f"{warps} warps for {block_m} rows leave no registers"
    width = value_width(plan)
    scores = block_n * (2 if full_precision else 1.5)
    if full_precision:
        scores += query_width(plan)
    if block_m * (width + scores) / (32 * warps) > REGISTERS + 1:
        return "accumulators and scores need more registers than a thread has"
    if problem is not None and config["schedule"] == "portable":
        pack = int(config["PACK_HEADS"] or 1)
        rows = max(16 * 4, min(64, problem.seq_q * pack))
        if block_m // pack > max(rows, 2 * problem.seq_q) and block_m > 64:
            return "more rows than queries"
    if config["loads"] == "descriptor" and not (has_tma(target) and rows_are_aligned(plan)):
        return "the copy engine needs sm_90 or sm_100 and rows of a multiple of 16 bytes"
    unpiped = config["schedule"] == "portable" and config["loads"] == "pointer" and config["num_stages"] == 1
    if unpiped and has_tma(target) and not full_precision:
        return "pointer loads without a pipeline never win where there is a copy engine"
    return None


def _packing(plan: ForwardPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    pack = int(config["PACK_HEADS"] or 1)
    if pack == 1:
        return None
    if plan.kind.blocks is not None:
        return "heads have lists of blocks of their own"
    if plan.kind.heads.group % pack:
        return f"{pack} heads do not divide the group of {plan.kind.heads.group}"
    if config["schedule"] == "window":
        return "the window schedule goes over the heads of a group by itself"
    if int(config["BLOCK_M"] or 0) // pack < 8:
        return "fewer than 8 queries a tile"
    if problem is None or problem.seq_q > FEW_QUERIES:
        return f"heads are packed for at most {FEW_QUERIES} queries"
    return None


def _schedule(plan: ForwardPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    if config["schedule"] == "window":
        if plan.kind.blocks is not None:
            return "the window schedule keeps neighbouring keys, and those of listed blocks are not"
        if plan.span is None:
            return "the window schedule needs a bounded window and nothing beside it"
        if plan.kind.dtype == "float32":
            return "the window schedule keeps scores of all its keys in registers: 16-bit dtypes only"
        tiles = window_tiles(plan, int(config["BLOCK_M"] or 0), int(config["BLOCK_N"] or 0))
        if tiles > WINDOW_TILES:
            return f"{tiles} key tiles are resident; {WINDOW_TILES} fit"
        if config["SPLIT_MASKS"]:
            return "the window schedule masks every tile"
        if int(config["num_stages"] or 1) > (2 if plan.kind.heads.group > 1 else 1):
            return "the window schedule has at most two heads in flight"
        block_m, block_n, warps = (
            int(config["BLOCK_M"] or 0),
            int(config["BLOCK_N"] or 0),
            int(config["num_warps"] or 4),
        )
        if block_m * (tiles * block_n + value_width(plan)) / (32 * warps) > REGISTERS - 32:
            return "scores of all resident keys need more registers than a thread has"
        return None
    if config.get("maxnreg"):
        return "registers are capped in the window schedule, where occupancy decides"
    if not config["SPLIT_MASKS"] and all(loop.always_masked for loop in plan.loops):
        return "every tile is masked already"
    return None


def window_tiles(plan: ForwardPlan, block_m: int, block_n: int) -> int:
    """Key tiles that ``block_m`` neighbouring queries of a bounded window see."""
    assert plan.span is not None
    left, right = plan.span
    return max(-(-(left + right + block_m) // block_n), 1)


def _memory(plan: ForwardPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    return target.why_too_large(shared_bytes(plan, config, target))


def shared_bytes(plan: ForwardPlan, config: Config, target: Target) -> int:
    """Shared memory a program needs, about: stages of key and value tiles, and the queries."""
    element = ELEMENT_BYTES[plan.kind.dtype]
    qk, v = query_width(plan), value_width(plan)
    block_m, block_n, stages = int(config["BLOCK_M"] or 0), int(config["BLOCK_N"] or 0), int(config["num_stages"] or 1)
    if config["schedule"] == "window":
        stages, queries = window_tiles(plan, block_m, block_n), block_m * int(config["num_stages"] or 1)
    else:
        queries = block_m
    if target.backend == "hip":
        stages = max(stages - 1, 1)
        queries = 0
    return (block_n * (qk + v) * stages + queries * qk) * element + RESERVED_SHARED


PORTABLE = Family(("portable", "window"), why_no_kernel, parameters, feasible, preferences, shared_bytes)
