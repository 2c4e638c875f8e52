"""The tunables of kernels: which values are worth trying, and which points cannot fit a target.

portable       Triton for any GPU: one loop over keys, or all keys of a small window resident
hopper         Gluon for sm_90: one warp loads, warpgroups compute
hopper_window  Gluon for sm_90: all keys of a small window resident; of a backward pass, programs without roles
hopper_fused   Gluon for sm_90: gradients of queries, keys and values at once
hopper_wide    Gluon for sm_90: gradients of keys and values of wide heads

Each schedule has tunables of its own, and a config has those of its schedule and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

from attngen.config import Config, Value
from attngen.errors import NotGeneratedError
from attngen.plan.base import Plan
from attngen.plan.boxes import is_gluon
from attngen.plan.forward import ForwardPlan
from attngen.plan.space import (
    backward,
    backward_hopper,
    block_select,
    gated,
    gathered,
    indexer,
    portable,
    quantise,
    routed,
)
from attngen.plan.space.common import FEW_QUERIES, Family, Parameter, why_no_kernel
from attngen.plan.space.hopper import HOPPER
from attngen.plan.space.hopper_window import HOPPER_WINDOW
from attngen.plan.space.portable import PORTABLE, window_tiles
from attngen.plan.space.select import SELECT_HOPPER, SELECT_PORTABLE
from attngen.problem import Problem
from attngen.target import Target

__all__ = [
    "Parameter",
    "can_run",
    "default_config",
    "enumerate_configs",
    "feasible",
    "feasible_anywhere",
    "forward_space",
    "shared_bytes",
    "why_not_hopper",
    "window_tiles",
]

# Of each kernel, in the order in which a default is looked for.
FAMILIES: dict[str, tuple[Family, ...]] = {
    "backward_elements": (backward.PORTABLE,),
    "backward_kv": (
        backward_hopper.HOPPER_WINDOW,
        backward_hopper.HOPPER,
        backward_hopper.HOPPER_WIDE,
        backward.PORTABLE,
    ),
    "backward_fused": (backward_hopper.HOPPER_FUSED,),
    "backward_q": (backward_hopper.HOPPER_WINDOW, backward_hopper.HOPPER, backward.PORTABLE),
    "backward_rows": (backward.ROWS,),
    "block_select": (block_select.PORTABLE,),
    "forward": (HOPPER_WINDOW, HOPPER, PORTABLE),
    "gathered": (gathered.HOPPER, gathered.PORTABLE),
    "indexer": (indexer.HOPPER, indexer.PORTABLE),
    "gated": (gated.PORTABLE,),
    "quantise": (quantise.PORTABLE,),
    "routed": (routed.PORTABLE,),
    "select": (SELECT_HOPPER, SELECT_PORTABLE),
}


def forward_space(plan: Plan, target: Target) -> tuple[Parameter, ...]:
    """Every tunable of every schedule that can run, with its choices; None where a schedule has no such tunable."""
    families = [family.parameters(plan, target) for family in _families(plan, target)]
    merged: dict[str, dict[Value, None]] = {}
    for parameters in families:
        for parameter in parameters:
            merged.setdefault(parameter.name, {}).update(dict.fromkeys(parameter.choices))
    everywhere = set.intersection(*({parameter.name for parameter in parameters} for parameters in families))
    for name, choices in merged.items():
        if name not in everywhere:
            choices[None] = None
    return tuple(Parameter(name, tuple(sorted(choices, key=_place))) for name, choices in merged.items())


def feasible(plan: Plan, config: Config, target: Target, problem: Problem | None = None) -> str | None:
    """None when ``config`` is worth compiling, else why it is not."""
    family = _family(plan, config)
    if family is None:
        return f"there is no schedule '{config.get('schedule')}'"
    missing = [p.name for p in family.parameters(plan, target) if p.name not in config]
    return f"it has no {missing[0]}" if missing else family.feasible(plan, config, target, problem)


def feasible_anywhere(plan: Plan, target: Target, problem: Problem | None = None) -> Iterator[Config]:
    """Every feasible point of every schedule, likely to win or not."""
    for family in _families(plan, target):
        parameters = family.parameters(plan, target)
        names = [parameter.name for parameter in parameters]
        for values in product(*(parameter.choices for parameter in parameters)):
            config = Config(**dict(zip(names, values, strict=True)))
            if family.feasible(plan, config, target, problem) is None:
                yield config


def enumerate_configs(plan: Plan, target: Target, problem: Problem) -> list[Config]:
    """The points that are worth trying: where a schedule is made for the target, few of the portable ones."""
    configs = list(feasible_anywhere(plan, target, problem))
    if not isinstance(plan, ForwardPlan):
        return configs
    if problem.seq_q > FEW_QUERIES and any(is_gluon(config) for config in configs):
        return [config for config in configs if is_gluon(config) or portable.in_core(plan, config)]
    return configs


def default_config(
    plan: Plan,
    target: Target,
    problem: Problem | None = None,
    able: Callable[[Config], bool] = lambda config: True,
) -> Config:
    """A config that runs well enough anywhere: the first of a short list of preferences that fits.

    ``able`` says which configs a caller can use: not all tensors can be described to the copy engine.
    """
    for family in _families(plan, target):
        for config in family.preferences(plan, target, problem):
            if able(config) and feasible(plan, config, target, problem) is None:
                return config
    if isinstance(plan, ForwardPlan):
        return portable.last_resort(plan)
    raise NotGeneratedError(f"kind '{plan.kind.name}': no config of its {plan.kernel} kernel fits {target.name}")


def shared_bytes(plan: Plan, config: Config, target: Target) -> int:
    """Shared memory that a program needs, about."""
    family = _family(plan, config)
    assert family is not None
    return family.shared_bytes(plan, config, target)


def can_run(plan: Plan, target: Target) -> bool:
    """Whether some schedule runs ``plan`` on ``target``."""
    return any(family.why_not(plan, target) is None for family in FAMILIES[plan.kernel])


def why_not_hopper(plan: ForwardPlan, target: Target) -> str | None:
    """Why the schedule made for Hopper cannot run ``plan`` on ``target``; None where it can."""
    return HOPPER.why_not(plan, target)


def _families(plan: Plan, target: Target) -> list[Family]:
    """The families that can run ``plan``; NotGeneratedError where none can."""
    if isinstance(plan, ForwardPlan) and (reason := why_no_kernel(plan, target)):
        raise NotGeneratedError(f"kind '{plan.kind.name}' is in {plan.kind.dtype}: {reason}")
    return [family for family in FAMILIES[plan.kernel] if family.why_not(plan, target) is None]


def _family(plan: Plan, config: Config) -> Family | None:
    return next((family for family in FAMILIES[plan.kernel] if config.get("schedule") in family.schedules), None)


def _place(value: Value) -> tuple[int, int]:
    """Numbers by size, so that neighbours are alike; nothing at all, and what has no order, before them."""
    if value is None:
        return 0, 0
    return (2, value) if isinstance(value, int) else (1, 0)
