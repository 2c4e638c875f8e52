"""Kernels of a backward pass made of the reference: right for any kind, rounded as ours are."""

from __future__ import annotations

from typing import Any

import torch

from attngen import reference
from attngen.op.gradient_launch import Call, Rows, Strip
from attngen.plan.attention import LOG2E
from attngen.plan.backward import BackwardPlan
from attngen.verify.gradients import BackwardPass, exact_rows, shifted


def right_kernel(plan: BackwardPlan) -> Any:
    """What the plan's launcher would be."""
    return {"backward_rows": _Rows, "backward_elements": _Elements}.get(plan.kernel, _Pairs)(plan)


class _Rows:
    def __init__(self, plan: BackwardPlan) -> None:
        self.kind = plan.kind

    def __call__(self, out, dout, lse, dlse=None, sink=None, *, keep_dlse=False, sink_shares=False) -> Rows:
        """The sink's shares in two tiles, one of them empty."""
        exact = exact_rows(BackwardPass(self.kind, {} if sink is None else {"sink": sink}, out, lse, dout, dlse))
        shares = torch.zeros(*out.shape[:2], 2) if sink_shares else None
        if shares is not None:
            shares[0, :, 1] = exact["sink"].float()
        of_lse = exact["of_lse"].float() if keep_dlse and dlse is not None else None
        return Rows(exact["log_sum"].float(), exact["delta"].float(), of_lse, shares)


class _Pairs:
    def __init__(self, plan: BackwardPlan) -> None:
        self.plan = plan

    def __call__(self, call: Call, rows: Rows, wanted=()) -> tuple:
        given, dlse, of_lse = self.given(call, rows)
        made = reference.gradients(self.plan.kind, call.dout, dlse, **given)
        of_queries = self.plan.kernel == "backward_q"
        shares = self.shares(given, call, of_lse if of_queries else dlse) if wanted else {}
        sums = {n: shares[n].sum(-1 if of_queries else -2).float() for n in wanted}
        return *(made[name].to(call.q.dtype) for name in ("q" if of_queries else "kv")), sums

    def shares(self, given: dict[str, Any], call: Call, dlse: torch.Tensor) -> dict[int, torch.Tensor]:
        return reference.learned_shares(self.plan.kind, call.dout, dlse, **given)

    def given(self, call: Call, rows: Rows) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
        """Keywords of the reference, the gradient of lse that delta has taken in with what rounding took from it, and
        without."""
        given = {"q": call.q, "k": call.k, "v": call.v} | {name: x for name, x in call.given.items() if x is not None}
        out, lse = reference.attention(self.plan.kind, **given)
        grown = torch.exp(rows.log_sum.double() / LOG2E - lse)
        dlse = ((out * call.dout.double()).sum(-1) - rows.delta.double()) / grown
        of_lse = torch.zeros_like(dlse) if rows.of_lse is None else rows.of_lse.double() / grown
        return given, *(torch.where(lse > -torch.inf, x, 0.0) for x in (dlse, of_lse))


class _Elements(_Pairs):
    def __call__(self, call: Call, rows: Rows, index: int, strip: Strip, columns: int) -> torch.Tensor:
        given, dlse, _ = self.given(call, rows)
        shares = self.shares(given, call, dlse)[index].flatten(0, 1).float()
        heads = slice(strip.first_head, strip.first_head + strip.heads)
        of_strip = shares[heads, strip.first_query : strip.first_query + strip.queries]
        return of_strip if columns == of_strip.shape[2] else shifted(of_strip)
