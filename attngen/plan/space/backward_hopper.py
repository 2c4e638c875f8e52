"""The tunables of Hopper's backward kernels: one warp loads and warpgroups compute, but in small windows.

hopper         each warpgroup makes the gradients of its own keys, or of its own queries
hopper_wide    dk and dv of heads too wide for that: one warpgroup makes dv, the other dk
hopper_fused   each warpgroup makes those of its own keys, and its part of those of all queries that see them
hopper_window  small windows: programs without roles, three of them on a multiprocessor
"""

from __future__ import annotations

from attngen.config import Config, Value
from attngen.plan.backward import BackwardPlan
from attngen.plan.forward import plan_forward
from attngen.plan.hopper import NAMED_BARRIERS, ROWS
from attngen.plan.hopper_gradients import MOST_ACCUMULATED, HopperGradientShape
from attngen.plan.space.common import Family, Parameter, query_width, value_width, why_not_for_hopper
from attngen.problem import Problem
from attngen.target import Target

OTHER_REGISTERS = 32  # of a thread: addresses, bounds, and what is on its way
FUSED_KEYS = 2 * ROWS  # of a program that makes all gradients
FUSED_QUERIES = 64  # of a tile of theirs
FUSED_SPANS = 2  # times what a window reaches: in a shorter sequence most blocks of keys would wait for the first
FUSED_LENGTH = 2048  # of a sequence without a window, for the same reason; twice that where heads share keys
FUSED_RUN = 16  # blocks of a head that begin one after another: those of 8 heads fill a GPU once
FUSED_WIDTH = 128  # of q, k and v: narrower heads would exchange more for each product, wider ones have no registers
SMALL_WINDOW = 256  # keys: so few tiles that leaving out those that a warpgroup does not see matters most


def _why_not(plan: BackwardPlan, target: Target) -> str | None:
    """Why neither schedule can run ``plan`` on ``target``; None where one can."""
    if reason := why_not_for_hopper(plan, target, "16-bit"):
        return reason
    if len(plan.qk_chunks) > 1 or len(plan.v_chunks) > 1:
        return "it holds a head in one part, and head_dim is not near enough to a power of two"
    return None


def why_not(plan: BackwardPlan, target: Target) -> str | None:
    """Why no config of ``hopper`` can run ``plan``; None where some can."""
    if reason := _why_not(plan, target):
        return reason
    return "heads are so wide that no warpgroup has registers for both dk and dv" if _is_wide(plan) else None


