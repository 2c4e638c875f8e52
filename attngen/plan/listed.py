"""Kinds that select blocks of keys: how many lists a query has, and what attends to them."""

from __future__ import annotations

from attngen.errors import NotGeneratedError
from attngen.plan.base import Plan
from attngen.plan.gathered import plan_gathered
from attngen.plan.routed import plan_routed
from attngen.spec.model import BlockSelect, Kind

GATHERED_HEADS = 8  # that share a list of blocks: so many and more are attended to as they are


def selects_blocks(kind: Kind) -> bool:
    """Whether each query attends to blocks of keys that are selected for it."""
    return kind.select is not None and kind.select.blocks is not None


def blocks_of(kind: Kind) -> BlockSelect:
    """The selection of a kind that selects blocks; NotGeneratedError for others."""
    if kind.select is None or kind.select.blocks is None:
        raise NotGeneratedError(f"kind '{kind.name}' has no 'select: {{blocks: ...}}', so no blocks are selected")
    return kind.select.blocks


def lists_of(kind: Kind) -> int:
    """Lists of blocks that are selected for a query: one for each of its heads, or for each KV head."""
    return kind.heads.query if blocks_of(kind).per == "head" else kind.heads.kv


def plan_listed(kind: Kind) -> Plan:
    """What attends to lists of blocks.

    Heads that share a list make a tile of queries as they are, if they are many; else queries are brought together by
    the blocks that they chose.
    """
    return plan_gathered(kind) if kind.heads.query // lists_of(kind) >= GATHERED_HEADS else plan_routed(kind)
