"""Counting the work of a backward pass: tiles as its kernels go over them, and the queries that keys need."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attngen import reference
from attngen.config import Config
from attngen.plan.backward import plan_backward
from attngen.plan.backward_work import backward_tile_work, kernel_flops, queries_of_keys, tiles_of_keys
from attngen.plan.forward import plan_forward
from attngen.plan.work import useful_flops
from attngen.problem import Problem
from attngen.spec.model import HeadDim, Heads, Kind
from tests.plan.strategies import Sizes, masked_kinds
from tests.plan.test_transpose import visits

lengths = st.integers(1, 60)


@settings(max_examples=60, deadline=None)
@given(masked_kinds(), lengths, lengths, st.sampled_from([1, 4, 16]), st.sampled_from([1, 4, 16]))
def test_tiles_of_keys_are_those_that_the_kernel_goes_over(kind, seq_q, seq_k, block_q, block_n):
    plan = plan_backward(kind).kv
    masked, full = tiles_of_keys(plan, seq_q, seq_k, block_q, block_n)
    sizes = Sizes(seq_q, seq_k, seq_k - seq_q, 0, seq_k, seq_k // 2, 0, 0, block_q, block_n, True)
    for tile in range(-(-seq_k // block_n)):
        steps = visits(plan, sizes, tile)
        assert masked[tile] == sum(step_masked for _, step_masked in steps)
        assert full[tile] == sum(not step_masked for _, step_masked in steps)


@settings(max_examples=60, deadline=None)
@given(masked_kinds(mask=st.none()), lengths, lengths, st.data())
def test_no_query_that_sees_a_key_is_left_out(kind, seq_q, seq_k, data):
    first = data.draw(st.integers(0, seq_k - 1))
    keys = slice(first, data.draw(st.integers(first + 1, seq_k)))
    prefix = data.draw(st.integers(0, seq_k))
    rows = queries_of_keys(plan_backward(kind).kv, keys, seq_q, seq_k, prefix)
    assert 0 <= rows.start <= rows.stop <= seq_q
    seen = reference.visible(kind, seq_q, seq_k, prefix=torch.tensor([prefix], dtype=torch.int32))[:, keys].any(1)
    seen[rows] = False
    assert not seen.any()


def test_a_window_needs_few_queries():
    kind = Kind("kind", Heads(1, 1), HeadDim(16, 16), causal=True)
    plan = plan_backward(kind).kv
    assert queries_of_keys(plan, slice(90, 100), 100, 100) == slice(90, 100)
    assert queries_of_keys(plan, slice(0, 10), 60, 100) == slice(0, 60)


def test_the_work_of_causal_launches():
    """2 sequences of 256 tokens, 8 query heads over 2, tiles of 64 x 64, dims 64 and 32: 7 products where useful work
    has 5, and the diagonal's tiles whole."""
    kind = Kind("kind", Heads(8, 2), HeadDim(64, 32), causal=True)
    plans, config = plan_backward(kind), Config(schedule="portable", BLOCK_M=64, BLOCK_N=64)
    works = {}
    for plan in (plans.q, plans.kv):
        problem = Problem(plan.kernel, kind.digest(), 2, 256, 256)
        works[plan.kernel] = work = backward_tile_work(plan, config, problem)
        assert (work.tiles_masked, work.tiles_full) == (2 * 8 * 4, 2 * 8 * 6) and work.exps == 2 * 8 * 10 * 64 * 64
    assert (works["backward_q"].programs, works["backward_q"].longest) == (2 * 8 * 4, 4)
    assert (works["backward_kv"].programs, works["backward_kv"].longest) == (2 * 2 * 4, 4 * 4)
    scores = 2 * 2 * 8 * 10 * 64 * 64
    assert works["backward_q"].flops == scores * (2 * 64 + 32) and works["backward_kv"].flops == scores * 2 * 96
    forward = plan_forward(kind)
    useful = sum(kernel_flops(plan, forward, problem) for plan in (plans.q, plans.kv))
    assert abs(useful - 2.5 * useful_flops(forward, problem)) < 1
