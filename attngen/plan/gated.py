"""What the kernel that sums branches must do: each result times its gate, added up in float32 and rounded once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attngen.errors import NotGeneratedError
from attngen.plan.chunks import Chunk, head_dim_chunks, held_width
from attngen.spec.model import Kind


@dataclass(frozen=True)
class GatedPlan:
    """out = sum over the kind's branches of gate * result, for every query and head; gates are float32."""

    kind: Kind
    kernel: Literal["gated"] = "gated"

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """Columns of values."""
        return head_dim_chunks(self.kind.head_dim.v)

    @property
    def width(self) -> int:
        """Columns as they are held."""
        return held_width(self.chunks)


def plan_gated(kind: Kind) -> GatedPlan:
    """The plan of the sum of ``kind``'s branches; NotGeneratedError for a kind without any."""
    if not kind.branches:
        raise NotGeneratedError(f"kind '{kind.name}' has no branches, so nothing is summed by gates")
    if kind.quantised:
        raise NotGeneratedError(f"kind '{kind.name}': sums of branches are not generated for {kind.dtype}")
    return GatedPlan(kind)
