"""A kernel's inputs at one size, and what its result must be: for each kernel, one way to compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from attngen import reference
from attngen.inputs_sparse import (
    make_block_select,
    make_blocks,
    make_gated,
    make_listed,
    make_quantised_index,
    make_scores,
)
from attngen.op.quantise import quantise_in_torch
from attngen.plan import Plan
from attngen.plan.backward import BackwardPlan
from attngen.plan.block_select import BlockSelectPlan
from attngen.plan.forward import ForwardPlan
from attngen.plan.gated import GatedPlan
from attngen.plan.gathered import GatheredPlan
from attngen.plan.indexer import IndexerPlan
from attngen.plan.quantise import QuantisePlan
from attngen.plan.routed import RoutedPlan
from attngen.plan.select import SelectPlan
from attngen.spec.model import Kind
from attngen.verify.answers import exact_gated, exact_logits, exact_selection
from attngen.verify.baseline import same_dtype
from attngen.verify.block_lists import block_scores, list_fault
from attngen.verify.bounds import element_bound, logits_bound, lse_bound
from attngen.verify.cases import INTERPRETED_KV_HEADS, Case
from attngen.verify.finding import Finding, failed
from attngen.verify.gradients import BackwardPass, answers, kernel_inputs, last_strip, named_results
from attngen.verify.judge import Answer, judge, l2_error, worst_share

ALLOWED = 1.1  # times the error of plain PyTorch in the same dtype
# Relative L2 error that is always allowed: where PyTorch happens to be exact, and float32's fast exponentials.
LEAST_ALLOWED = {"float16": 2.0**-13, "bfloat16": 2.0**-10, "float32": 2.0**-20, "float8_e4m3": 2.0**-10}


@dataclass(frozen=True)
class Comparison:
    """Keywords of a kernel's call, and what makes of its result a finding."""

    inputs: dict[str, Any]
    judge: Callable[[Finding, Any], Finding]


def comparison(plan: Plan, case: Case, interpret: bool) -> Comparison:
    """Of ``plan``'s kernel at the sizes of ``case``, on the GPU or, to ``interpret``, on the CPU."""
    return COMPARISONS[plan.kernel](plan, case, interpret)


def _forward(plan: ForwardPlan, case: Case, interpret: bool) -> Comparison:
    inputs = _call(plan.kind, case, interpret)
    return _attention(plan.kind, inputs, inputs, interpret)


def _call(kind: Kind, case: Case, interpret: bool) -> dict[str, Any]:
    """Keywords of a forward call."""
    kv = min(kind.heads.kv, INTERPRETED_KV_HEADS)
    heads = (kv * kind.heads.group, kv) if interpret else None
    return case.inputs(kind, _device(interpret), heads)


def _backward(plan: BackwardPlan, case: Case, interpret: bool) -> Comparison:
    """Every result of one kernel, given what the reference makes of the kernels before it, lse's gradient too."""
    given = _call(plan.kind, case, interpret)
    out, lse = reference.attention(plan.kind, **given)
    one = BackwardPass.of(plan.kind, given, (out.to(given["q"].dtype), lse.float()), of_lse=True, seed=case.seq_q)
    compared = one
    if plan.kernel == "backward_elements":
        strip = last_strip(one)
        compared = one.cut(slice(strip.first_query, strip.first_query + strip.queries))
    right = answers(plan, compared)

    def verdict(base: Finding, result: Any) -> Finding:
        found = named_results(plan, result)
        made = {name: x for name in right if (x := found[name]) is not None}
        shares = {name: right[name](x) for name, x in made.items()}
        name = max(shares, key=lambda name: shares[name])
        base = replace(base, error=shares[name], allowed=1.0)
        return base if base.error <= 1.0 else failed(base, f"{name}: the error is larger than rounding explains")

    return Comparison(kernel_inputs(plan, one), verdict)


def _gathered(plan: GatheredPlan, case: Case, interpret: bool) -> Comparison:
    kind = plan.kind
    sizes, device = (case.batch, case.seq_q, case.seq_k), _device(interpret)
    inputs = make_listed(kind, *sizes, device=device, seed=case.seq_k) | case.placed(device)
    values = inputs["k"][..., : kind.head_dim.v] if inputs["v"] is None else inputs["v"]
    indices = reference.keys_of_blocks(inputs["indices"], plan.block)
    return _attention(kind, inputs, {**inputs, "v": values, "indices": indices}, interpret)


def _routed(plan: RoutedPlan, case: Case, interpret: bool) -> Comparison:
    kind = plan.kind
    sizes, device = (case.batch, case.seq_q, case.seq_k), _device(interpret)
    inputs = make_blocks(kind, *sizes, device=device, seed=case.seq_k) | case.placed(device)
    others = {name: value for name, value in inputs.items() if name != "blocks"}
    indices = reference.keys_of_blocks(inputs["blocks"], plan.select.size)
    return _attention(kind, inputs, {**others, "indices": indices}, interpret)


def _gated(plan: GatedPlan, case: Case, interpret: bool) -> Comparison:
    """Within one rounding of the sum, and what float32 adds."""
    inputs = make_gated(plan.kind, case.batch, case.seq_q, device=_device(interpret), seed=case.seq_k)
    right, allowed = exact_gated(inputs)

    def verdict(base: Finding, found: torch.Tensor) -> Finding:
        base = replace(base, error=worst_share(found.double(), right, allowed), allowed=1.0)
        return base if base.error <= 1.0 else failed(base, "the error is larger than rounding explains")

    return Comparison(inputs, verdict)


