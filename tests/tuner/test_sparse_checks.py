"""Lists of blocks are compared before a candidate is timed: ties within rounding pass, slight faults are seen."""

from __future__ import annotations

import pytest
import torch

from attngen import reference
from attngen.problem import Problem
from attngen.tuner.sparse_checks import CHECK_SIZES, BlockSelectChecks, list_fault
from tests.op.block_select_cases import exact_scores, plan_of, stable_lists

SIZES = (20, 300)
PROBLEM = Problem("block_select", "", 1, *SIZES)
FIELDS = {"size": 32, "compress": (16, 8), "first": 1, "last": 1, "top_k": 4, "scale": 0.25, "per": "kv_head"}


def right(plan, **inputs):
    """Lists as the reference has them, by scores in float32."""
    if plan.compressed is None:
        scores = exact_scores(plan, inputs, 0).float()
    else:
        offset = SIZES[1] - SIZES[0] if inputs["q"].shape[2] == SIZES[0] else CHECK_SIZES[2] - CHECK_SIZES[1]
        offsets = torch.full((len(inputs["q"]),), offset, dtype=torch.int32)
        blocks = int(inputs["block_end"].max())
        scores = reference.paid_scores(
            plan.kind, plan.compressed, inputs["q"], inputs["keys"], blocks, offsets=offsets
        ).float()
    return stable_lists(plan, scores, inputs)


@pytest.mark.parametrize("paid", [False, True])
def test_right_lists_pass(paid):
    plan = plan_of(paid=paid, **FIELDS)
    checks = BlockSelectChecks(plan, PROBLEM, device="cpu")
    assert checks.find_fault(lambda **inputs: right(plan, **inputs)) is None


@pytest.mark.parametrize("paid", [False, True])
def test_scores_of_other_queries_are_seen(paid):
    plan = plan_of(paid=paid, **FIELDS)
    checks = BlockSelectChecks(plan, PROBLEM, device="cpu")
    fault = checks.find_fault(lambda **inputs: right(plan, **{**inputs, "q": (inputs["q"] * 8).round() / 8}))
    assert fault is not None and "score less" in fault


def test_lists_that_change_are_seen():
    plan = plan_of(**FIELDS)
    checks = BlockSelectChecks(plan, PROBLEM, device="cpu")
    swapped = iter([0, 0, 0, 1])

    def changing(**inputs):
        lists = right(plan, **inputs)
        return lists.flip(-1) if next(swapped) else lists

    assert "second call" in (checks.find_fault(changing) or "")


SCORES = torch.tensor([[5.0, 1.0, 4.0, 3.0, 3.0 + 1e-9, 2.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    "found, words",
    [
        ([0, 2, 4], None),
        ([0, 2, 3], None),  # a tie within the error
        ([0, 2, 5], "1 blocks score less"),
        ([2, 0, 4], "ascending"),
        ([0, 2, 2], "ascending"),
        ([0, 2, -1], "longer or shorter"),
        ([0, 2, 6], "ascending"),
        ([1, 2, 4], "lacks"),
    ],
)
def test_one_list(found, words):
    plan = plan_of(top_k=3, first=1)
    bounds = torch.tensor([0]), torch.tensor([6])
    lists = torch.tensor([[found]], dtype=torch.int32)
    fault = list_fault(plan, SCORES, torch.full_like(SCORES, 1e-6), *bounds, lists)
    assert fault is None if words is None else words in (fault or "")


def test_blocks_out_of_bounds():
    plan, lists = plan_of(top_k=3), torch.tensor([[[0, 2, 4]]], dtype=torch.int32)
    fault = list_fault(plan, SCORES, torch.zeros_like(SCORES), torch.tensor([0]), torch.tensor([4]), lists)
    assert "may not take" in (fault or "")
