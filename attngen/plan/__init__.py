"""Plans: what a kernel must do, symbolically; knows nothing of Triton's syntax."""

from attngen.plan.forward import ForwardPlan, plan_forward

__all__ = ["ForwardPlan", "plan_forward"]