def why_not_wide(plan: BackwardPlan, target: Target) -> str | None:
    """Why no config of ``hopper_wide`` can run ``plan``; None where some can."""
    if reason := _why_not(plan, target):
        return reason
    if _is_wide(plan) or (_is_crowded(plan) and _columns(plan) > MOST_ACCUMULATED // 2):
        return None
    return "a warpgroup has registers for both dk and dv"


def why_not_window(plan: BackwardPlan, target: Target) -> str | None:
    """Why no config of ``hopper_window`` can run ``plan``; None where some can."""
    if reason := _why_not(plan, target):
        return reason
    if plan.kind.documents:
        return "it does not find the documents that tiles of packed queries belong to"
    return None if _in_small_window(plan) else f"it is for windows of at most {SMALL_WINDOW} keys beside a query's own"


def why_not_fused(plan: BackwardPlan, target: Target) -> str | None:
    """Why no config of ``hopper_fused`` can run ``plan``; None where some can."""
    if reason := _why_not(plan, target):
        return reason
    if not _is_bare(plan):
        return "what is done to scores needs the registers that dq would have"
    if (plan.kind.head_dim.qk, plan.kind.head_dim.v) != (FUSED_WIDTH, FUSED_WIDTH):
        return f"it is for heads of {FUSED_WIDTH}"
    if _in_small_window(plan):
        return f"it is for windows of more than {SMALL_WINDOW} keys beside a query's own"
    return None


def fused_is_faster(plan: BackwardPlan, target: Target, batch: int, seq_q: int, seq_k: int) -> bool:
    """Whether ``hopper_fused`` should be faster than two kernels, where no times of both were measured."""
    span = _span(plan)
    grouped = plan.kind.heads.group > 1
    least = FUSED_LENGTH * (1 + grouped) if span is None else FUSED_SPANS * sum(span)
    programs = -(-seq_k // FUSED_KEYS) * plan.kind.heads.kv * batch
    return min(seq_q, seq_k) >= least and programs >= target.sms


def _columns(plan: BackwardPlan) -> int:
    """Of a key and its value, and so of their gradients."""
    return query_width(plan) + value_width(plan)


def _is_wide(plan: BackwardPlan) -> bool:
    return plan.by_key and _columns(plan) > MOST_ACCUMULATED


def _is_crowded(plan: BackwardPlan) -> bool:
    """Whether the derivative of a score needs what the score was made of: registers as many as the score's."""
    return plan.kind.softcap is not None or plan.kind.score is not None


def _is_bare(plan: BackwardPlan) -> bool:
    """Whether nothing is done to single elements but what bounds of intervals do, and tiles of queries are not cleared
    of other documents: registers are for products."""
    cleared = plan.kind.documents and plan.by_key
    return plan.plain_scores and not cleared and not any(term.residual for term in plan.terms)


def parameters(plan: BackwardPlan, target: Target) -> tuple[Parameter, ...]:
    """The tunables of ``hopper`` with their choices."""
    kept, passing = (2 * ROWS, 3 * ROWS), (64, 128)
    by_key = plan.by_key
    return (
        Parameter("schedule", ("hopper",)),
        Parameter("BLOCK_M", passing if by_key else kept),
        Parameter("BLOCK_N", kept if by_key else passing),
        Parameter("num_warps", (4,)),
        Parameter("num_stages", (2, 3, 4)),
        _together(plan),
        Parameter("AHEAD", (False, True)),
    )


def parameters_wide(plan: BackwardPlan, target: Target) -> tuple[Parameter, ...]:
    """The tunables of ``hopper_wide`` with their choices."""
    return (
        Parameter("schedule", ("hopper_wide",)),
        Parameter("BLOCK_M", (64, 128)),
        Parameter("BLOCK_N", (ROWS,)),
        Parameter("num_warps", (4,)),
        Parameter("num_stages", (2, 3)),
        _together(plan),
    )


def parameters_fused(plan: BackwardPlan, target: Target) -> tuple[Parameter, ...]:
    """The tunables of ``hopper_fused`` with their choices."""
    return (
        Parameter("schedule", ("hopper_fused",)),
        Parameter("BLOCK_M", (FUSED_QUERIES,)),
        Parameter("BLOCK_N", (FUSED_KEYS,)),
        Parameter("num_warps", (4,)),
        Parameter("num_stages", (2, 3)),
        _together(plan),
        Parameter("BLOCKS_TOGETHER", (1,) if _span(plan) is None else (1, FUSED_RUN)),
    )


def parameters_window(plan: BackwardPlan, target: Target) -> tuple[Parameter, ...]:
    """The tunables of ``hopper_window`` with their choices."""
    return (
        Parameter("schedule", ("hopper_window",)),
        Parameter("BLOCK_M", (ROWS,)),
        Parameter("BLOCK_N", (ROWS,)),
        Parameter("num_warps", (4,)),
        Parameter("num_stages", (2, 3, 4)),
        _together(plan),
    )


def _together(plan: BackwardPlan) -> Parameter:
    """Heads whose blocks run side by side and share the L2 cache."""
    return Parameter("HEADS_TOGETHER", tuple(sorted({1, 2, 4, 8, 16, plan.kind.heads.group})))


def feasible(plan: BackwardPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    """None when ``config`` is worth compiling, else why it is not."""
    wide = config["schedule"] == "hopper_wide"
    refuses = {
        "hopper": why_not,
        "hopper_fused": why_not_fused,
        "hopper_wide": why_not_wide,
        "hopper_window": why_not_window,
    }
    if reason := refuses[str(config["schedule"])](plan, target):
        return reason
    shape = HopperGradientShape.of(plan, config)
    if config["schedule"] == "hopper" and shape.consumers not in (2, 3):
        return "two or three warpgroups compute, of 64 rows each"
    by_key = plan.by_key
    accumulated = query_width(plan) + (value_width(plan) if by_key else 0)
    if wide:
        accumulated = max(query_width(plan), value_width(plan))
    columns = shape.block_m if by_key else shape.block_n  # of a tile's scores, and of their gradients
    if (accumulated + 2 * columns) * ROWS // 128 + OTHER_REGISTERS > shape.consumer_registers:
        return "accumulators, scores and their gradients need more registers than a thread has"
    if shape.named_barriers > NAMED_BARRIERS:
        return f"{shape.named_barriers} named barriers; {NAMED_BARRIERS} are free"
    if shape.window and 2 * shape.shared_bytes(plan) > target.shared_per_sm:
        return "a program without roles needs another beside it, to hide its latency"
    return target.why_too_large(shape.shared_bytes(plan))


def preferences(plan: BackwardPlan, target: Target, problem: Problem | None) -> list[Config]:
    """What a default is taken from, best first."""
    if why_not(plan, target):
        return []
    by_key = plan.by_key
    narrow, small_window = _columns(plan) <= MOST_ACCUMULATED // 2, _in_small_window(plan)
    if not by_key and not narrow:
        dense = _is_bare(plan) and not small_window and not plan.kind.documents
        tiles = [(3 * ROWS, 64, 4)] if dense else []
    elif not narrow:
        tiles = [(2 * ROWS, 64, 3)]
    elif not _is_bare(plan):
        tiles = [(2 * ROWS, 64, 4)]
    else:
        tiles = [(2 * ROWS, 128, 2)] if by_key and not small_window else [(3 * ROWS, 64, 4)]
    tiles += [(2 * ROWS, 64, 2)]
    if by_key:
        ahead = not small_window and (narrow or not _is_crowded(plan))
    else:
        ahead = query_width(plan) > MOST_ACCUMULATED // 2 and _is_bare(plan)
    order = ("BLOCK_N", "BLOCK_M") if by_key else ("BLOCK_M", "BLOCK_N")
    return [
        _preference(plan, "hopper", dict(zip(order, (kept, passing), strict=True)), stages, AHEAD=ahead)
        for kept, passing, stages in tiles
    ]


def preferences_wide(plan: BackwardPlan, target: Target, problem: Problem | None) -> list[Config]:
    """What a default is taken from, best first."""
    if why_not_wide(plan, target):
        return []
    return [_preference(plan, "hopper_wide", {"BLOCK_M": 64, "BLOCK_N": ROWS}, 2)]


def preferences_fused(plan: BackwardPlan, target: Target, problem: Problem | None) -> list[Config]:
    """What a default is taken from, best first."""
    tile = {"BLOCK_M": FUSED_QUERIES, "BLOCK_N": FUSED_KEYS}
    window = _span(plan) is not None
    # Without a window all blocks of a head begin with the same tile: the fewer there are at a time, the fewer wait.
    crowded = plan.kind.causal and not window and plan.kind.heads.group == 1
    run, together = FUSED_RUN if window else 1, 16 if crowded else 8
    found = [_preference(plan, "hopper_fused", tile, stages, BLOCKS_TOGETHER=run) for stages in (3, 2)]
    return [config.replace(HEADS_TOGETHER=together) for config in found]


def preferences_window(plan: BackwardPlan, target: Target, problem: Problem | None) -> list[Config]:
    """What a default is taken from, best first."""
    if why_not_window(plan, target) or not _is_bare(plan) or _columns(plan) > MOST_ACCUMULATED // 2:
        return []
    return [_preference(plan, "hopper_window", {"BLOCK_M": ROWS, "BLOCK_N": ROWS}, stages) for stages in (3, 2)]


def _preference(plan: BackwardPlan, schedule: str, tile: dict[str, int], stages: int, **more: Value) -> Config:
    together = 8 if plan.kind.heads.group > 1 or _columns(plan) > MOST_ACCUMULATED else 4
    values: dict[str, Value] = {"schedule": schedule, **tile, "num_warps": 4, "num_stages": stages}
    return Config(**values, HEADS_TOGETHER=together, **more)


def _in_small_window(plan: BackwardPlan) -> bool:
    span = _span(plan)
    return span is not None and sum(span) <= SMALL_WINDOW


def _span(plan: BackwardPlan) -> tuple[int, int] | None:
    """How many keys on each side of its own a query sees; None where that is not bounded."""
    return plan_forward(plan.kind).span


def shared_bytes(plan: BackwardPlan, config: Config, target: Target) -> int:
    """Shared memory of a program: what it keeps, the stages of what it goes over, and the rows' values."""
    return HopperGradientShape.of(plan, config).shared_bytes(plan)


HOPPER = Family(("hopper",), why_not, parameters, feasible, preferences, shared_bytes)
HOPPER_FUSED = Family(("hopper_fused",), why_not_fused, parameters_fused, feasible, preferences_fused, shared_bytes)
HOPPER_WIDE = Family(("hopper_wide",), why_not_wide, parameters_wide, feasible, preferences_wide, shared_bytes)
HOPPER_WINDOW = Family(
    ("hopper_window",), why_not_window, parameters_window, feasible, preferences_window, shared_bytes
)
