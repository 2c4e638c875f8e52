"""How long a config of a backward pass's kernel should take: the forward pass's model with what these kernels do.

Unlike the forward pass's constants, what a score costs here has been fitted to no timings: counts of operations. Whole
backward passes of six kinds took an H100 0.97 to 1.2 times what comes out for their default configs.
"""

from __future__ import annotations

from attngen.config import Config
from attngen.plan.backward import BackwardPlan
from attngen.plan.backward_work import backward_tile_work, kernel_bytes
from attngen.plan.boxes import is_gluon
from attngen.plan.chunks import held_width
from attngen.plan.space import shared_bytes
from attngen.plan.work import ELEMENT_BYTES, TileWork
from attngen.problem import Problem
from attngen.target import Target
from attngen.tuner.bench import Compiled
from attngen.tuner.cost_model import (
    COLUMN_MASK_OPS,
    L2_SHARE,
    LANES,
    MASK_OPS,
    PIPELINED,
    PROGRAM_SECONDS,
    WAIT_SECONDS,
    Residency,
    TileCosts,
    shared_residency,
    spread_seconds,
    triton_matrix_share,
)

SCORE_OPS = 5  # on a score besides its exponential: scale and subtract, dP - delta, times P, to 16 bits
OTHER_OPERAND_OPS = 1  # of kernels over blocks of keys, which have P to 16 bits too
SUM_BYTES = 4  # of a sum in float32
SPILL_PENALTY = 0.0002  # of the time, for each byte: on an H100 680 of them cost less than a tile half as large


def estimate_backward_ms(
    plan: BackwardPlan, config: Config, problem: Problem, target: Target, compiled: Compiled | None = None
) -> float:
    """Milliseconds of one call; ``compiled`` sharpens what is known of occupancy and spills."""
    if plan.kernel == "backward_rows":
        seconds = _rows_seconds(plan, config, problem, target)
    else:
        work = backward_tile_work(plan, config, problem)
        resident = _residency(plan, config, target, compiled)
        passing = _tile(plan, config)[1] * held_width(plan.qk_chunks + plan.v_chunks) * ELEMENT_BYTES[plan.kind.dtype]
        if plan.kernel == "backward_fused":  # dq, which is added to in memory
            passing += int(config["BLOCK_M"] or 0) * held_width(plan.qk_chunks) * SUM_BYTES
        seconds = max(
            spread_seconds(_tile_costs(plan, config, target, work), work, resident, target, _overlap(config)),
            work.bytes / target.memory_bandwidth,
            (work.tiles_masked + work.tiles_full) * passing / (L2_SHARE * target.memory_bandwidth),
        )
    spills = compiled.spills if compiled is not None and not is_gluon(config) else 0  # Gluon's are outside the loops
    return (target.launch_overhead + seconds * (1 + SPILL_PENALTY * spills)) * 1e3


def _rows_seconds(plan: BackwardPlan, config: Config, problem: Problem, target: Target) -> float:
    """Each program loads its rows once and ends: bandwidth, or as many beginnings as an SM has room for."""
    rows, warps = int(config["BLOCK_M"] or 1), int(config["num_warps"] or 4)
    programs = -(-problem.seq_q // rows) * problem.batch * plan.kind.heads.query
    at_once = target.sms * (target.max_threads_per_sm // (warps * target.warp_size))
    moved = kernel_bytes(plan, problem)
    return max(moved / target.memory_bandwidth, programs * PROGRAM_SECONDS / at_once)


def _tile_costs(plan: BackwardPlan, config: Config, target: Target, work: TileWork) -> TileCosts:
    tiles = max(1, work.tiles_masked + work.tiles_full)
    share = 1.0 if is_gluon(config) else triton_matrix_share(*_tile(plan, config), target)
    rate = target.peak_flops(plan.kind.dtype) * share / target.sms
    operations = SCORE_OPS + (COLUMN_MASK_OPS if is_gluon(config) else MASK_OPS) * work.tiles_masked / tiles
    operations += OTHER_OPERAND_OPS if plan.by_key else 0
    exponentials = work.exps / tiles / (target.exp2_per_clock * target.clock)
    vector = work.exps / tiles * operations / (LANES * target.clock)
    return TileCosts(
        products=work.flops / tiles / rate,
        softmax=max(exponentials, vector) + 0.5 * min(exponentials, vector),
        waiting=WAIT_SECONDS / int(config["num_stages"] or 1) ** 2,
        start=PROGRAM_SECONDS,
    )


def _overlap(config: Config) -> float | None:
    """The share of products and of what is done to scores that are done at once, where a schedule sees to that."""
    return PIPELINED if config["schedule"] in ("hopper", "hopper_fused", "hopper_wide") else None


def _residency(plan: BackwardPlan, config: Config, target: Target, compiled: Compiled | None) -> Residency:
    warps = int(config["num_warps"] or 4)
    if compiled is not None:
        return shared_residency(warps, compiled.shared, compiled.registers, target)
    rows, columns = _tile(plan, config)
    summed = held_width(plan.qk_chunks) if plan.gradients else 0
    summed += held_width(plan.v_chunks) if plan.by_key else 0
    held = rows * (summed + 2.5 * columns) / (warps * target.warp_size)
    registers = min(255, round(held) + 40)
    return shared_residency(warps, shared_bytes(plan, config, target), registers, target)


def _tile(plan: BackwardPlan, config: Config) -> tuple[int, int]:
    """What a program keeps and what it goes over: queries and keys, or the other way round where it keeps keys."""
    block_m, block_n = int(config["BLOCK_M"] or 0), int(config["BLOCK_N"] or 0)
    return (block_n, block_m) if plan.by_key else (block_m, block_n)
