"""How long a config should take, reckoned from the plan's work, the compiler's report and the target's rates.

Good enough to rank configs where there is no GPU; never a substitute for measuring. The constants were fitted to
642 timings of 18 problems on an H200: estimates are within a quarter of the times, rank correlations are 0.68 to 0.91,
and the favourite runs at 0.9 or more of the best, but for one window (0.82). It overrates the portable schedule in FP8
and underrates the portable window schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from attngen.config import Config
from attngen.plan.boxes import is_gluon
from attngen.plan.chunks import held_width
from attngen.plan.forward import ForwardPlan
from attngen.plan.hopper_window import HopperWindowShape
from attngen.plan.space import shared_bytes
from attngen.plan.work import ELEMENT_BYTES, TileWork, tile_work
from attngen.problem import Problem
from attngen.target import Target
from attngen.tuner.bench import Compiled

PROGRAM_SECONDS = 2.3e-6  # to start a program, load its queries and first keys, and store its result
WAIT_SECONDS = 0.4e-6  # for one tile's loads when nothing was prefetched
SOFTMAX_OPS = 6  # vector operations on a score besides its exponential
RESCALE_OPS = 3.5  # on each accumulator, once a tile
MASK_OPS = 8  # more of them where the mask is applied
LANES = 128  # float32 operations an SM starts each clock
L2_SHARE = 3.0  # L2 bandwidth over DRAM's
SPILL_PENALTY = 0.002  # of the time, for each byte spilled
BARRIER_BYTES = 1024  # of shared memory that each program takes besides its own
# Kernels whose warps have roles: nothing else runs on their SM, softmax runs beside the next tile's products, and a
# persistent program loads the next queries while it stores a result.
PIPELINED = 0.85  # share of softmax and products that overlap
NEXT_SECONDS = 1e-6  # to begin and end a tile of queries in a persistent program
WINDOW_SECONDS = 0.6e-6  # where queries come and results leave while other heads and programs compute
COLUMN_MASK_OPS = 4  # MASK_OPS of kernels whose masks compare constant columns
RARE_RESCALE_OPS = 0.5


@dataclass(frozen=True)
class Residency:
    """How programs share an SM."""

    programs: int
    warps: int


def estimate_ms(
    plan: ForwardPlan, config: Config, problem: Problem, target: Target, compiled: Compiled | None = None
) -> float:
    """Milliseconds of one call; ``compiled`` sharpens what is known of occupancy and spills."""
    work = tile_work(plan, config, problem)
    if config.get("schedule") == "hopper_window":  # one program goes over all heads of a group
        shape = HopperWindowShape.of(plan, config)
        work = replace(work, programs=shape.programs(problem.batch, plan.kind.heads.kv, problem.seq_q))
    resident = residency(plan, config, target, compiled)
    seconds = max(
        _compute_seconds(plan, config, target, work, resident),
        work.bytes / target.memory_bandwidth,
        _l2_bytes(plan, config, work) / (L2_SHARE * target.memory_bandwidth),
    )
    spills = compiled.spills if compiled is not None and not is_gluon(config) else 0  # Gluon's are outside the loops
    return (target.launch_overhead + seconds * (1 + SPILL_PENALTY * spills)) * 1e3


def residency(plan: ForwardPlan, config: Config, target: Target, compiled: Compiled | None) -> Residency:
    """Programs that one SM holds at once."""
    if config.get("schedule") == "hopper_window":
        warps, shared = 4 * int(config["WARPGROUPS"] or 1), shared_bytes(plan, config, target)
        held = int(config["maxnreg"] or target.registers_per_thread) * warps * target.warp_size
        return Residency(max(1, min(target.shared_per_sm // shared, target.registers_per_sm // held)), warps)
    if is_gluon(config):
        return Residency(1, int(config["BLOCK_M"] or 0) // 16)  # warpgroups of 64 rows; they take all registers
    warps = int(config["num_warps"] or 4)
    threads = warps * target.warp_size
    shared = compiled.shared if compiled is not None else shared_bytes(plan, config, target)
    registers = compiled.registers if compiled is not None else _registers_guess(plan, config, threads)
    return shared_residency(warps, shared, registers, target)


def shared_residency(warps: int, shared: int, registers: int, target: Target) -> Residency:
    """Programs that an SM holds, limited by shared memory, registers and threads."""
    threads = warps * target.warp_size
    programs = min(
        target.shared_per_sm // (shared + BARRIER_BYTES),
        target.registers_per_sm // (-(-max(registers, 24) // 8) * 8 * threads),
        target.max_threads_per_sm // threads,
    )
    return Residency(max(1, programs), warps)


def _registers_guess(plan: ForwardPlan, config: Config, threads: int) -> int:
    """Accumulators and a tile of scores, twice: as float32 and as operands; and addresses."""
    block_m, block_n = int(config["BLOCK_M"] or 0), int(config["BLOCK_N"] or 0)
    values = held_width(plan.v_chunks)
    return min(255, round(block_m * (values + 1.5 * block_n) / threads) + 40)


def _compute_seconds(plan: ForwardPlan, config: Config, target: Target, work: TileWork, resident: Residency) -> float:
    """Programs run in waves over the SMs; matrix products and softmax overlap as far as other warps are there."""
    tiles = max(1, work.tiles_masked + work.tiles_full)
    scores = int(config["BLOCK_M"] or 0) * int(config["BLOCK_N"] or 0)
    math_rate = target.peak_flops(plan.kind.dtype) * _matrix_share(config, target) / target.sms
    products = work.flops / tiles / math_rate
    masked = work.tiles_masked / tiles
    exponentials = work.exps / tiles / (target.exp2_per_clock * target.clock)
    rescaled = int(config["BLOCK_M"] or 0) * held_width(plan.v_chunks)
    rescaling = (RARE_RESCALE_OPS if is_gluon(config) else RESCALE_OPS) * rescaled
    masking = COLUMN_MASK_OPS if is_gluon(config) else MASK_OPS
    vector = (scores * (SOFTMAX_OPS + masking * masked) + rescaling) / (LANES * target.clock)
    softmax = max(exponentials, vector) + 0.5 * min(exponentials, vector)

    piped = PIPELINED if config.get("schedule") == "hopper" else None
    costs = TileCosts(products, softmax, WAIT_SECONDS / int(config["num_stages"] or 1) ** 2, _start_seconds(config))
    return spread_seconds(costs, work, resident, target, piped)


@dataclass(frozen=True)
class TileCosts:
    """Seconds of an SM that has nothing else to do: of one tile, and to begin and end a program."""

    products: float
    softmax: float
    waiting: float
    start: float


def spread_seconds(
    costs: TileCosts, work: TileWork, resident: Residency, target: Target, overlap: float | None = None
) -> float:
    """Of all programs, over the chip. ``overlap`` is the share of products and softmax that are done at once; other
    warps of an SM make for it where a schedule does not."""
    if overlap is None:
        others = resident.programs * resident.warps / 4 - 1  # groups of four warps that can fill a gap
        overlap = others / (others + 1)
    tiles = max(1, work.tiles_masked + work.tiles_full)
    products, softmax = costs.products, costs.softmax
    tile = max(products, softmax) + (1 - overlap) * min(products, softmax)
    per_program = costs.start + costs.waiting * tiles / work.programs

    busy = tiles * tile / target.sms + work.programs * per_program / (target.sms * resident.programs)
    alone = work.longest * (products + softmax + costs.waiting) + costs.start
    waves = work.programs / (target.sms * resident.programs)
    equal = work.longest * work.programs <= 1.2 * tiles
    uneven = math.ceil(waves) / waves if equal else 1.0 + 0.5 / max(waves, 0.5)
    return max(alone, busy * min(uneven, 2.0))


def _start_seconds(config: Config) -> float:
    """To begin and end a tile of queries."""
    if config.get("schedule") == "hopper_window":
        return WINDOW_SECONDS
    if config.get("schedule") == "hopper":
        return NEXT_SECONDS
    return PROGRAM_SECONDS


def _matrix_share(config: Config, target: Target) -> float:
    """Share of the matrix units' rate that a tile shape reaches."""
    if is_gluon(config):
        return 1.0  # the target's rate is measured, and so near do asynchronous products come
    return triton_matrix_share(int(config["BLOCK_M"] or 0), int(config["BLOCK_N"] or 0), target)


def triton_matrix_share(rows: int, columns: int, target: Target) -> float:
    """The same of a product of so many rows and columns, as Triton makes it."""
    filled = min(1.0, rows / 64) if target.arch in (90, 100) else min(1.0, rows / 32)
    return 0.9 * (0.5 + 0.5 * filled) * (columns / (columns + 8))


def _l2_bytes(plan: ForwardPlan, config: Config, work: TileWork) -> float:
    """Keys and values are read again for every tile of queries."""
    widths = held_width(plan.qk_chunks + plan.v_chunks)
    tile = int(config["BLOCK_N"] or 0) * widths * ELEMENT_BYTES[plan.kind.dtype]
    return float((work.tiles_masked + work.tiles_full) * tile)
