"""What the kernels of a backward pass are given, and how near to the reference each must come.

Named results: q, k and v, and ``shares N`` of the learned read N: sums over keys or queries, or the elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from attngen import reference
from attngen.op.checks import keywords_of
from attngen.op.gradient_launch import Call, Rows, Strip
from attngen.plan.attention import LOG2E
from attngen.plan.backward import BackwardPlan
from attngen.spec.model import Kind
from attngen.verify.bounds import SMALLEST, U32, UNIT
from attngen.verify.strips import cut_queries, first_sequence

STRIP = 128  # queries: as many as the largest tile has, so that a strip begins at one of any config
ROUNDED_ONCE = 4  # times what rounding one number costs: a weight, its gradient, the result, and what sums lose
FAST_MATH = 2.0**-20  # relative error of float32 where exponentials and logarithms are fast ones
FLOAT32 = 2e-5  # the same of gradients in float32, whose sums are long

Share = Callable[[torch.Tensor], float]  # how far a result is from right, of what it may be


@dataclass(frozen=True)
class BackwardPass:
    """A call, its results and their gradients."""

    kind: Kind
    given: dict[str, Any]  # q, k, v and the op's other keywords
    out: torch.Tensor
    lse: torch.Tensor
    dout: torch.Tensor
    dlse: torch.Tensor | None = None

    @classmethod
    def of(cls, kind: Kind, given: dict[str, Any], results: tuple, *, of_lse: bool, seed: int = 0) -> BackwardPass:
        """Of a call's results, with random gradients."""
        out, lse = results
        generator = torch.Generator(device=out.device).manual_seed(seed)
        dout, dlse = (torch.randn(x.shape, generator=generator, device=x.device).to(x) for x in (out, lse))
        return cls(kind, given, out, lse, dout, dlse if of_lse else None)

    def call(self, plan: BackwardPlan) -> Call:
        given = {name: self.given.get(name) for name in keywords_of(plan)}
        return Call(self.given["q"], self.given["k"], self.given["v"], self.dout, given)

    def first(self) -> BackwardPass:
        """The first sequence alone, or the first packed document as one."""
        given = dict(self.given)
        end_q, end_k = (x.shape[2] for x in (given["q"], given["k"]))
        if self.kind.documents:
            end_q, end_k = (int(given.pop(f"cu_seqlens_{side}")[1]) for side in "qk")
        given = first_sequence(given)
        given |= {"q": given["q"][:, :, :end_q], "k": given["k"][:, :, :end_k], "v": given["v"][:, :, :end_k]}
        out, lse, dout = (x[:1, :, :end_q] for x in (self.out, self.lse, self.dout))
        dlse = None if self.dlse is None else self.dlse[:1, :, :end_q]
        return BackwardPass(replace(self.kind, documents=False), given, out, lse, dout, dlse)

    def cut(self, rows: slice, kv_heads: int | None = None) -> BackwardPass:
        """Some neighbouring queries of the first sequence, from one that begins a listed block; of its first heads."""
        one, given = self.first(), dict(self.first().given)
        kv_heads = given["k"].shape[1] if kv_heads is None else kv_heads
        heads = slice(kv_heads * self.kind.heads.group)
        given |= {name: given[name][heads] for name in ("sink", "alibi_slopes") if given.get(name) is not None}
        of_heads = ("q", "block_count", "block_index")
        given |= {name: given[name][:, heads] for name in of_heads if given.get(name) is not None}
        given |= {name: given[name][:, :kv_heads] for name in ("k", "v")}
        given = cut_queries(self.kind, given, rows)
        out, lse, dout = (x[:, heads, rows] for x in (one.out, one.lse, one.dout))
        return BackwardPass(one.kind, given, out, lse, dout, None if one.dlse is None else one.dlse[:, heads, rows])


