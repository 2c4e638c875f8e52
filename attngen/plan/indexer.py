"""What the kernel of a lightning indexer's logits must do (DeepSeek-V3.2), before any word of Triton."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attngen.errors import NotGeneratedError
from attngen.plan.work import ELEMENT_BYTES
from attngen.problem import next_power_of_two
from attngen.spec.model import Indexer, Kind

IndexDtype = Literal["float8_e4m3", "bfloat16", "float16"]
LogitsDtype = Literal["float32", "bfloat16"]
LEAST_HEADS, MOST_HEADS = 8, 128
LEAST_DIM, MOST_DIM = 32, 128
COPY_BYTES = 16  # the copy engine moves rows of a multiple of these


@dataclass(frozen=True)
class IndexerPlan:
    """Logits of every key that a query may see: k_scale[s] * sum over heads of w[t, h] * relu(q[t, h] . k[s]).

    ``clean``: what lies outside a query's keys is -inf; else it is left as it was, or holds anything.
    """

    kind: Kind
    heads: int
    head_dim: int
    dtype: IndexDtype
    logits: LogitsDtype = "float32"
    clean: bool = False
    kernel: Literal["indexer"] = "indexer"

    @property
    def padded_heads(self) -> int:
        """Heads of a tile: those past the last are zeros."""
        return next_power_of_two(self.heads)

    @property
    def width(self) -> int:
        """Columns of a query or key as they are held."""
        return next_power_of_two(self.head_dim)

    @property
    def element_bytes(self) -> int:
        return ELEMENT_BYTES[self.dtype]

    @property
    def scaled(self) -> bool:
        """Whether keys have a scale each."""
        return self.dtype == "float8_e4m3"


def plan_indexer(
    kind: Kind, *, dtype: IndexDtype | None = None, logits: LogitsDtype = "float32", clean: bool = False
) -> IndexerPlan:
    """The plan of ``kind``'s indexer, in ``dtype`` where it is not the spec's: not every GPU has FP8."""
    indexer = indexer_of(kind)
    plan = IndexerPlan(kind, indexer.heads, indexer.head_dim, dtype or indexer.dtype, logits, clean)
    if not LEAST_HEADS <= plan.heads <= MOST_HEADS:
        raise NotGeneratedError(
            f"kind '{kind.name}': its indexer has {plan.heads} heads; {LEAST_HEADS} to {MOST_HEADS} are generated"
        )
    aligned = plan.head_dim * plan.element_bytes % COPY_BYTES == 0
    if not LEAST_DIM <= plan.head_dim <= MOST_DIM or not aligned:
        raise NotGeneratedError(
            f"kind '{kind.name}': its indexer is {plan.head_dim} wide in {plan.dtype}; {LEAST_DIM} to {MOST_DIM} "
            f"columns of a multiple of {COPY_BYTES} bytes are generated"
        )
    return plan


def indexer_of(kind: Kind) -> Indexer:
    """The indexer of a kind that has one, with one scale a token; NotGeneratedError for others."""
    indexer = None if kind.select is None else kind.select.indexer
    if indexer is None:
        raise NotGeneratedError(f"kind '{kind.name}' has no indexer")
    if indexer.scale is not None and indexer.scale.block < indexer.head_dim:
        raise NotGeneratedError(
            f"kind '{kind.name}': its indexer has a scale for every {indexer.scale.block} of {indexer.head_dim} "
            "columns; one for all of them is generated"
        )
    return indexer
