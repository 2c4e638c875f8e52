"""The tunables of the kernel that selects keys: tile, list, sample and warps, the same for both schedules."""

from __future__ import annotations

from itertools import product

from attngen.config import Config
from attngen.plan.select import SelectPlan, list_sizes, why_not
from attngen.plan.space.common import Family, Parameter, is_hopper
from attngen.problem import Problem
from attngen.target import Target

REDUCTION_BYTES = 2048  # of shared memory: what warps tell each other in sums and scans


def _parameters(schedule: str, plan: SelectPlan) -> tuple[Parameter, ...]:
    """A schedule's tunables with their choices."""
    return (
        Parameter("schedule", (schedule,)),
        Parameter("BLOCK", (2048, 4096, 8192)),
        Parameter("LIST", list_sizes(plan)),
        Parameter("SAMPLE", (2048, 4096)),
        Parameter("num_warps", (8, 16, 32)),
    )


def _feasible(plan: SelectPlan, config: Config, target: Target, problem: Problem | None) -> str | None:
    if config["schedule"] == "hopper" and not is_hopper(target):
        return f"the Hopper schedule is for sm_90, and {target.name} is {target.arch_name}"
    reason = why_not(plan, config, target.warp_size)
    return reason or target.why_too_large(shared_bytes(plan, config, target))


def _preferences(schedule: str, plan: SelectPlan, target: Target, problem: Problem | None) -> list[Config]:
    """What a default is taken from, best first: many small programs an SM, or a large one where rows are few.

    Plain Triton has no say in which thread holds what, and needs more registers: fewer logits of a thread.
    """
    few = problem is not None and problem.batch * problem.seq_q <= target.sms
    threads = (256, 512, 1024) if schedule == "hopper" and not few else (512, 1024, 256)
    return [
        Config(schedule=schedule, BLOCK=max(4096, 8 * n), LIST=size, SAMPLE=4096, num_warps=n // target.warp_size)
        for size, n in product(list_sizes(plan), threads)
    ]


def shared_bytes(plan: SelectPlan, config: Config, target: Target) -> int:
    """Shared memory of a program, about: sums and scans across warps; plain Triton moves a list between threads."""
    return REDUCTION_BYTES if config["schedule"] == "hopper" else 4 * int(config["LIST"] or 0)


def _family(schedule: str) -> Family:
    return Family(
        (schedule,),
        lambda plan, target: None if schedule == "portable" or is_hopper(target) else "it is written for sm_90",
        lambda plan, target: _parameters(schedule, plan),
        _feasible,
        lambda plan, target, problem: _preferences(schedule, plan, target, problem),
        shared_bytes,
    )


SELECT_PORTABLE = _family("portable")
SELECT_HOPPER = _family("hopper")
