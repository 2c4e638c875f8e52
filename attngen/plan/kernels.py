"""The kernels that a kind's attention is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from attngen.errors import NotGeneratedError
from attngen.plan.backward import BackwardPlan, backward_plans
from attngen.plan.base import Plan
from attngen.plan.block_select import plan_block_select
from attngen.plan.forward import plan_forward
from attngen.plan.gated import plan_gated
from attngen.plan.gathered import plan_gathered
from attngen.plan.indexer import IndexDtype, IndexerPlan, indexer_of, plan_indexer
from attngen.plan.listed import lists_of
from attngen.plan.quantise import plan_quantise
from attngen.plan.routed import plan_routed
from attngen.plan.select import plan_select
from attngen.plan.space import can_run
from attngen.plan.space.common import why_no_float8
from attngen.spec.model import Kind
from attngen.target import Target

GATHERED_HEADS = 8  # that share a list of blocks: so many and more are attended to as they are


def selects_keys(kind: Kind) -> bool:
    """Whether each query attends to a list of keys of its own."""
    return kind.select is not None and kind.select.top_k is not None


def attended_whole(kind: Kind) -> Kind | None:
    """What a kind that selects keys is where a query's list is of all that it sees: attention of a forward kernel,
    which has the kind's tunings as if it never selected. Latent kinds keep to lists, as fast as their like is dense."""
    return replace(kind, select=None) if kind.latent is None else None


def plans_of(kind: Kind, target: Target, seq_k: int | None = None) -> tuple[Plan, ...]:
    """Of a kind that selects keys or blocks what scores and selects them, attention over lists, and the forward kernel
    for sequences no longer than a list; of a kind in branches those of each, and their sum; else the forward kernel.
    Only those that a call over ``seq_k`` keys needs, where that is given. NotGeneratedError for kinds whose kernels do
    not exist yet."""
    if kind.branches:
        by_name = {branch.name: branch for branch in kind.branches}
        of_branches = [plan for branch in kind.branches for plan in _of_one(branch, by_name, target, seq_k)]
        return (*of_branches, plan_gated(kind))
    return _of_one(kind, {}, target, seq_k)


def _of_one(kind: Kind, others: Mapping[str, Kind], target: Target, seq_k: int | None) -> tuple[Plan, ...]:
    """Of a kind, or of a branch beside ``others``."""
    if kind.select is None:
        return (plan_forward(kind),)
    if kind.select.blocks is not None:
        blocks = kind.select.blocks
        listed: tuple[Plan, ...] = (plan_block_select(kind, others.get(blocks.by or "")), plan_listed(kind))
        return _as_long(seq_k, blocks.size * blocks.top_k, listed, plan_forward(replace(kind, select=None)))
    gathered = plan_gathered(kind)
    if kind.select.indexer is None:
        return (gathered,)
    if kind.dilation is not None:
        raise NotGeneratedError(
            f"kind '{kind.name}': 'dilation' is not generated beside an indexer, which scores neighbouring keys"
        )
    selecting = plan_select(kind)
    listed = (plan_indexer(kind, dtype=index_dtype(kind, target)), selecting, gathered)
    dense = attended_whole(kind)
    return _as_long(seq_k, selecting.top_k, listed, gathered if dense is None else plan_forward(dense))


def _as_long(seq_k: int | None, most: int, listed: tuple[Plan, ...], whole: Plan) -> tuple[Plan, ...]:
    """Those over lists, and the ``whole`` one for up to ``most`` keys; or what ``seq_k`` keys need of them."""
    if seq_k is None:
        return listed if whole in listed else (*listed, whole)
    return listed if seq_k > most else (whole,)


def launched_plans(kind: Kind, target: Target) -> tuple[Plan, ...]:
    """All kernels of a kind in the order in which calls launch them: what is scored in 8 bits is quantised first."""
    plans = plans_of(kind, target)
    indexer = None if kind.select is None else kind.select.indexer
    if indexer is None or not any(isinstance(plan, IndexerPlan) and plan.scaled for plan in plans):
        return plans
    return (plan_quantise(kind, rotate=indexer.hadamard), *plans)


def index_dtype(kind: Kind, target: Target) -> IndexDtype:
    """In which a kind's keys are scored: as the spec says, but where a GPU has no FP8, in bfloat16."""
    dtype = indexer_of(kind).dtype
    return "bfloat16" if dtype == "float8_e4m3" and why_no_float8(target) else dtype


def backward_plans_for(kind: Kind, target: Target) -> tuple[BackwardPlan, ...]:
    """All kernels of a kind's backward pass that some call on ``target`` launches; none for kinds that have no such
    pass."""
    return tuple(plan for plan in backward_plans(kind) if can_run(plan, target))


def plan_listed(kind: Kind) -> Plan:
    """What attends to lists of blocks.

    Heads that share a list make a tile of queries as they are, if they are many; else queries are brought together by
    the blocks that they chose.
    """
    return plan_gathered(kind) if kind.heads.query // lists_of(kind) >= GATHERED_HEADS else plan_routed(kind)
