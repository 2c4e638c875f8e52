"""What the kernel that attends to listed keys must do: each query has its own list of key indices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from attngen.errors import NotGeneratedError
from attngen.plan.attention import LOG2E
from attngen.plan.chunks import Chunk, head_dim_chunks
from attngen.plan.forward import WIDENING
from attngen.plan.keys import Term
from attngen.plan.visibility import visibility
from attngen.spec.model import Kind

UNGENERATED = ("mask", "score", "alibi", "documents", "blocks", *WIDENING)


@dataclass(frozen=True)
class GatheredPlan:
    """Attention of every query over the keys that its list names and its kind lets it see.

    An entry of a list names ``block`` neighbouring keys, and ``term`` says which of the listed keys count. With
    ``shared_values`` a key's first columns are its value: each row is loaded once, and ``v_chunks`` are the first of
    ``qk_chunks``.
    """

    kind: Kind
    term: Term
    qk_chunks: tuple[Chunk, ...]
    v_chunks: tuple[Chunk, ...]
    shared_values: bool
    block: int = 1
    maxima: bool = False  # whether the greatest logit of each row is a result too
    kernel: Literal["gathered"] = "gathered"

    @property
    def exp_scale(self) -> float:
        """What turns a running score into base-2 units; a softcap wants the softmax scale before it."""
        return (self.kind.scale if self.kind.softcap is None else 1.0) * LOG2E

    def columns_end(self, chunk: Chunk) -> int:
        """One past the last column that belongs to a chunk of queries and keys: padding follows it."""
        return self.kind.head_dim.v if self.shared_values and chunk in self.v_chunks else self.kind.head_dim.qk


def plan_gathered(kind: Kind, *, maxima: bool = False) -> GatheredPlan:
    """The plan of ``kind``'s kernel over listed keys, which also gives the ``maxima`` of rows where that is asked for;
    NotGeneratedError for fields that it does not know."""
    for field in UNGENERATED:
        if getattr(kind, field):
            raise NotGeneratedError(f"kind '{kind.name}': '{field}' is not generated for lists of keys")
    if kind.quantised:
        raise NotGeneratedError(f"kind '{kind.name}': lists of keys are not generated for {kind.dtype}")
    (term,) = visibility(kind)
    blocks = kind.select.blocks if kind.select is not None else None
    if kind.latent is None:
        qk, v = head_dim_chunks(kind.head_dim.qk), head_dim_chunks(kind.head_dim.v)
        block = 1 if blocks is None else blocks.size
        return GatheredPlan(kind, term, qk, v, shared_values=False, block=block, maxima=maxima)
    if blocks is not None:
        raise NotGeneratedError(f"kind '{kind.name}': blocks of keys are not generated for a latent")
    rank, rope = kind.latent.rank, kind.latent.rope
    v = head_dim_chunks(rank)
    tail = head_dim_chunks(rope) if rope else ()
    qk = (*v, *(replace(c, index=len(v) + c.index, start=rank + c.start) for c in tail))
    return GatheredPlan(kind, term, qk, v, shared_values=True, maxima=maxima)
