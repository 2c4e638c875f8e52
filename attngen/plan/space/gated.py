"""The tunables of the sum of branches: rows of a tile, warps."""

from __future__ import annotations

from itertools import product

from attngen.config import Config
from attngen.plan.gated import GatedPlan
from attngen.plan.space.common import Family, Parameter
from attngen.problem import Problem
from attngen.target import Target

MOST_NUMBERS = 32  # of a thread
ROWS, WARPS = (8, 16, 32, 64), (4, 8)


def _parameters(plan: GatedPlan, target: Target) -> tuple[Parameter, ...]:
    return (
        Parameter("schedule", ("portable",)),
        Parameter("BLOCK_M", ROWS),
        Parameter("num_warps", WARPS),
        Parameter("num_stages", (1,)),
    )


def _feasible(plan: GatedPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    numbers = plan.width * int(config["BLOCK_M"] or 0) // (target.warp_size * int(config["num_warps"] or 1))
    return None if 4 <= numbers <= MOST_NUMBERS else f"{numbers} numbers a thread; 4 to {MOST_NUMBERS} do"


def _preferences(plan: GatedPlan, target: Target, problem: Problem | None) -> list[Config]:
    return [
        Config(schedule="portable", BLOCK_M=rows, num_warps=warps, num_stages=1)
        for rows, warps in product((16, 32, 8, 64), WARPS)
    ]


PORTABLE = Family(
    ("portable",),
    lambda plan, target: None,
    _parameters,
    _feasible,
    _preferences,
    lambda plan, config, target: 0,
)
