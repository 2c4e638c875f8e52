"""Plans: what a kernel must do, symbolically; knows nothing of Triton's syntax."""

from attngen.plan.base import Plan
from attngen.plan.forward import ForwardPlan, plan_forward

__all__ = ["ForwardPlan", "Plan", "plan_forward"]
