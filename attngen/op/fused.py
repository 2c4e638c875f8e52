"""Whether one kernel makes the gradients of q, k and v of a call, or two do."""

from __future__ import annotations

from collections.abc import Mapping

from attngen.op.choose import Chooser, target_here
from attngen.plan.backward import BackwardPlans
from attngen.plan.kernels import fused_is_faster
from attngen.plan.space import can_run
from attngen.problem import Problem


def fuses(plans: BackwardPlans, choosers: Mapping[str, Chooser], batch: int, seq_q: int, seq_k: int) -> bool:
    """For a call of these sizes: by their times where the database has all that were measured, else by a rule.

    ``choosers``: of the kernels, by their names.
    """
    if plans.fused is None or not can_run(plans.fused, target_here()):
        return False
    measured = {
        plan.kernel: choosers[plan.kernel].measured_ms(Problem(plan.kernel, plan.kind.digest(), batch, seq_q, seq_k))
        for plan in (plans.fused, plans.kv, plans.q)
    }
    one, *two = measured.values()
    if one is None or None in two:
        return fused_is_faster(plans.fused, target_here(), batch, seq_q, seq_k)
    return one < sum(time for time in two if time is not None)
