"""What attention of a kind costs at one set of sizes, and the least time it could take on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from attngen.plan.backward import BackwardPlan
from attngen.plan.backward_work import backward_bytes, backward_flops, kernel_bytes, kernel_flops
from attngen.plan.forward import ForwardPlan, plan_forward
from attngen.plan.work import compulsory_bytes, useful_flops, visible_pairs
from attngen.problem import Problem
from attngen.report.quantities import digits, duration, quantity
from attngen.target import Target

Limit = Literal["math", "bytes", "exponentials"]


@dataclass(frozen=True)
class Work:
    """One call, counted by what must be done at least: visible pairs, each tensor moved once."""

    pairs: int  # visible (query, key) pairs of one head
    all_pairs: int
    flops: float
    bytes: float
    exps: float
    math_ms: float
    bytes_ms: float
    exp_ms: float

    @property
    def limits(self) -> dict[Limit, float]:
        """The least time in ms that each limit of the chip allows."""
        return {"math": self.math_ms, "bytes": self.bytes_ms, "exponentials": self.exp_ms}

    @property
    def bound(self) -> Limit:
        """The limit that takes longest."""
        return max(self.limits, key=lambda limit: self.limits[limit])

    @property
    def floor_ms(self) -> float:
        """No kernel on this GPU is faster than this."""
        return max(self.limits.values())

    @property
    def intensity(self) -> float:
        """FLOP for each byte that must move."""
        return self.flops / self.bytes

    def tflops(self, ms: float) -> float:
        return self.flops / ms * 1e-9

    def gbps(self, ms: float) -> float:
        return self.bytes / ms * 1e-6

    def share(self, ms: float) -> float:
        """Of the roofline: 1.0 is as fast as the chip could be."""
        return self.floor_ms / ms

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "floor_ms": self.floor_ms, "bound": self.bound, "intensity": self.intensity}


def work_of(plan: ForwardPlan, batch: int, seq_q: int, seq_k: int, target: Target) -> Work:
    """The work of one forward call."""
    problem = Problem("forward", plan.kind.digest(), batch, seq_q, seq_k)
    return _work(plan, problem, useful_flops(plan, problem), compulsory_bytes(plan, problem), target)


def backward_work_of(plan: ForwardPlan, batch: int, seq_q: int, seq_k: int, target: Target) -> Work:
    """The work of the backward pass of a forward call: the gradients of q, k and v, each weight computed once more."""
    problem = Problem("forward", plan.kind.digest(), batch, seq_q, seq_k)
    return _work(plan, problem, backward_flops(plan, problem), backward_bytes(plan, problem), target)


def kernel_work_of(plan: BackwardPlan, batch: int, seq_q: int, seq_k: int, target: Target) -> Work:
    """The work of one kernel of a backward pass, its share of the operations as ``plan.backward_work`` says."""
    forward = plan_forward(plan.kind)
    problem = Problem(plan.kernel, plan.kind.digest(), batch, seq_q, seq_k)
    flops, moved = kernel_flops(plan, forward, problem), kernel_bytes(plan, problem)
    return _work(forward, problem, flops, moved, target, weights=plan.kernel != "backward_rows")


def _work(
    plan: ForwardPlan, problem: Problem, flops: float, moved: float, target: Target, weights: bool = True
) -> Work:
    """``weights`` says whether a weight of every visible pair is computed."""
    kind = plan.kind
    pairs = visible_pairs(plan, problem.seq_q, problem.seq_k)
    exps = float(problem.batch * kind.heads.query * pairs) if weights else 0.0
    return Work(
        pairs=pairs,
        all_pairs=problem.seq_q * problem.seq_k,
        flops=flops,
        bytes=moved,
        exps=exps,
        math_ms=flops / target.peak_flops(kind.dtype) * 1e3,
        bytes_ms=moved / target.memory_bandwidth * 1e3,
        exp_ms=exps / target.exp2_rate * 1e3,
    )


def summed(parts: Sequence[Work], all_pairs: int) -> Work:
    """Several calls as one."""
    sums = {name: sum(getattr(part, name) for part in parts) for name in vars(parts[0])}
    return Work(**{**sums, "all_pairs": all_pairs})


def floor_in_words(work: Work, target: Target) -> str:
    """``at least 0.345 ms on h200, by math: 275 GFLOP, 271 MB, 1016 FLOP/B``."""
    amounts = f"{quantity(work.flops, 'FLOP')}, {quantity(work.bytes, 'B')}, {digits(work.intensity)} FLOP/B"
    return f"at least {duration(work.floor_ms)} on {target.name}, by {work.bound}: {amounts}"
