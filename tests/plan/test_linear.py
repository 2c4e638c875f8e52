"""Mask expressions: what is linear in i and j becomes intervals, what is not stays a test of elements."""

from dataclasses import replace

import pytest

from attngen.plan import plan_forward
from attngen.plan.keys import Interval
from attngen.plan.linear import MAX_TERMS
from attngen.spec.expression import Expression
from attngen.spec.model import HeadDim, Heads, Kind, Window


def kind_of(mask: str | None = None, **fields) -> Kind:
    expression = None if mask is None else Expression.parse(mask, "mask")
    return Kind(name="kind", heads=Heads(4, 2), head_dim=HeadDim(16, 16), mask=expression, **fields)


def loops_of(kind: Kind) -> tuple[Interval, ...]:
    return tuple(replace(loop, why="") for loop in plan_forward(kind).loops)


@pytest.mark.parametrize(
    ("mask", "fields"),
    [
        ("j <= i", {"causal": True}),
        ("i >= j", {"causal": True}),
        ("j < i + 1", {"causal": True}),
        ("0 <= i - j", {"causal": True}),
        ("not j > i", {"causal": True}),
        ("not (not j <= i)", {"causal": True}),
        ("2 * j - j <= 3 * i - 2 * i", {"causal": True}),
        ("True", {}),
        ("j <= i and True", {"causal": True}),
        ("i - 128 < j <= i", {"causal": True, "window": Window(127, 0)}),
        ("j > i - 128 and j <= i", {"causal": True, "window": Window(127, 0)}),
        ("not (j > i or i - j >= 128)", {"causal": True, "window": Window(127, 0)}),
        ("-64 <= i - j <= 64", {"window": Window(64, 64)}),
        ("abs(i - j) <= 64", {"window": Window(64, 64)}),
        ("65 > abs(j - i)", {"window": Window(64, 64)}),
        ("not abs(i - j) > 64", {"window": Window(64, 64)}),
        ("not (j < i - 64 or i + 64 < j)", {"window": Window(64, 64)}),
        ("j <= i or j < 16", {"causal": True, "prefix": 16}),
        ("128 > i - j >= 0 or j < 4 and j <= i", {"causal": True, "window": Window(127, 0), "always_first": 4}),
        ("i // 64 == j // 64 and j <= i", None),
        ("doc[i] == doc[j] and j <= i", None),
    ],
)
def test_a_linear_mask_has_the_loops_of_the_fields_that_say_the_same(mask, fields):
    loops = loops_of(kind_of(mask))
    if fields is None:  # a residual test hides the inner interval, but not the outer one
        (causal,) = loops_of(kind_of(causal=True))
        assert loops == (replace(causal, inner_first=None, inner_end=None),)
    else:
        assert loops == loops_of(kind_of(**fields))
        assert all(not term.residual for term in plan_forward(kind_of(mask)).terms)


@pytest.mark.parametrize(
    "mask",
    [
        "i * j < 9",
        "abs(i - j) == 5",
        "abs(i - j) < reach",
        "abs(i) == abs(j)",
        "j != i",
        "2 * j < i",
        "j < 2.5",
        "j <= reach",
        "i < 5",
        "h == 0",
        "doc[j] > 0",
        "False",
    ],
)
def test_what_is_not_linear_is_tested_element_by_element_over_every_key(mask):
    (loop,) = loops_of(kind_of(mask))
    assert loop.always_masked
    (every,) = loops_of(kind_of())
    assert (loop.outer_first, loop.outer_end) == (every.outer_first, every.outer_end)


@pytest.mark.parametrize(
    ("mask", "count"),
    [
        ("j < 4 or i - 8 <= j <= i", 2),
        ("j < 4 or j < 9 or i - 8 <= j <= i", 2),  # all that begin at the first key share a loop
        ("i - 30 <= j < i - 20 or i - 8 <= j <= i", 2),
        ("i - 8 <= j <= i or i - 30 <= j < i - 20", 2),  # in any order
        ("100 <= j < 120 or i - 8 <= j <= i", 1),  # in no order that holds for every i: one hull
        ("abs(i - j) >= 9", 2),
        ("j == i or j == i - 4 or j == i - 8", 3),
    ],
)
def test_a_disjunction_becomes_few_loops(mask, count):
    assert len(loops_of(kind_of(mask))) == count


def test_a_disjunction_of_many_becomes_one_loop_with_a_test():
    alternatives = " or ".join(f"j == i - {8 * n}" for n in range(MAX_TERMS + 1))
    (loop,) = loops_of(kind_of(alternatives))
    assert loop.always_masked
    (loop,) = loops_of(kind_of(f"({alternatives}) and ({alternatives}) and j <= i"))
    assert loop.always_masked
