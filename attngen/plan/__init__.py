"""Plans: what a kernel must do, symbolically; knows nothing of Triton's syntax."""

from attngen.plan.base import Plan
from attngen.plan.forward import ForwardPlan, plan_forward
from attngen.plan.select import SelectPlan, plan_select

__all__ = ["ForwardPlan", "Plan", "SelectPlan", "plan_forward", "plan_select"]
