"""The tunables of quantisation: rows of a tile, warps."""

from __future__ import annotations

from itertools import product

from attngen.config import Config
from attngen.plan.quantise import QuantisePlan
from attngen.plan.space.common import Family, Parameter, why_no_float8
from attngen.problem import Problem
from attngen.target import Target

MOST_NUMBERS = 32  # of a thread


def why_not(plan: QuantisePlan, target: Target) -> str | None:
    """Why no kernel can run ``plan`` on ``target``; None where some can."""
    return "numbers in 16 bits are taken as they are" if plan.identity else why_no_float8(target)


def _parameters(plan: QuantisePlan, target: Target) -> tuple[Parameter, ...]:
    return (
        Parameter("schedule", ("portable",)),
        Parameter("BLOCK_M", (8, 16, 32, 64)),
        Parameter("num_warps", (4, 8)),
        Parameter("num_stages", (1,)),
    )


def _feasible(plan: QuantisePlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    if reason := why_not(plan, target):
        return reason
    numbers = plan.width * int(config["BLOCK_M"] or 0) // (32 * int(config["num_warps"] or 1))
    if not 4 <= numbers <= MOST_NUMBERS:
        return f"{numbers} numbers a thread; 4 to {MOST_NUMBERS} do"
    return None


def _preferences(plan: QuantisePlan, target: Target, problem: Problem | None) -> list[Config]:
    return [
        Config(schedule="portable", BLOCK_M=rows, num_warps=warps, num_stages=1)
        for rows, warps in product((16, 32, 64, 8), (4, 8))
    ]


def _shared_bytes(plan: QuantisePlan, config: Config, target: Target) -> int:
    """What a rotation turns over: its numbers, in float32."""
    return 4 * plan.width * int(config["BLOCK_M"] or 0) if plan.rotate else 0


PORTABLE = Family(("portable",), why_not, _parameters, _feasible, _preferences, _shared_bytes)
