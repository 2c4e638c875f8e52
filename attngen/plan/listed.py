"""Kinds that select blocks of keys: how, and how many lists of blocks a query has."""

from __future__ import annotations

from attngen.errors import NotGeneratedError
from attngen.spec.model import BlockSelect, Kind


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
