"""What the kernels of a backward pass must do: one prepares rows, one makes dq, one makes dk and dv.

With P = exp(s - L), L the log of a row's denominator, and delta = sum(out * dout) of a row:

    dS = P * (dout v^T - delta)        dV = P^T dout        dQ = dS k * scale        dK = dS^T q * scale

(FlashAttention-2, arXiv:2307.08691, algorithm 2). Each program owns what it writes: a tile of queries goes over the
keys it sees, a tile of keys over the queries that see it, so that sums have one order and need no atomics.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from attngen.errors import NotGeneratedError
from attngen.plan.attention import AttentionPlan
from attngen.plan.forward import loops_of, plan_forward
from attngen.plan.transpose import transposed
from attngen.spec.learned import Learned, learned_reads
from attngen.spec.model import Kind
from attngen.spec.reads import Positions

OF_ROWS: tuple[Positions, ...] = ("none", "query")  # learned reads whose shares are summed over keys
OF_PAIRS: tuple[Positions, ...] = ("distance", "both")  # those whose every share has a place of its own
BackwardKernel = Literal["backward_rows", "backward_q", "backward_kv", "backward_elements"]


@dataclass(frozen=True)
class BackwardPlan(AttentionPlan):
    """One kernel of a backward pass.

    Of ``backward_kv``, ``terms`` and ``loops`` say which queries see a key: their symbols are those of
    ``attngen.plan.transpose``. ``backward_rows`` has no loops. ``learned`` are the reads whose shares it makes.
    """

    kernel: BackwardKernel
    learned: tuple[Learned, ...] = ()
    # Whether it sums shares over keys, or prepares rows for that: there what rounding of out took from delta is put
    # back, which would add up.
    sums_keys: bool = False

    def makes(self, reads: Collection[int]) -> bool:
        """Whether it makes the shares of some of these reads, by their numbers; Hopper's schedules do not."""
        return any(read.index in reads for read in self.learned)


@dataclass(frozen=True)
class BackwardPlans:
    """The kernels of a kind's backward pass, in the order in which they run.

    ``elements`` writes the shares of learned reads whose place depends on both positions, strips of queries at a time;
    there is none for packed documents.
    """

    rows: BackwardPlan
    kv: BackwardPlan
    q: BackwardPlan
    elements: BackwardPlan | None = None

    def __iter__(self) -> Iterator[BackwardPlan]:
        yield from (self.rows, self.kv, self.q)
        if self.elements is not None:
            yield self.elements


def plan_backward(kind: Kind) -> BackwardPlans:
    """The kernels of ``kind``'s backward pass; NotGeneratedError for kinds that have none."""
    if reason := why_no_backward(kind):
        raise NotGeneratedError(f"kind '{kind.name}' {reason}")
    forward = plan_forward(kind)
    by_key = transposed(forward.terms)
    learned = learned_reads(kind)
    summed = any(read.along in OF_ROWS for read in learned)

    def plan(kernel: BackwardKernel, terms: tuple, loops: tuple, *along: Positions) -> BackwardPlan:
        shares = tuple(read for read in learned if read.along in along)
        parts = (kind, terms, loops, forward.qk_chunks, forward.v_chunks, forward.arguments)
        return BackwardPlan(*parts, kernel, shares, sums_keys=summed and kernel in ("backward_rows", "backward_q"))

    elements = plan("backward_elements", forward.terms, forward.loops, *OF_PAIRS)
    return BackwardPlans(
        rows=plan("backward_rows", (), ()),
        kv=plan("backward_kv", by_key, loops_of(kind, by_key), "key"),
        q=plan("backward_q", forward.terms, forward.loops, *OF_ROWS),
        elements=elements if elements.learned and not kind.documents else None,
    )


def backward_plans(kind: Kind) -> tuple[BackwardPlan, ...]:
    """The same, none for kinds that have no backward pass."""
    return () if lacks_backward(kind) else tuple(plan_backward(kind))


def why_no_backward(kind: Kind) -> str | None:
    """Why a kind has no backward pass, and what to do about it; None where it has one."""
    reason = lacks_backward(kind)
    if reason is None:
        return None
    if kind.quantised and kind.select is None and not kind.branches:
        return f"{reason}, and has no backward pass; train in bfloat16 or float16"
    return f"{reason}, and has no backward pass yet; call it under torch.no_grad()"


def lacks_backward(kind: Kind) -> str | None:
    """What of a kind stands against a backward pass; None where it has one."""
    if kind.select is not None:
        return "selects keys"
    if kind.branches:
        return "is in branches"
    return f"is in {kind.dtype}" if kind.quantised else None
