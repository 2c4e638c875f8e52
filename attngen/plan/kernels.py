"""The kernels that a kind's attention is made of."""

from __future__ import annotations

from dataclasses import replace

from attngen.errors import NotGeneratedError
from attngen.plan.base import Plan
from attngen.plan.forward import plan_forward
from attngen.plan.gathered import plan_gathered
from attngen.plan.indexer import IndexDtype, IndexerPlan, indexer_of, plan_indexer
from attngen.plan.quantise import plan_quantise
from attngen.plan.select import plan_select
from attngen.plan.space.common import why_no_float8
from attngen.spec.model import Kind
from attngen.target import Target


def selects_keys(kind: Kind) -> bool:
    """Whether each query attends to a list of keys of its own."""
    return kind.select is not None and kind.select.top_k is not None


def attended_whole(kind: Kind) -> Kind | None:
    """What a kind that selects keys is where a query's list is of all that it sees: attention of a forward kernel,
    which has the kind's tunings as if it never selected. Latent kinds keep to lists, as fast as their like is dense."""
    return replace(kind, select=None) if kind.latent is None else None


def plans_of(kind: Kind, target: Target, seq_k: int | None = None) -> tuple[Plan, ...]:
    """Of a kind that selects keys the indexer, the selection and attention over lists, and the forward kernel for
    sequences no longer than a list; else the forward kernel. Only those that a call over ``seq_k`` keys needs, where
    that is given. NotGeneratedError for kinds whose kernels do not exist yet."""
    if not selects_keys(kind):
        return (plan_forward(kind),)
    gathered = plan_gathered(kind)
    if kind.select is None or kind.select.indexer is None:
        return (gathered,)
    if kind.dilation is not None:
        raise NotGeneratedError(
            f"kind '{kind.name}': 'dilation' is not generated beside an indexer, which scores neighbouring keys"
        )
    selecting = plan_indexer(kind, dtype=index_dtype(kind, target)), plan_select(kind)
    dense = attended_whole(kind)
    whole = () if dense is None else (plan_forward(dense),)
    if seq_k is None:
        return (*selecting, gathered, *whole)
    return (*selecting, gathered) if seq_k > selecting[1].top_k else whole or (gathered,)


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
