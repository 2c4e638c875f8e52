"""A part of a call that the reference can afford: one sequence of its batch, a few neighbouring queries of that."""

from __future__ import annotations

from typing import Any

import torch

from attngen.plan.work import first_position
from attngen.spec.model import Kind

# Keywords with one entry, or row, of each sequence.
OF_SEQUENCES = ("q", "k", "v", "prefix", "offsets", "key_range", "block_count", "block_index")


def first_sequence(given: dict[str, Any]) -> dict[str, Any]:
    """A call's keywords with the first sequence alone."""
    return {name: x[:1] if name in OF_SEQUENCES and x is not None else x for name, x in given.items()}


def cut_queries(kind: Kind, given: dict[str, Any], rows: slice) -> dict[str, Any]:
    """Keywords of one sequence with some of its neighbouring queries, from one that begins a listed block."""
    q = given["q"]
    place = first_position(kind, q.shape[2], given["k"].shape[2])
    offsets = given.get("offsets")
    if offsets is None:
        offsets = torch.tensor([place], dtype=torch.int32, device=q.device)
    cut = {"q": q[:, :, rows], "offsets": offsets + rows.start}
    if kind.blocks is not None:
        begin = rows.start // kind.blocks.size
        cut |= {name: given[name][:, :, begin:].contiguous() for name in ("block_count", "block_index")}
    return given | cut
