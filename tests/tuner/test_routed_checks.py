"""What the tuner asks of attention over chosen blocks, by kernels that are right and wrong."""

import pytest
import torch

from attngen import reference
from attngen.plan import plan_routed
from attngen.problem import Problem
from attngen.tuner.kernel import checks_of
from tests.op.routed_cases import routed_kind


@pytest.mark.parametrize("per", ["head", "kv_head"])
def test_chosen_blocks(per):
    plan = plan_routed(routed_kind((4, 2), per=per, sink=True))
    checks = checks_of(plan, Problem("routed", plan.kind.digest(), 1, 60, 200), device="cpu")

    def right(blocks, **inputs):
        out, lse = reference.attention(plan.kind, **inputs, indices=reference.keys_of_blocks(blocks, 16))
        return out.half(), lse.float()

    assert checks.find_fault(right) is None
    assert "small sizes: relative L2 error" in str(
        checks.find_fault(lambda **x: right(x.pop("blocks").roll(1, 1), **x))
    )
    assert "lse is off" in str(checks.find_fault(lambda **x: (right(**x)[0], right(**x)[1] + 0.01)))
    assert "not finite" in str(checks.find_fault(lambda **x: (right(**x)[0] / 0, torch.zeros(()))))
