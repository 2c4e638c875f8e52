"""Plans: what a kernel must do, symbolically; knows nothing of Triton's syntax."""

from attngen.plan.base import Plan
from attngen.plan.forward import ForwardPlan, plan_forward
from attngen.plan.gathered import GatheredPlan, plan_gathered

__all__ = ["ForwardPlan", "GatheredPlan", "Plan", "plan_forward", "plan_gathered"]
