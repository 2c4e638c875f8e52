"""Plans: what a kernel must do, symbolically; knows nothing of Triton's syntax."""

from attngen.plan.base import Plan
from attngen.plan.block_select import BlockSelectPlan, plan_block_select
from attngen.plan.forward import ForwardPlan, plan_forward
from attngen.plan.gathered import GatheredPlan, plan_gathered
from attngen.plan.routed import RoutedPlan, plan_routed
from attngen.plan.select import SelectPlan, plan_select

__all__ = [
    "BlockSelectPlan",
    "ForwardPlan",
    "GatheredPlan",
    "Plan",
    "RoutedPlan",
    "SelectPlan",
    "plan_block_select",
    "plan_forward",
    "plan_gathered",
    "plan_routed",
    "plan_select",
]
