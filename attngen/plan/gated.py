"""What the kernel that sums branches must do: each result times its gate, added up in float32 and rounded once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attngen.errors import NotGeneratedError
from attngen.plan.chunks import Chunk, head_dim_chunks
from attngen.spec.model import Kind

Gates = Literal["float16", "bfloat16", "float32"]


@dataclass(frozen=True)
class GatedPlan:
    """out = sum over the kind's branches of gate * result, for every query and head; ``gates`` is the gates' dtype."""

    kind: Kind
    gates: Gates
    kernel: Literal["gated"] = "gated"

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """Columns of values."""
        return head_dim_chunks(self.kind.head_dim.v)

    @property
    def width(self) -> int:
        """Columns as they are held."""
        return sum(chunk.width for chunk in self.chunks)


def plan_gated(kind: Kind, gates: Gates | None = None) -> GatedPlan:
    """The plan of the sum of ``kind``'s branches, by gates in its own dtype or another; NotGeneratedError for a kind
    without branches."""
    if not kind.branches:
        raise NotGeneratedError(f"kind '{kind.name}' has no branches, so nothing is summed by gates")
    if kind.quantised:
        raise NotGeneratedError(f"kind '{kind.name}': sums of branches are not generated for {kind.dtype}")
    dtypes: dict[str, Gates] = {"float16": "float16", "bfloat16": "bfloat16", "float32": "float32"}
    return GatedPlan(kind, gates or dtypes[kind.dtype])
