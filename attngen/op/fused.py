"""Whether one kernel makes the gradients of q, k and v of a call, or two do."""

from __future__ import annotations

from collections.abc import Mapping

from attngen.op.choose import Chooser, target_here
from attngen.plan.backward import BackwardPlans
from attngen.plan.space import can_run
from attngen.plan.space.backward_hopper import fused_is_faster
from attngen.problem import Problem


def fuses(plans: BackwardPlans, choosers: Mapping[str, Chooser], batch: int, seq_q: int, seq_k: int) -> bool:
    """For a call of these sizes: by their times where the database has all that were measured, else by a rule.

    ``choosers``: of the kernels, by their names.
    """
    if plans.fused is None or not can_run(plans.fused, target_here()):
        return False
    digest = plans.fused.kind.digest()
    times = [
        choosers[plan.kernel].at(Problem(plan.kernel, digest, batch, seq_q, seq_k)).measured_ms
        for plan in (plans.fused, plans.kv, plans.q)
    ]
    measured = [time for time in times if time is not None]
    if len(measured) < len(times):
        return fused_is_faster(plans.fused, target_here(), batch, seq_q, seq_k)
    one, *two = measured
    return one < sum(two)
