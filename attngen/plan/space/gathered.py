"""The tunables of the kernel that attends to listed keys: Triton for any GPU, and Gluon for sm_90."""

from __future__ import annotations

from attngen.config import Config, Value
from attngen.plan.chunks import held_width
from attngen.plan.gathered import GatheredPlan
from attngen.plan.hopper import BARRIER_BYTES, ROWS
from attngen.plan.space.common import Family, Parameter, is_hopper
from attngen.plan.work import ELEMENT_BYTES
from attngen.problem import Problem, next_power_of_two
from attngen.target import Target

LEAST_HEADS = 16  # rows of a matrix product
HOPPER_RANKS = (128, 256, 512)  # two halves, each a power of two and an accumulator of one warpgroup
EVERY = 0  # turns: all that there are, for as many programs as there are SMs
HOPPER_KEYS = 64  # of a tile; weights of one go where its rope columns were
WIDE = 128  # columns of values: beyond, accumulators leave few registers
REGISTERS = 255  # of a thread
RESERVED_SHARED = 1024  # bytes for reductions


def least_heads(plan: GatheredPlan) -> int:
    """Rows of the smallest tile that holds all heads of a group, or of the largest that is made."""
    return max(next_power_of_two(plan.kind.heads.group), LEAST_HEADS)


def portable_why_not(plan: GatheredPlan, target: Target) -> str | None:
    """None: Triton's kernel runs everywhere."""
    return None


def portable_parameters(plan: GatheredPlan, target: Target) -> tuple[Parameter, ...]:
    """The portable schedule's tunables with their choices."""
    return (
        Parameter("schedule", ("portable",)),
        Parameter("BLOCK_H", tuple(n for n in (16, 32, 64, 128) if n <= least_heads(plan))),
        Parameter("BLOCK_N", (16, 32) if plan.kind.dtype == "float32" or target.backend == "hip" else (32, 64)),
        Parameter("num_warps", (4, 8)),
        Parameter("num_stages", (1, 2) if target.backend == "hip" else (1, 2, 3)),
    )


