"""What the kernels of a backward pass must do: one prepares rows, one makes dq, one makes dk and dv, or one all three.

With P = exp(s - L), L the log of a row's denominator, and delta = sum(out * dout) of a row:

    dS = P * (dout v^T - delta)        dV = P^T dout        dQ = dS k * scale        dK = dS^T q * scale

(FlashAttention-2, arXiv:2307.08691, algorithm 2). Each program owns what it writes: a tile of queries goes over the
keys it sees, a tile of keys over the queries that see it, so that sums have one order. Where one kernel makes all
three, in five products for seven, tiles of keys add to dq one after another, in the order of the keys.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from attngen.errors import NotGeneratedError
from attngen.plan.attention import AttentionPlan
from attngen.plan.forward import WIDENING, ForwardPlan, loops_of, plan_forward
from attngen.plan.transpose import transposed
from attngen.spec.learned import Learned, learned_reads
from attngen.spec.model import Kind
from attngen.spec.reads import Positions

OF_ROWS: tuple[Positions, ...] = ("none", "query")  # learned reads whose shares are summed over keys
OF_PAIRS: tuple[Positions, ...] = ("distance", "both")  # those whose every share has a place of its own
BackwardKernel = Literal["backward_rows", "backward_q", "backward_kv", "backward_fused", "backward_elements"]


@dataclass(frozen=True)
class BackwardPlan(AttentionPlan):
    """One kernel of a backward pass.

    Where a program goes over queries, ``terms`` and ``loops`` say which of them see a key: their symbols are those of
    ``attngen.plan.transpose``. ``backward_rows`` has no loops. ``learned`` are the reads whose shares it makes.
    """

    kernel: BackwardKernel
    learned: tuple[Learned, ...] = ()
    # Whether it sums shares over keys, or prepares rows for that: there what rounding of out took from delta is put
    # back, which would add up.
    sums_keys: bool = False

    @property
    def by_key(self) -> bool:
        """Whether a program has a tile of keys and goes over the queries that see it."""
        return self.kernel in ("backward_kv", "backward_fused")

    @property
    def gradients(self) -> tuple[str, ...]:
        """Of q, k and v, those whose gradients it makes."""
        of_kernels = {"backward_q": ("q",), "backward_kv": ("k", "v"), "backward_fused": ("k", "v", "q")}
        return of_kernels.get(self.kernel, ())

    def makes(self, reads: Collection[int]) -> bool:
        """Whether it makes the shares of some of these reads, by their numbers; Hopper's schedules do not."""
        return any(read.index in reads for read in self.learned)


@dataclass(frozen=True)
class BackwardPlans:
    """The kernels of a kind's backward pass, in the order in which they run.

    ``fused`` does what ``kv`` and ``q`` do, where that can be faster. ``elements`` writes the shares of learned reads
    whose place depends on both positions, strips of queries at a time; there is none for packed documents.
    """

    rows: BackwardPlan
    kv: BackwardPlan
    q: BackwardPlan
    fused: BackwardPlan | None = None
    elements: BackwardPlan | None = None

    def __iter__(self) -> Iterator[BackwardPlan]:
        plans = (self.rows, self.kv, self.q, self.fused, self.elements)
        yield from (plan for plan in plans if plan is not None)


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
    kv_loops = loops_of(kind, by_key)
    kv = plan("backward_kv", by_key, kv_loops, "key")
    return BackwardPlans(
        rows=plan("backward_rows", (), ()),
        kv=kv,
        q=plan("backward_q", forward.terms, forward.loops, *OF_ROWS),
        fused=plan("backward_fused", by_key, kv_loops) if in_order(forward, kv) and not learned else None,
        elements=elements if elements.learned and not kind.documents else None,
    )


def in_order(forward: ForwardPlan, kv: BackwardPlan) -> bool:
    """Whether the blocks of keys that a tile of queries sees are neighbours: then blocks can add to its gradient in
    their order, and each waits for the one before it alone. Not where later blocks have more to do: those must begin
    first, and would wait for blocks that do not begin before they end."""
    others = ("mask", "chunk", "blocks", "documents", "dilation", *WIDENING)
    plain = not any(getattr(forward.kind, field) for field in others)
    return plain and len(forward.loops) == len(kv.loops) == 1 and not kv.unbalanced


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
