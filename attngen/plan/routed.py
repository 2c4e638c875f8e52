"""What the kernels that route queries to blocks must do: each query head has its own list of key blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attngen.errors import NotGeneratedError
from attngen.plan.attention import LOG2E
from attngen.plan.chunks import Chunk, head_dim_chunks
from attngen.plan.gathered import UNGENERATED
from attngen.plan.keys import Interval, Term, interval_of
from attngen.plan.listed import blocks_of
from attngen.plan.visibility import visibility
from attngen.spec.model import BlockSelect, Kind

Partials = Literal["float16", "float32"]


@dataclass(frozen=True)
class RoutedPlan:
    """Attention over chosen blocks, a block at a time (MoBA, arXiv:2502.13189): queries are sorted by the blocks that
    they chose, tiles of those that chose one block attend to it, and what a query has of its blocks is merged.

    ``term`` says which keys of a chosen block count. ``partials`` is the dtype of results of one block: in float16 each
    row has a scale that brings its largest element to 2**15, so that elements down to 2**-29 of that keep 11 bits: an
    eighth of the error that weights in bfloat16 may have. Weights in float16 leave no such room, and float32 is kept.
    """

    kind: Kind
    term: Term
    qk_chunks: tuple[Chunk, ...]
    v_chunks: tuple[Chunk, ...]
    partials: Partials
    kernel: Literal["routed"] = "routed"

    @property
    def select(self) -> BlockSelect:
        """The selection that lists are of."""
        return blocks_of(self.kind)

    @property
    def heads_of_list(self) -> int:
        """Query heads that attend by one list."""
        return self.kind.heads.group if self.select.per == "kv_head" else 1

    @property
    def loop(self) -> Interval:
        """The keys of a tile of queries, which ``key_first`` and ``key_end`` bound to those of its block."""
        return interval_of(self.term)

    @property
    def exp_scale(self) -> float:
        """What turns a running score into base-2 units; a softcap wants the softmax scale before it."""
        return (self.kind.scale if self.kind.softcap is None else 1.0) * LOG2E


def plan_routed(kind: Kind) -> RoutedPlan:
    """The plan of ``kind``'s kernels over chosen blocks; NotGeneratedError for fields that they do not know."""
    blocks_of(kind)
    for field in (*UNGENERATED, "latent", "compress", "branches"):
        if getattr(kind, field):
            raise NotGeneratedError(f"kind '{kind.name}': '{field}' is not generated for chosen blocks")
    if kind.quantised:
        raise NotGeneratedError(f"kind '{kind.name}': chosen blocks are not generated for {kind.dtype}")
    (term,) = visibility(kind)
    return RoutedPlan(
        kind=kind,
        term=term,
        qk_chunks=head_dim_chunks(kind.head_dim.qk),
        v_chunks=head_dim_chunks(kind.head_dim.v),
        partials="float16" if kind.dtype == "bfloat16" else "float32",
    )