def portable_feasible(plan: GatheredPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    """None when ``config`` is worth compiling, else why it is not."""
    heads, keys, warps = (int(config[name] or 0) for name in ("BLOCK_H", "BLOCK_N", "num_warps"))
    if heads > least_heads(plan):
        return f"{heads} rows for a group of {plan.kind.heads.group} heads"
    if heads * 4 < min(least_heads(plan), 64):
        return "every key would be loaded four times and more"
    if heads < 32 and warps > 4 and plan.kind.dtype != "float32":
        return f"{warps} warps share {heads} rows"
    if heads * (held_width(plan.v_chunks) + 2 * keys) / (target.warp_size * warps) > REGISTERS:
        return "accumulators and scores need more registers than a thread has"
    return target.why_too_large(portable_shared_bytes(plan, config, target))


def portable_preferences(plan: GatheredPlan, target: Target, problem: Problem | None) -> list[Config]:
    """What a default is taken from, best first: as many heads as fit, for which a key is loaded once."""
    hip, wide = target.backend == "hip", held_width(plan.v_chunks) > WIDE
    many = held_width(plan.v_chunks) >= WIDE and not hip  # accumulators of 64 heads, for 4 warps
    if plan.kind.dtype == "float32":
        return [_portable(BLOCK_H=16, BLOCK_N=16, num_warps=4 if hip else 8, num_stages=1)]
    if hip and wide:
        tiles = [(32, 16, 1), (16, 16, 1)]
    elif wide:
        tiles = [(heads, keys, stages) for heads in (64, 32, 16) for keys, stages in ((32, 3), (32, 2), (32, 1))]
    else:
        tiles = [(heads, 32, 2) if hip else (heads, keys, 3) for heads in (64, 32, 16) for keys in (64, 32)]
    return [
        _portable(BLOCK_H=heads, BLOCK_N=keys, num_warps=8 if many and heads == 64 else 4, num_stages=stages)
        for heads, keys, stages in tiles
        if heads <= least_heads(plan)
    ]


def portable_shared_bytes(plan: GatheredPlan, config: Config, target: Target) -> int:
    """Shared memory that a program needs, about: queries, and the stages of key and value tiles."""
    qk, v = held_width(plan.qk_chunks), 0 if plan.shared_values else held_width(plan.v_chunks)
    heads, keys, stages = (int(config[name] or 0) for name in ("BLOCK_H", "BLOCK_N", "num_stages"))
    if target.backend == "hip":
        return keys * (qk + v) * max(stages - 1, 1) * ELEMENT_BYTES[plan.kind.dtype] + RESERVED_SHARED
    return (heads * qk + keys * (qk + v) * stages + heads * keys) * ELEMENT_BYTES[plan.kind.dtype] + RESERVED_SHARED


def hopper_why_not(plan: GatheredPlan, target: Target) -> str | None:
    """Why no config of this schedule can run ``plan`` on ``target``; None where some can."""
    kind = plan.kind
    if not is_hopper(target):
        return f"{target.name} is {target.arch_name}, and it is made of what only sm_90 has"
    if kind.dtype not in ("float16", "bfloat16"):
        return f"its matrix products take 16-bit numbers, and the kind is in {kind.dtype}"
    if kind.latent is None:
        return "it is made for keys and values in one latent"
    if kind.latent.rank not in HOPPER_RANKS or kind.latent.rope != HOPPER_KEYS:
        ranks = ", ".join(map(str, HOPPER_RANKS))
        return f"it takes ranks of {ranks} and a rope of {HOPPER_KEYS}, not {kind.latent.rank} and {kind.latent.rope}"
    return None


def hopper_parameters(plan: GatheredPlan, target: Target) -> tuple[Parameter, ...]:
    """The Hopper schedule's tunables with their choices."""
    return (
        Parameter("schedule", ("hopper",)),
        Parameter("BLOCK_H", (ROWS,)),
        Parameter("BLOCK_N", (HOPPER_KEYS,)),
        Parameter("num_warps", (4,)),
        Parameter("TURNS", (EVERY, 1)),
        Parameter("TICKETS", (False, True)),
        Parameter("PREFETCH", (False, True)),
        Parameter("PROXY_FENCE", (False, True)),
    )


def hopper_feasible(plan: GatheredPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    """None when ``config`` is worth compiling, else why it is not."""
    if reason := hopper_why_not(plan, target):
        return reason
    if (config["BLOCK_H"], config["BLOCK_N"], config["num_warps"]) != (ROWS, HOPPER_KEYS, 4):
        return f"a warpgroup of 4 warps has {ROWS} heads and {HOPPER_KEYS} keys"
    if config["TICKETS"] and config["TURNS"] != EVERY:
        return "a program that has one turn draws none"
    if problem is not None:
        tiles = problem.batch * problem.seq_q * -(-plan.kind.heads.query // ROWS)
        if config["TURNS"] == EVERY and tiles <= target.sms:
            return "every SM has one turn at most"
    return target.why_too_large(hopper_shared_bytes(plan, config, target))


def hopper_preferences(plan: GatheredPlan, target: Target, problem: Problem | None) -> list[Config]:
    """What a default is taken from, best first."""
    return [] if hopper_why_not(plan, target) else [_hopper(), _hopper(TURNS=1, TICKETS=False)]


def hopper_shared_bytes(plan: GatheredPlan, config: Config, target: Target) -> int:
    """Shared memory of a program: queries, two tiles of keys, the weights of one, and a few numbers a row."""
    wide = plan.kind.head_dim.qk
    tiles = (ROWS * wide + 2 * HOPPER_KEYS * wide + ROWS * HOPPER_KEYS) * ELEMENT_BYTES[plan.kind.dtype]
    return tiles + 2 * 4 * (ROWS + HOPPER_KEYS) + BARRIER_BYTES


HOPPER = Family(
    ("hopper",), hopper_why_not, hopper_parameters, hopper_feasible, hopper_preferences, hopper_shared_bytes
)
PORTABLE = Family(
    ("portable",),
    portable_why_not,
    portable_parameters,
    portable_feasible,
    portable_preferences,
    portable_shared_bytes,
)


def _portable(**values: Value) -> Config:
    return Config(schedule="portable", **values)


def _hopper(**values: Value) -> Config:
    base: dict[str, Value] = {"schedule": "hopper", "BLOCK_H": ROWS, "BLOCK_N": HOPPER_KEYS, "num_warps": 4}
    return Config(**{**base, "TURNS": EVERY, "TICKETS": True, "PREFETCH": False, "PROXY_FENCE": False, **values})
