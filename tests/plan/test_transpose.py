"""Loops over queries: seen from the keys, every visible pair is met exactly once, and what is not masked is visible."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attngen.config import Config
from attngen.plan.backward import BackwardPlan, plan_backward
from attngen.plan.numbers import evaluate
from attngen.source.backward import backward_context
from attngen.source.context import Loop
from attngen.spec.model import Compress, HeadDim, Heads, Kind, Window
from tests.plan.emulate import Step, mask_as_written, namespace, steps_of
from tests.plan.strategies import Sizes, masked_kinds, sizes
from tests.plan.test_keys import ARGUMENTS, EXAMPLES, FIELDS, SHAPES, kind_of, many, seen_by_reference, sized


def values_of(s: Sizes, tile: int) -> dict[str, int]:
    """What a program knows of its tile of keys, by the names of the kernel."""
    j_first = max(tile * s.block_n, s.key_first)
    j_last = min(tile * s.block_n + s.block_n, s.key_end) - 1
    end = s.offset + s.seq_q if j_first <= j_last else s.offset
    values = {"j_first": j_first, "j_last": j_last, "query_first": s.offset, "query_end": end, "prefix": s.prefix}
    return {**values, "offset": s.offset, "key_first": s.key_first, "key_end": s.key_end}


def symbols_of(s: Sizes, tile: int) -> dict[str, int]:
    """The same by the names of the algebra."""
    values = values_of(s, tile)
    names = {"i_first": "j_first", "i_last": "j_last", "key_first": "query_first", "key_end": "query_end"}
    return {"prefix": s.prefix, **{name: values[held] for name, held in names.items()}}


def visits(plan: BackwardPlan, s: Sizes, tile: int) -> list[Step]:
    """The tiles of queries that one program goes over, by the position of their first."""
    values = symbols_of(s, tile)
    return steps_of(plan.loops, lambda bound: int(evaluate(bound, values)), s.block_q)


def as_written(loops: list[Loop], s: Sizes, tile: int) -> list[Step]:
    """The same from the text of the bounds that the kernel has."""
    values = values_of(s, tile)

    def number(text: str) -> int:
        return int(eval(text, namespace(), dict(values)))

    return steps_of(loops, number, s.block_q)


def check(kind: Kind, s: Sizes) -> None:
    """Loops and mask of the kernel that makes dk and dv, against the reference's mask."""
    plan = plan_backward(kind).kv
    config = Config(schedule="portable", BLOCK_M=s.block_q, BLOCK_N=s.block_n, num_warps=4, num_stages=1)
    context = backward_context(plan, config)
    seen = seen_by_reference(kind, s).T  # (seq_k, seq_q)
    times = torch.zeros(s.seq_k, s.seq_q + s.block_q, dtype=torch.int64)
    for tile in range(-(-s.seq_k // s.block_n)):
        keys = slice(tile * s.block_n, min((tile + 1) * s.block_n, s.seq_k))
        columns = {**values_of(s, tile), "i": torch.arange(s.seq_q + s.block_q) + s.offset}
        mask = mask_as_written(plan, s, ARGUMENTS, context, {**columns, "j": torch.arange(keys.start, keys.stop)})
        steps = visits(plan, s, tile)
        assert as_written(context["loops"], s, tile) == steps, "bounds as written are the symbolic ones"
        for position, masked in steps:
            query = position - s.offset
            assert query >= 0
            across = slice(query, query + s.block_q)
            times[keys, across] += mask[:, across].long() if masked else 1
    valid = slice(s.key_first, s.key_end)  # what is no valid key has gradient 0, whatever was summed
    assert torch.equal(times[valid, : s.seq_q], seen[valid].long()), "each visible pair is met once, and no other"
    assert not times[valid, s.seq_q :].any(), "queries past the last are masked"


@settings(many, max_examples=EXAMPLES // 2)
@given(st.booleans(), st.integers(1, 9), st.integers(1, 4), sizes())
def test_every_visible_compressed_key_is_met(causal, stride, strides, s):
    check(Kind("kind", Heads(4, 2), HeadDim(16, 16), causal=causal, compress=Compress(stride * strides, stride)), s)


@many
@example(kind_of(prefix="argument"), sized(5, 9))
@example(kind_of("j >= 2 * i + 3"), sized(20, 40))
@example(kind_of("j < 30 - 3 * i"), sized(20, 20))
@given(masked_kinds(), sizes())
def test_every_visible_pair_is_met_exactly_once_and_no_other(kind, s):
    check(kind, s)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("field", FIELDS)
def test_each_field_at_each_shape(field, shape):
    check(FIELDS[field], SHAPES[shape])


def test_most_tiles_of_common_patterns_need_no_mask():
    for field, whole_tiles in (("every key", 16), ("causal", 8), ("causal chunk", 0), ("prefix argument", 16)):
        steps = visits(plan_backward(FIELDS[field]).kv, sized(128, 128), 7)
        assert sum(not masked for _, masked in steps) == whole_tiles, field
    steps = visits(plan_backward(kind_of(window=Window(32, 32))).kv, sized(128, 128), 7)
    assert [masked for _, masked in steps] == [True] + [False] * 7 + [True]
