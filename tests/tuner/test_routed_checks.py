"""What the tuner asks of attention over chosen blocks, by kernels that are right and wrong."""

import pytest
import torch

from attngen import reference
from attngen.plan import plan_routed
from attngen.problem import Problem
from attngen.tuner.kernel import checks_of
from tests.op.routed_cases import routed_kind

PLAN = plan_routed(routed_kind((4, 2), per="kv_head", sink=True))


def right(blocks, **inputs):
    keys = reference.keys_of_blocks(blocks, PLAN.select.size)
    out, lse = reference.attention(PLAN.kind, **inputs, indices=keys)
    return out.half(), lse.float()


FAULTS = {
    "relative L2 error": lambda blocks, **inputs: right(blocks.roll(1, 1), **inputs),
    "lse is off": lambda **inputs: (right(**inputs)[0], right(**inputs)[1] + 0.01),
    "not finite": lambda **inputs: (right(**inputs)[0] / 0, torch.zeros(())),
}


@pytest.fixture(scope="module")
def checks():
    return checks_of(PLAN, Problem("routed", PLAN.kind.digest(), 1, 60, 100), device="cpu")


def test_a_right_kernel_passes(checks):
    assert checks.find_fault(right) is None


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen(checks, fault):
    assert fault in str(checks.find_fault(FAULTS[fault]))
