"""The tunables of the ``hopper_window`` schedule: small windows on sm_90, every key of a tile resident."""

from __future__ import annotations

import math
from itertools import product

from attngen.config import Config, Value
from attngen.plan import hopper_window
from attngen.plan.forward import ForwardPlan
from attngen.plan.hopper import ROWS
from attngen.plan.hopper_window import MOST_REGISTERS, HopperWindowShape
from attngen.plan.space import hopper
from attngen.plan.space.common import Family, Parameter
from attngen.problem import Problem
from attngen.target import Target

MOST_PACKED = 8  # heads of one tile
REGISTERS = (128, 168, MOST_REGISTERS)  # of a thread: the fewer, the more programs share an SM
SPARE_REGISTERS = 100  # more than so many to spare gain nothing over the next smaller cap


def why_not(plan: ForwardPlan, target: Target) -> str | None:
    """Why no config of this schedule can run ``plan`` on ``target``; None where some may."""
    if reason := hopper.why_not(plan, target):
        return reason
    if plan.kind.documents:
        return "it does not find the documents that tiles of packed queries belong to"
    if plan.kind.quantised:
        return f"its matrix products take 16-bit numbers, and the kind is in {plan.kind.dtype}"
    if plan.span is None or sum(plan.span) < 0:
        return "it keeps every key of a tile at once, which takes a bounded window and nothing beside it"
    return None


def parameters(plan: ForwardPlan, target: Target) -> tuple[Parameter, ...]:
    """The schedule's own tunables with their choices."""
    group = plan.kind.heads.group
    return (
        Parameter("schedule", ("hopper_window",)),
        Parameter("BLOCK_M", (ROWS, 2 * ROWS)),
        Parameter("BLOCK_N", (32, 64, 128)),
        Parameter("num_warps", (4,)),
        Parameter("num_stages", (2, 3)),
        Parameter("PACK_HEADS", tuple(sorted({1, *(n for n in (2, MOST_PACKED) if group % n == 0), _whole(group)}))),
        Parameter("WARPGROUPS", (1, 2)),
        Parameter("ACROSS", (None, "heads", "queries")),
        Parameter("maxnreg", REGISTERS),
    )


def feasible(plan: ForwardPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    """None when ``config`` is worth compiling, else why it is not."""
    if reason := why_not(plan, target):
        return reason
    warpgroups, pack = int(config["WARPGROUPS"] or 0), int(config["PACK_HEADS"] or 1)
    if warpgroups not in (1, 2) or (config["ACROSS"] is None) != (warpgroups == 1):
        return "one warpgroup, or two across heads or queries"
    if reason := hopper_window.why_not(plan, config):
        return reason
    caps = [cap for cap in REGISTERS if cap < int(config["maxnreg"] or MOST_REGISTERS)]
    needed = HopperWindowShape.of(plan, config).registers(plan)
    if caps and needed + SPARE_REGISTERS < caps[-1]:
        return f"{caps[-1]} registers would do for about {needed}"
    if problem is not None and problem.seq_q * pack <= ROWS // 2:
        return "more than half of every tile would be padding"
    return target.why_too_large(shared_bytes(plan, config, target))


def preferences(plan: ForwardPlan, target: Target, problem: Problem | None) -> list[Config]:
    """What a default is taken from, best first: one warpgroup, as few registers as do."""
    if why_not(plan, target):
        return []
    return [_preference(BLOCK_N=n, maxnreg=cap) for cap, n in product((168, MOST_REGISTERS), (64, 32))]


def shared_bytes(plan: ForwardPlan, config: Config, target: Target) -> int:
    """Shared memory of a program: queries and results, and every key that its queries see."""
    return HopperWindowShape.of(plan, config).shared_bytes(plan)


HOPPER_WINDOW = Family(("hopper_window",), why_not, parameters, feasible, preferences, shared_bytes)


def _whole(group: int) -> int:
    """The heads of a group that share a tile, at most."""
    return math.gcd(group, MOST_PACKED)


def _preference(**values: Value) -> Config:
    base: dict[str, Value] = {"schedule": "hopper_window", "BLOCK_M": ROWS, "num_warps": 4, "num_stages": 2}
    base |= {"PACK_HEADS": 1, "WARPGROUPS": 1, "ACROSS": None}
    return Config(**base, **values)
