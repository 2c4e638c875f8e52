"""Loops over keys: every visible pair is met exactly once, and what is not masked is visible."""

import os
from itertools import chain

import pytest
import sympy as sp
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from attngen import reference
from attngen.plan import plan_forward
from attngen.plan.forward import ForwardPlan
from attngen.plan.numbers import evaluate
from attngen.source.context import Loop
from attngen.spec.expression import Expression
from attngen.spec.model import Compress, HeadDim, Heads, Kind, Window
from tests.plan.emulate import Step, context_of, steps_of, visits, written_bounds, written_mask
from tests.plan.strategies import Sizes, arguments_of_masks, masked_kinds, sizes

EXAMPLES = int(os.environ.get("ATTNGEN_TEST_EXAMPLES", "200"))
ARGUMENTS = arguments_of_masks()
many = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def kind_of(mask: str | None = None, **fields) -> Kind:
    expression = None if mask is None else Expression.parse(mask, "mask")
    return Kind(name="kind", heads=Heads(4, 2), head_dim=HeadDim(16, 16), mask=expression, **fields)


def sized(seq_q: int, seq_k: int, block_q: int = 8, block_n: int = 8, **values) -> Sizes:
    given = {"offset": seq_k - seq_q, "key_first": 0, "key_end": seq_k, "prefix": seq_k // 2, "head": 0, "batch": 0}
    return Sizes(seq_q, seq_k, block_q=block_q, block_n=block_n, split_masks=True, **{**given, **values})


def seen_by_reference(kind: Kind, s: Sizes) -> torch.Tensor:
    return reference.visible(kind, s.seq_q, s.seq_k, head=s.head, batch=s.batch, **s.keywords, **ARGUMENTS)


def met(plan: ForwardPlan, s: Sizes, mask: torch.Tensor) -> torch.Tensor:
    """How often each pair takes part in the softmax, (seq_q, seq_k) and the same for keys past the last one."""
    times = torch.zeros(s.seq_q, s.seq_k + s.block_n, dtype=torch.int64)
    beyond = torch.zeros(s.seq_q, s.block_n, dtype=torch.bool)
    masked_times = torch.cat([mask, beyond], 1).long()
    for tile in range(-(-s.seq_q // s.block_q)):
        rows = slice(tile * s.block_q, (tile + 1) * s.block_q)
        for key, masked in visits(plan, s, tile):
            assert key >= s.key_first
            columns = slice(key, key + s.block_n)
            times[rows, columns] += masked_times[rows, columns] if masked else 1
    return times


def steps_as_written(loops: list[Loop], s: Sizes) -> list[Step]:
    """What ``visits`` gives, from the text of the bounds that the kernel has."""
    assert [loop.follows for loop in loops] == [n > 0 for n in range(len(loops))]
    return steps_of(loops, lambda text: written_bounds(text, s, 0), s.block_n, s.split_masks)


def check(kind: Kind, s: Sizes) -> None:
    """Loops and mask of the kernel that ``kind`` becomes, against the reference's mask."""
    plan = plan_forward(kind)
    context = context_of(plan, s)
    seen = seen_by_reference(kind, s)
    mask = written_mask(plan, s, ARGUMENTS, context)
    # Loops begin at the first valid key, so the mask need not test for it.
    assert torch.equal(mask[:, s.key_first :], seen[:, s.key_first :]), "the mask is the reference's"
    times = met(plan, s, mask)
    assert torch.equal(times[:, : s.seq_k], seen.long()), "each visible pair is met once, and no other"
    assert not times[:, s.seq_k :].any(), "keys past the last are masked"
    assert steps_as_written(context["loops"], s) == visits(plan, s, 0), "bounds as written are the symbolic ones"


@settings(many, max_examples=EXAMPLES // 2)
@given(st.booleans(), st.integers(1, 9), st.integers(1, 4), sizes())
def test_every_visible_compressed_key_is_met(causal, stride, strides, s):
    kind = Kind("kind", Heads(4, 2), HeadDim(16, 16), causal=causal, compress=Compress(stride * strides, stride))
    check(kind, s)


@many
@example(kind_of(prefix="argument"), sized(5, 9))  # terms without any bound, united with ones that have one
@example(kind_of(prefix=3, always_first=7, causal=True, global_tokens=2), sized(20, 20))
@given(masked_kinds(), sizes())
def test_every_visible_pair_is_met_exactly_once_and_no_other(kind, s):
    check(kind, s)


@many
@given(masked_kinds(), sizes())
def test_a_span_holds_every_visible_key(kind, s):
    span = plan_forward(kind).span
    if span is None:
        return
    left, right = span
    i = torch.arange(s.seq_q)[:, None] + s.offset
    j = torch.arange(s.seq_k)[None, :]
    outside = (j < i - left) | (j > i + right)
    assert not (seen_by_reference(kind, s) & outside).any()


FIELDS = {
    "every key": kind_of(),
    "causal": kind_of(causal=True),
    "window": kind_of(window=Window(5, 9)),
    "window, one side": kind_of(window=Window(None, 3)),
    "causal window": kind_of(causal=True, window=Window(11, 0)),
    "chunk": kind_of(chunk=7),
    "causal chunk": kind_of(causal=True, chunk=7),
    "dilation": kind_of(dilation=3, window=Window(12, 12)),
    "prefix": kind_of(causal=True, prefix=10),
    "prefix argument": kind_of(causal=True, prefix="argument"),
    "always": kind_of(causal=True, window=Window(6, 0), always_first=3),
    "global tokens": kind_of(window=Window(4, 4), global_tokens=2),
    "causal global tokens": kind_of(causal=True, window=Window(4, 0), global_tokens=2),
    "mask": kind_of("j < 5 or i - j < 3 and h % 2 == 0", causal=True),
    "all": kind_of("doc[i] == doc[j]", causal=True, window=Window(9, 0), chunk=16, prefix=2, global_tokens=1),
}
SHAPES = {
    "square": sized(33, 33),
    "one query": sized(1, 40),
    "one key": sized(9, 1),
    "more queries": sized(40, 13),
    "ragged tiles": sized(29, 31, block_q=4, block_n=16),
    "padded keys": sized(24, 30, key_first=3, key_end=21),
    "no valid key": sized(8, 8, key_first=5, key_end=5),
    "offsets": sized(16, 40, offset=10),
    "before the first key": sized(16, 16, offset=-12),
    "past the last key": sized(16, 16, offset=40),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("field", FIELDS)
def test_each_field_at_each_shape(field, shape):
    check(FIELDS[field], SHAPES[shape])


def test_most_tiles_of_common_patterns_need_no_mask():
    """The point of intervals; one or two tiles at each edge are masked."""
    for field, whole_tiles in (("every key", 16), ("causal", 7), ("causal chunk", 0), ("prefix argument", 8)):
        steps = visits(plan_forward(FIELDS[field]), sized(128, 128), 7)
        assert sum(not masked for _, masked in steps) == whole_tiles, field
    steps = visits(plan_forward(kind_of(window=Window(32, 32))), sized(128, 128), 7)
    assert [masked for _, masked in steps] == [True] + [False] * 7 + [True]


def test_far_windows_stay_within_32_bits():
    """The largest numbers of the language, at positions a kernel may meet, overflow nothing that is computed."""
    far = 2**31 - 1
    for kind in (kind_of(window=Window(far, far)), kind_of(chunk=far), kind_of(causal=True, always_first=far)):
        plan = plan_forward(kind)
        bounds = [(loop.outer_first, loop.outer_end, loop.inner_first, loop.inner_end) for loop in plan.loops]
        bounds += [(term.row_lower(), term.row_upper()) for term in plan.terms]
        for position in (-(2**24), -1, 0, 2**24):
            values = {"i": position, "i_first": position, "i_last": position + 127, "key_first": 0, "key_end": 2**24}
            for expression in chain(*bounds):
                parts = [part for part in sp.preorder_traversal(expression) if isinstance(part, sp.Expr)]
                assert all(abs(int(evaluate(part, values))) < 2**31 for part in parts), expression