def kernel_inputs(plan: BackwardPlan, one: BackwardPass, strip: Strip | None = None) -> dict[str, Any]:
    """Keywords of a kernel's launcher; its elements are those of ``strip``, or of the last queries."""
    if plan.kernel == "backward_rows":
        sink = one.given.get("sink")
        of_rows = {"out": one.out, "dout": one.dout, "lse": one.lse, "dlse": one.dlse, "sink": sink}
        return {**of_rows, "keep_dlse": plan.sums_keys, "sink_shares": sink is not None}
    exact = exact_rows(one)
    of_lse = exact["of_lse"].float() if "of_lse" in exact else None
    rows = Rows(exact["log_sum"].float(), exact["delta"].float(), of_lse)
    inputs = {"call": one.call(plan), "rows": rows}
    if plan.kernel != "backward_elements":
        return {**inputs, "wanted": [read.index for read in plan.learned]}
    strip = last_strip(one) if strip is None else strip
    return {**inputs, "index": plan.learned[0].index, "strip": strip, "columns": columns_of(plan, one, strip)}


def last_strip(one: BackwardPass) -> Strip:
    """The last queries of every head of the first sequence."""
    _, heads, seq_q, _ = one.given["q"].shape
    step = STRIP if one.kind.blocks is None else math.lcm(STRIP, one.kind.blocks.size)
    first = (seq_q - 1) // step * step
    return Strip(0, heads, first, seq_q - first)


def columns_of(plan: BackwardPlan, one: BackwardPass, strip: Strip) -> int:
    """Keys, or of a read that depends on the distance, distances of keys from a strip's queries."""
    seq_k = one.given["k"].shape[2]
    return seq_k + strip.queries - 1 if plan.learned[0].along == "distance" else seq_k


def named_results(plan: BackwardPlan, result: Any) -> dict[str, torch.Tensor | None]:
    """What a kernel's launcher returns, by name; of the sink's shares their sum. None for what its schedule leaves to
    others."""
    if plan.kernel == "backward_rows":
        found = {"log_sum": result.log_sum, "delta": result.delta}
        found |= {} if result.of_lse is None else {"of_lse": result.of_lse}
        return found if result.sink_shares is None else {**found, "sink": result.sink_shares.double().sum((0, 2))}
    if plan.kernel == "backward_elements":
        return {f"shares {plan.learned[0].index}": result}
    *gradients, sums = result
    made = {read.index: None for read in plan.learned} if sums is None else sums
    return dict(zip(plan.gradients, gradients, strict=True)) | {f"shares {n}": x for n, x in made.items()}


def exact_rows(one: BackwardPass) -> dict[str, torch.Tensor]:
    """What backward_rows makes of out and lse as they are, in float64."""
    lse, sink = one.lse.double(), one.given.get("sink")
    seen = lse > -torch.inf
    total = lse if sink is None else torch.logaddexp(lse, sink.double()[:, None])
    delta = (one.out.double() * one.dout.double()).sum(-1)
    exact = {"log_sum": torch.where(seen, total * LOG2E, torch.inf)}
    if sink is not None:
        exact["sink"] = -(delta * torch.exp(sink.double()[:, None] - total)).where(seen, 0.0).sum((0, 2))
    if one.dlse is not None:
        exact["of_lse"] = one.dlse.double() * torch.exp(total - lse).where(seen, 0.0)
        delta = delta - exact["of_lse"]
    return exact | {"delta": delta.where(seen, 0.0)}


def rows_answers(plan: BackwardPlan, one: BackwardPass) -> dict[str, Share]:
    """Of backward_rows: sums and logarithms in float32."""
    exact = exact_rows(one)
    sizes = exact_rows(
        replace(one, out=one.out.abs(), dout=one.dout.abs(), dlse=None if one.dlse is None else -one.dlse.abs())
    )
    loss = FAST_MATH + U32 * one.kind.head_dim.v
    finite = exact["log_sum"].abs().masked_fill(exact["log_sum"] == torch.inf, 0.0)
    bounds = {"log_sum": FAST_MATH * (finite + 1.0), "delta": loss * sizes["delta"]}
    kept = ("sink", "of_lse") if plan.sums_keys else ("sink",)
    bounds |= {name: loss * sizes[name].abs() for name in kept if name in sizes}
    return {name: _by_element(exact[name], bound) for name, bound in bounds.items()}


