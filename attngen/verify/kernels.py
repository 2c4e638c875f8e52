"""Which kernels of a kind are verified; asked before torch is imported and anything is started."""

from __future__ import annotations

from attngen.errors import NotGeneratedError, one_of
from attngen.plan import Plan
from attngen.plan.kernels import launched_plans
from attngen.spec.model import Kind
from attngen.target import Target

VERIFIED = ("forward", "gathered", "indexer", "quantise", "select")


def verifiable_plans(kind: Kind, target: Target) -> tuple[Plan, ...]:
    """The kernels that calls of a kind launch; NotGeneratedError where one of them is not compared with anything."""
    plans = launched_plans(kind, target)
    for plan in plans:
        if plan.kernel not in VERIFIED:
            raise NotGeneratedError(
                f"kind '{kind.name}': its kernel '{plan.kernel}' is not verified yet; {one_of(VERIFIED)} is"
            )
    return plans