def _block_select(plan: BlockSelectPlan, case: Case, interpret: bool) -> Comparison:
    """Lists that are a stable sort's of the scores, but for blocks whose scores rounding may have swapped."""
    batch, seq_q, seq_k, device = case.batch, case.seq_q, case.seq_k, _device(interpret)
    inputs = make_block_select(plan, batch, seq_q, seq_k, device=device, seed=seq_k)
    first, end = reference.block_bounds(plan.kind, seq_q, seq_k, batch, device=device, **case.placed(device))
    inputs |= {"block_first": first, "block_end": end}
    blocks, offset = -(-seq_k // plan.blocks.size), seq_k - seq_q
    answers = [block_scores(plan, inputs["q"][b, None], inputs["keys"][b, None], blocks, offset) for b in range(batch)]

    def verdict(base: Finding, found: torch.Tensor) -> Finding:
        for b, (scores, error) in enumerate(answers):
            begin, stop = (bound[b].repeat(scores.shape[0]) for bound in (first, end))
            if fault := list_fault(plan, scores.flatten(0, 1), error.flatten(0, 1), begin, stop, found[b]):
                return failed(base, fault)
        return base

    return Comparison(inputs, verdict)


def _attention(kind: Kind, inputs: dict[str, Any], written_out: dict[str, Any], interpret: bool) -> Comparison:
    """Against the reference, as close as PyTorch's own, or in the interpreter as rounding alone allows."""
    out, lse = reference.attention(kind, **written_out)
    lse_allowed = lse_bound(kind, written_out, lse, interpreted=interpret)
    if interpret:
        answer = Answer(out, lse, lse_allowed, element_allowed=element_bound(kind, written_out, out, lse_allowed))
    else:
        plain = l2_error(same_dtype(kind, written_out), out)
        answer = Answer(out, lse, lse_allowed, l2_allowed=max(ALLOWED * plain, LEAST_ALLOWED[kind.dtype]))
    return Comparison(inputs, lambda base, result: judge(base, result[0], result[1], answer))


def _indexer(plan: IndexerPlan, case: Case, interpret: bool) -> Comparison:
    """Logits of keys that a query may select, each within what rounding allows it; others may be anything."""
    batch, seq_q, seq_k, device = case.batch, case.seq_q, case.seq_k, _device(interpret)
    inputs = make_quantised_index(plan, batch, seq_q, seq_k, device=device, seed=seq_k)
    first, end = reference.key_bounds(plan.kind, seq_q, seq_k, batch, device=device, **case.placed(device))
    inputs |= {"key_first": first, "key_end": end}
    absolute = inputs | {name: inputs[name].float().abs() for name in ("q", "k", "w")}
    answers = []
    for b in range(batch):
        right, seen = exact_logits(inputs, b, slice(0, seq_q))
        sizes, _ = exact_logits(absolute, b, slice(0, seq_q))
        answers.append((right[seen], seen, logits_bound(plan, sizes[seen], interpreted=interpret)))

    def verdict(base: Finding, found: torch.Tensor) -> Finding:
        base = replace(base, allowed=1.0)
        for logits, (right, seen, allowed) in zip(found[..., :seq_k].double(), answers, strict=True):
            if not bool(torch.isfinite(logits[seen]).all()):
                return failed(base, "logits that are not finite")
            base = replace(base, error=max(base.error, worst_share(logits[seen], right, allowed)))
        return base if base.error <= 1.0 else failed(base, "a logit is off by more than rounding explains")

    return Comparison(inputs, verdict)


def _select(plan: SelectPlan, case: Case, interpret: bool) -> Comparison:
    """Scores of every sort: every other row has many zeros, as ReLU leaves them, and every seventh a few NaN."""
    rows = case.batch * case.seq_q
    inputs = make_scores(plan, rows, case.seq_k, device=_device(interpret), seed=case.seq_k)
    inputs["logits"][::2].clamp_(min=0.0)
    inputs["logits"][::7, ::50] = torch.nan

    right = exact_selection(plan, inputs, slice(0, rows))

    def verdict(base: Finding, found: torch.Tensor) -> Finding:
        return _equal(base, int((found != right).any(1).sum()), "rows differ from a stable sort of the same scores")

    return Comparison(inputs, verdict)


def _quantise(plan: QuantisePlan, case: Case, interpret: bool) -> Comparison:
    device = _device(interpret)
    generator = torch.Generator(device=device).manual_seed(case.seq_k)
    x = torch.randn(case.batch, case.seq_k, plan.head_dim, generator=generator, device=device)
    x = x.to(getattr(torch, plan.source))
    values, scale = quantise_in_torch(x, plan.format, plan.rotate)

    def verdict(base: Finding, found: tuple[torch.Tensor, torch.Tensor]) -> Finding:
        other = (found[0].view(torch.uint8) != values.view(torch.uint8)).any(-1) | (found[1] != scale)
        return _equal(base, int(other.sum()), "rows have other bits than PyTorch gives them")

    return Comparison({"x": x}, verdict)


def _equal(base: Finding, wrong: int, fault: str) -> Finding:
    found = replace(base, error=float(wrong))
    return failed(found, f"{wrong} {fault}") if wrong else found


def _device(interpret: bool) -> str:
    return "cpu" if interpret else "cuda"


COMPARISONS: dict[str, Callable[[Any, Case, bool], Comparison]] = {
    "backward_elements": _backward,
    "backward_fused": _backward,
    "backward_kv": _backward,
    "backward_q": _backward,
    "backward_rows": _backward,
    "block_select": _block_select,
    "forward": _forward,
    "gated": _gated,
    "gathered": _gathered,
    "indexer": _indexer,
    "quantise": _quantise,
    "routed": _routed,
    "select": _select,
}
