"""What the schedules' spaces have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attngen.config import Config, Value
from attngen.plan.attention import AttentionPlan
from attngen.plan.chunks import held_width
from attngen.plan.forward import ForwardPlan
from attngen.plan.routed import RoutedPlan
from attngen.plan.work import ELEMENT_BYTES
from attngen.problem import Problem
from attngen.target import Target

FLOAT8_ARCH = 89  # the first with matrix products of FP8
FEW_QUERIES = 128  # a tile of one head would be mostly padding


@dataclass(frozen=True)
class Parameter:
    """One tunable and the values it may take."""

    name: str
    choices: tuple[Value, ...]


@dataclass(frozen=True)
class Family:
    """Schedules that share their tunables: what a space needs to know of them."""

    schedules: tuple[str, ...]
    why_not: Callable[[Any, Target], str | None]  # why none of their configs can run a plan of their kernel
    parameters: Callable[[Any, Target], tuple[Parameter, ...]]
    feasible: Callable[[Any, Config, Target, Problem | None], str | None]
    preferences: Callable[[Any, Target, Problem | None], list[Config]]  # for a default, the first that fits
    shared_bytes: Callable[[Any, Config, Target], int]


def query_width(plan: AttentionPlan | RoutedPlan) -> int:
    """Columns of a query as they are held."""
    return held_width(plan.qk_chunks)


def value_width(plan: AttentionPlan | RoutedPlan) -> int:
    """Columns of a value, and of an accumulator, as they are held."""
    return held_width(plan.v_chunks)


def rows_are_aligned(plan: AttentionPlan | RoutedPlan) -> bool:
    """Whether rows are a multiple of 16 bytes, which the copy engine asks for."""
    element = ELEMENT_BYTES[plan.kind.dtype]
    return plan.kind.head_dim.qk * element % 16 == 0 and plan.kind.head_dim.v * element % 16 == 0


def is_hopper(target: Target) -> bool:
    return target.backend == "cuda" and target.arch == 90


def why_not_for_hopper(plan: AttentionPlan, target: Target, numbers: str) -> str | None:
    """Why no schedule made for sm_90 can run ``plan`` on ``target``; ``numbers`` are those that its products take."""
    kind = plan.kind
    if not is_hopper(target):
        return f"{target.name} is {target.arch_name}, and it is made of what only sm_90 has"
    if kind.dtype == "float32":
        return f"its matrix products take {numbers} numbers, and the kind is in {kind.dtype}"
    if kind.blocks is not None:
        return "it goes over neighbouring queries and keys, and those of listed blocks are not"
    if not rows_are_aligned(plan):
        dims = f"{kind.head_dim.qk}" + (f" and {kind.head_dim.v}" if kind.head_dim.v != kind.head_dim.qk else "")
        return f"the copy engine needs rows of a multiple of 16 bytes, and head_dim is {dims}"
    return None


def why_not_in_blocks(plan: AttentionPlan, rows: int) -> str | None:
    """Why so many rows are no tile of a listed block; None where they are, or nothing is listed."""
    if plan.kind.blocks is not None and plan.kind.blocks.size % rows:
        return f"tiles of {rows} rows do not divide blocks of {plan.kind.blocks.size}"
    return None


def has_tma(target: Target) -> bool:
    """Whether there is a copy engine that portable kernels can use."""
    return target.backend == "cuda" and int(target.arch) >= 90 and int(target.arch) != 120


def splits_keys(target: Target) -> bool:
    """Whether warps share the keys of a tile too, for want of rows: so mma.sync does, before and beside wgmma."""
    return target.backend == "cuda" and not has_tma(target)


def why_no_kernel(plan: ForwardPlan, target: Target) -> str | None:
    """Why no kernel of any schedule can run ``plan`` on ``target``; None where some can."""
    return why_no_float8(target) if plan.kind.quantised else None


def why_no_float8(target: Target) -> str | None:
    """Why no kernel in e4m3 can run on ``target``; None where some can."""
    if target.backend == "hip":
        return f"{target.name}'s FP8 is e4m3fnuz, another format of numbers than e4m3"
    if int(target.arch) < FLOAT8_ARCH:
        return f"{target.name} is {target.arch_name}, and products of FP8 begin with sm_{FLOAT8_ARCH}"
    return None