def answers(plan: BackwardPlan, one: BackwardPass, *, keys: slice = slice(None)) -> dict[str, Share]:
    """For each named result of ``one``'s kernel; a strip's are those of ``one`` cut to it. ``keys`` are those whose
    gradients are compared. Gradients are compared in L2, where errors of many products cancel.
    """
    if plan.kernel == "backward_rows":
        return rows_answers(plan, one)
    exact = _named(plan, one, one.dout, one.dlse, keys)
    # What out has lost is missing in delta: the gradient of as much lse. Sums over keys have it put back, in float32.
    size, unit = (one.out.double() * one.dout.double()).norm(dim=-1), max(UNIT[one.kind.dtype], FAST_MATH)
    missing = _named(plan, one, torch.zeros_like(one.dout), unit * size, keys)
    lost = {name: float(x.norm()) for name, x in missing.items()}
    if plan.sums_keys:
        lost |= {name: ROUNDED_ONCE * FAST_MATH / unit * x for name, x in lost.items() if name != "q"}
    terms = max(one.given["q"].shape[2], one.given["k"].shape[2])
    loss = relative_loss(one.kind, terms)
    return {name: _in_l2(x, loss * float(x.norm()) + lost[name]) for name, x in exact.items()}


def relative_loss(kind: Kind, terms: int) -> float:
    """Relative L2 error that rounding explains in a sum of so many terms, whose weights are about as large."""
    if kind.dtype == "float32":
        return FLOAT32
    return ROUNDED_ONCE * (UNIT[kind.dtype] / 2 + SMALLEST[kind.dtype] * terms)


def _named(
    plan: BackwardPlan, one: BackwardPass, dout: torch.Tensor, dlse: torch.Tensor | None, keys: slice
) -> dict[str, torch.Tensor]:
    """What the reference says of a kernel's results."""
    whole = reference.gradients(one.kind, dout, dlse, **one.given)
    named = {name: whole[name] if name == "q" else whole[name][:, :, keys] for name in plan.gradients}
    if not plan.learned:
        return named
    shares = reference.learned_shares(one.kind, dout, dlse, **one.given)
    if plan.kernel == "backward_elements":
        read = plan.learned[0]
        placed = shares[read.index].flatten(0, 1)
        return {f"shares {read.index}": shifted(placed) if read.along == "distance" else placed}
    for read in plan.learned:
        made = shares[read.index]
        named[f"shares {read.index}"] = made.sum(-1) if plan.kernel == "backward_q" else made.sum(-2)[..., keys]
    return named


def shifted(shares: torch.Tensor) -> torch.Tensor:
    """(heads, queries, keys) with each query a column before the one above it, so that a column has one distance."""
    heads, queries, keys = shares.shape
    out = shares.new_zeros(heads, queries, keys + queries - 1)
    for n in range(queries):
        out[:, n, queries - 1 - n : queries - 1 - n + keys] = shares[:, n]
    return out


def _by_element(exact: torch.Tensor, allowed: torch.Tensor) -> Share:
    def share(found: torch.Tensor) -> float:
        error = (found.double() - exact).abs()
        worst = torch.where(found == exact, 0.0, error / allowed)  # infinite where it should be
        return _finite(float(worst.max())) if worst.numel() else 0.0

    return share


def _in_l2(exact: torch.Tensor, allowed: float) -> Share:
    def share(found: torch.Tensor) -> float:
        error = float((found.double() - exact).norm())
        return _finite(error / allowed if allowed else math.inf) if error else 0.0

    return share


def _finite(share: float) -> float:
    """NaN is as wrong as can be."""
    return math.inf if math.isnan(share) else share
