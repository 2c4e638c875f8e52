"""What the forward kernel of one kind must do, before any word of Triton."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from attngen.errors import NotGeneratedError
from attngen.plan.attention import AttentionPlan, run_time_arguments
from attngen.plan.chunks import MIN_WIDTH, head_dim_chunks
from attngen.plan.keys import I, Interval, Term, hull, key_intervals
from attngen.plan.visibility import visibility
from attngen.spec.model import Kind

WIDENING = ("prefix", "always_first", "global_tokens")  # let keys be seen that other fields hide


@dataclass(frozen=True)
class ForwardPlan(AttentionPlan):
    """The forward kernel: softmax(score(q k^T)) v and its lse."""

    kernel: Literal["forward"] = "forward"

    @property
    def span(self) -> tuple[int, int] | None:
        """(left, right) when query i sees keys within [i - left, i + right] and that is a bounded window."""
        if len(self.loops) != 1:
            return None
        term = self.terms[0]
        lowers = [bound.expression - I for bound in term.lowers]
        uppers = [bound.expression - I for bound in term.uppers]
        left = [-edge for edge in lowers if edge.is_Integer]
        right = [edge - 1 for edge in uppers if edge.is_Integer]
        if len(self.terms) != 1 or not left or not right:
            return None
        return int(min(left)), int(min(right))


@lru_cache(maxsize=256)
def plan_forward(kind: Kind) -> ForwardPlan:
    """The plan of ``kind``'s forward kernel; NotGeneratedError for fields whose kernels do not exist yet."""
    if kind.select is not None and kind.select.top_k is not None:
        raise NotGeneratedError(
            f"kind '{kind.name}' selects keys and has no forward kernel, but others, which attngen.load() launches"
        )
    for field in ("select", "latent", "branches"):
        if getattr(kind, field):
            raise NotGeneratedError(
                f"kind '{kind.name}': '{field}' is not generated yet; 'attngen check' and 'explain' accept it"
            )
    if reason := why_no_lists(kind):
        raise NotGeneratedError(f"kind '{kind.name}': {reason}")
    terms = visibility(kind)
    return ForwardPlan(
        kind=kind,
        terms=terms,
        loops=loops_of(kind, terms),
        qk_chunks=head_dim_chunks(kind.head_dim.qk, 2 * MIN_WIDTH if kind.quantised else MIN_WIDTH),
        v_chunks=head_dim_chunks(kind.head_dim.v),
        arguments=run_time_arguments(kind),
    )


def loops_of(kind: Kind, terms: tuple[Term, ...]) -> tuple[Interval, ...]:
    """The loops that serve ``terms``; over listed blocks there is one."""
    loops = key_intervals(terms)
    return loops if kind.blocks is None else (hull(list(loops)),)


def why_no_lists(kind: Kind) -> str | None:
    """Why a kind with listed blocks is not generated; None where it is, or has none."""
    if kind.blocks is None:
        return None
    if kind.blocks.size % MIN_WIDTH:
        return f"blocks of {kind.blocks.size} are not generated; a multiple of {MIN_WIDTH} would be right"
    for field in (*WIDENING, "documents"):
        if getattr(kind, field):
            return f"'{field.removesuffix('_first')}' is not generated beside 'blocks'"
    if kind.quantised:
        return f"'blocks' is not generated in {kind.dtype}"
    return None
