"""How much work the kernels of a backward pass are at given sizes: operations, bytes, and the tiles that they go over.

A backward pass is counted as 2.5 times the operations of the forward pass, five products of queries and keys for two:
S and dP, then dV, dK and dQ. Of the seven that these kernels compute, with S and dP once for each of them, backward_kv
has four and backward_q three; each is credited with that share of the five.
"""

from __future__ import annotations

from attngen.plan.backward import BackwardPlan
from attngen.plan.forward import ForwardPlan
from attngen.plan.work import ELEMENT_BYTES, compulsory_bytes, useful_flops
from attngen.problem import Problem

FORWARD_SHARE = 2.5  # operations of a backward pass for each of the forward pass
PRODUCTS = {"backward_kv": 4, "backward_q": 3}  # of a tile
ROW_BYTES = 4  # of a number in float32


def backward_flops(forward: ForwardPlan, problem: Problem) -> float:
    """Operations that the gradients of q, k and v need for the visible pairs."""
    return FORWARD_SHARE * useful_flops(forward, problem)


def backward_bytes(forward: ForwardPlan, problem: Problem) -> float:
    """q, k, v, out, its gradient and lse read once, the gradients of q, k and v written once."""
    kind, element = forward.kind, ELEMENT_BYTES[forward.kind.dtype]
    queries, keys = _rows(problem, kind.heads.query, problem.seq_q), _rows(problem, kind.heads.kv, problem.seq_k)
    gradients = queries * (kind.head_dim.qk + kind.head_dim.v) + keys * (kind.head_dim.qk + kind.head_dim.v)
    return compulsory_bytes(forward, problem) + float(gradients * element)


def kernel_flops(plan: BackwardPlan, forward: ForwardPlan, problem: Problem) -> float:
    """Of one kernel: its products' share of the whole pass's operations; of backward_rows those of delta."""
    kind = plan.kind
    if plan.kernel == "backward_rows":
        return 2.0 * _rows(problem, kind.heads.query, problem.seq_q) * kind.head_dim.v
    return backward_flops(forward, problem) * PRODUCTS[plan.kernel] / sum(PRODUCTS.values())


def kernel_bytes(plan: BackwardPlan, problem: Problem) -> float:
    """Of one kernel: what it takes, read once, and what it makes, written once."""
    kind, element = plan.kind, ELEMENT_BYTES[plan.kind.dtype]
    queries, keys = _rows(problem, kind.heads.query, problem.seq_q), _rows(problem, kind.heads.kv, problem.seq_k)
    if plan.kernel == "backward_rows":  # out, its gradient and lse; two numbers of each row
        return float(queries * (2 * kind.head_dim.v * element + 3 * ROW_BYTES))
    width = kind.head_dim.qk + kind.head_dim.v
    taken = (queries + keys) * width * element + 2 * queries * ROW_BYTES
    made = keys * width if plan.kernel == "backward_kv" else queries * kind.head_dim.qk
    return float(taken + made * element)


def _rows(problem: Problem, heads: int, length: int) -> int:
    return problem.batch * heads * length
