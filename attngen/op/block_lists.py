"""Tables of blocks as lists: which blocks of keys each block of queries may see, and the other way round.

All of it is computed where the table is; nothing is looked at from the host.
"""

from __future__ import annotations

import torch

from attngen.errors import CallError
from attngen.spec.model import Kind

Lists = tuple[torch.Tensor, torch.Tensor]  # contiguous (..., lists) and (..., lists, entries), int32; entries ascend


def block_lists(kind: Kind, blocks: torch.Tensor, seq_q: int, seq_k: int, batch: int) -> Lists:
    """Numbers of listed blocks, and the blocks: of a table (batch or 1, heads or 1, blocks of queries, blocks of keys)
    of bool, or of lists (..., blocks of queries, entries) of int32, where what is no block is none."""
    assert kind.blocks is not None
    rows, columns = -(-seq_q // kind.blocks.size), -(-seq_k // kind.blocks.size)
    _check(kind, blocks, batch, rows, columns)
    return lists_of_table(blocks) if blocks.dtype == torch.bool else sorted_lists(blocks, columns)


def lists_of_table(table: torch.Tensor) -> Lists:
    """The places of True in each row."""
    order = table.to(torch.int8).sort(dim=-1, descending=True, stable=True).indices
    return table.sum(-1, dtype=torch.int32).contiguous(), order.to(torch.int32).contiguous()


def sorted_lists(lists: torch.Tensor, columns: int) -> Lists:
    """Lists in ascending order, each block once, and what is no block left out."""
    ordered = torch.where((lists >= 0) & (lists < columns), lists, columns).sort(-1).values
    again = torch.zeros_like(ordered, dtype=torch.bool)
    again[..., 1:] = ordered[..., 1:] == ordered[..., :-1]
    ordered = torch.where(again, columns, ordered).sort(-1).values
    return (ordered < columns).sum(-1, dtype=torch.int32).contiguous(), ordered.to(torch.int32).contiguous()


def turned_lists(count: torch.Tensor, index: torch.Tensor, columns: int) -> Lists:
    """For each of so many blocks, the lists that it is in."""
    given = torch.arange(index.shape[-1], device=index.device) < count[..., None]
    table = torch.zeros((*index.shape[:-1], columns + 1), dtype=torch.bool, device=index.device)
    table.scatter_(-1, torch.where(given, index, columns).long(), True)
    return lists_of_table(table[..., :columns].mT)


def _check(kind: Kind, blocks: torch.Tensor, batch: int, rows: int, columns: int) -> None:
    if not isinstance(blocks, torch.Tensor) or blocks.dtype not in (torch.bool, torch.int32):
        held = blocks.dtype if isinstance(blocks, torch.Tensor) else type(blocks).__name__
        raise CallError(f"'blocks' is {held}; a table of bool, or lists of int32, are needed")
    shape = tuple(blocks.shape)
    wanted = f"(batch or 1, heads or 1, {rows}, {columns if blocks.dtype == torch.bool else 'entries'})"
    fits = len(shape) == 4 and shape[0] in (1, batch) and shape[1] in (1, kind.heads.query) and shape[2] == rows
    if not fits or (blocks.dtype == torch.bool and shape[3] != columns):
        raise CallError(
            f"'blocks' has shape {shape}; {wanted} is needed for blocks of {kind.blocks and kind.blocks.size}"
        )
