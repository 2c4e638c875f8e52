"""What the reference says of the kernels that select keys: of an indexer's logits, and of a selection."""

from __future__ import annotations

from typing import Any

import torch

from attngen import reference
from attngen.plan.select import SelectPlan

Inputs = dict[str, Any]  # keywords of a kernel's call


def exact_logits(inputs: Inputs, batch: int, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of some queries of one sequence, float64 (rows, seq_k), and which of them are of keys that a query
    may select."""
    q, k, w = inputs["q"][batch, None, rows].transpose(1, 2), inputs["k"][batch, None], inputs["w"][batch, None, rows]
    scale = inputs.get("k_scale")
    right = reference.index_scores(q, k, w, k_scale=None if scale is None else scale[batch, None])[0]
    j = torch.arange(right.shape[1], device=right.device)
    first, end = (inputs[name][batch, rows, None] for name in ("key_first", "key_end"))
    return right, (j >= first) & (j < end)


def exact_selection(plan: SelectPlan, inputs: Inputs, rows: slice) -> torch.Tensor:
    """The keys of some rows, int32 (rows, top_k), as a stable sort of the same scores has them."""
    scores, begin, end = (inputs[name][rows] for name in ("logits", "key_first", "key_end"))
    return reference.select_keys(scores, begin, end, plan.top_k, first=plan.first, last=plan.last)


def exact_gated(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """A sum of branches in float64, and how far one rounding to the results' dtype and sums in float32 may take it."""
    results, gates = [result.double() for result in inputs["results"]], inputs["gates"].double()
    terms = [result * gates[..., n, None] for n, result in enumerate(results)]
    right, sizes = sum(terms), sum(term.abs() for term in terms)
    unit = torch.finfo(inputs["results"][0].dtype).eps / 2
    return right, unit * right.abs() + (len(terms) + 1) * 2.0**-24 * sizes + torch.finfo(torch.float16).tiny
