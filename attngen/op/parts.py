"""Queries that attend to chosen blocks go through a workspace in parts: which there are, and what it holds of one."""

from __future__ import annotations

from typing import NamedTuple

import torch

WORKSPACE_BYTES = 256 * 2**20  # of results of single blocks, and of what sorts queries
WORD_QUERIES = 32  # a bit each
MOST_ENTRIES = 2**30  # of a part, times the heads of a list: rows and entries are counted in 32 bits
TILE_BYTES, SEGMENT_BYTES, MARK_BYTES = 16, 16, 8  # of each tile, each segment and each word of a segment


class Part(NamedTuple):
    """Some lists, counted over all sequences, and some neighbouring queries of each."""

    first_list: int
    part_lists: int
    first_query: int
    queries: int


class Workspace(NamedTuple):
    """Memory for the largest part."""

    zeroed: torch.Tensor  # the marks and the table: to be filled with zeros for every part
    marks: torch.Tensor
    table: torch.Tensor
    sizes: torch.Tensor  # of segments
    ends: torch.Tensor
    order: torch.Tensor
    partial: torch.Tensor  # results of single blocks
    partial_lse: torch.Tensor
    partial_scale: torch.Tensor | None  # of results in float16


class Sizes(NamedTuple):
    """How much a call has of everything, and a part of it."""

    batch: int
    lists: int  # of a sequence
    seq_q: int
    top_k: int  # entries of a list
    blocks: int  # of a sequence's keys
    heads: int  # query heads that attend by one list
    v_dim: int
    partials: torch.dtype  # of results of single blocks
    rows: int  # of a tile

    def parts(self, workspace_bytes: int) -> list[Part]:
        """Lists and queries of each part; the first is as large as any."""
        row = self.v_dim * self.partials.itemsize + (8 if self.partials == torch.float16 else 4)
        query = self.top_k * (self.heads * row + 4 + -(-TILE_BYTES * self.heads // self.rows))
        of_list = self.blocks * (SEGMENT_BYTES + TILE_BYTES)
        words = -(-self.seq_q // WORD_QUERIES)
        together = workspace_bytes // (self.seq_q * query + of_list + words * self.blocks * MARK_BYTES)
        together = min(together, MOST_ENTRIES // (self.seq_q * self.top_k * self.heads))
        most = (workspace_bytes - of_list) // (query + -(-self.blocks * MARK_BYTES // WORD_QUERIES))
        most = min(most, MOST_ENTRIES // (self.top_k * self.heads))
        return split(self.batch * self.lists, self.seq_q, together, most, WORD_QUERIES)

    def words(self, part: Part) -> int:
        """Words that hold a bit for each query."""
        return -(-part.queries // WORD_QUERIES)

    def segments(self, part: Part) -> int:
        """Blocks of all lists."""
        return part.part_lists * self.blocks

    def entries(self, part: Part) -> int:
        """Places in all lists."""
        return part.part_lists * part.queries * self.top_k

    def tiles(self, part: Part) -> int:
        """At most: whole ones, and one of each segment that is not."""
        entries = self.entries(part)
        return entries * self.heads // self.rows + min(self.segments(part), entries)

    def workspace(self, part: Part, device: torch.device) -> Workspace:
        """Uninitialised memory for ``part`` and smaller ones."""
        segments, entries = self.segments(part), self.entries(part)

        def empty(dtype: torch.dtype, *shape: int) -> torch.Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        marks = -(-segments * self.words(part) * MARK_BYTES // TILE_BYTES) * TILE_BYTES // 4
        zeroed = empty(torch.int32, marks + self.tiles(part) * TILE_BYTES // 4)
        return Workspace(
            zeroed=zeroed,
            marks=zeroed[:marks],
            table=zeroed[marks:],
            sizes=empty(torch.int64, segments),
            ends=empty(torch.int64, segments),
            order=empty(torch.int32, entries),
            partial=empty(self.partials, entries * self.heads, self.v_dim),
            partial_lse=empty(torch.float32, entries * self.heads),
            partial_scale=empty(torch.float32, entries * self.heads) if self.partials == torch.float16 else None,
        )


def split(lists: int, seq_q: int, together: int, most: int, unit: int) -> list[Part]:
    """Parts of about equal size: up to ``together`` whole lists, or where that is 0, up to ``most`` queries of one, a
    multiple of ``unit``. The first is as large as any."""
    if together:
        equal = -(-lists // -(-lists // together))
        return [Part(n, min(equal, lists - n), 0, seq_q) for n in range(0, lists, equal)]
    most = max(most // unit * unit, unit)
    length = -(-seq_q // -(-seq_q // most) // unit) * unit
    return [Part(n, 1, q, min(length, seq_q - q)) for n in range(lists) for q in range(0, seq_q, length)]
