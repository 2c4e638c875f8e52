"""Counting a plan's work: visible pairs, and the tiles that a kernel goes over."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attngen import reference
from attngen.config import Config
from attngen.plan import plan_forward
from attngen.plan.work import compulsory_bytes, tile_work, tiles_of, useful_flops, visible_pairs
from attngen.problem import Problem
from attngen.spec.model import HeadDim, Heads, Kind, Window
from tests.plan.emulate import visits
from tests.plan.strategies import Sizes, linear, masked_kinds

linear_masks = linear()
lengths = st.integers(1, 60)


def seen(kind: Kind, seq_q: int, seq_k: int) -> int:
    prefix = torch.tensor([seq_k // 2], dtype=torch.int32)
    return int(reference.visible(kind, seq_q, seq_k, prefix=prefix).sum())


def whole(seq_q: int, seq_k: int, block_q: int, block_n: int, split_masks: bool) -> Sizes:
    return Sizes(seq_q, seq_k, seq_k - seq_q, 0, seq_k, seq_k // 2, 0, 0, block_q, block_n, split_masks)


@settings(max_examples=200, deadline=None)
@given(masked_kinds(mask=st.none()).filter(lambda kind: kind.dilation is None), lengths, lengths)
def test_visible_pairs_are_exact_without_tests_of_elements(kind, seq_q, seq_k):
    assert visible_pairs(plan_forward(kind), seq_q, seq_k) == seen(kind, seq_q, seq_k)


def test_visible_pairs_of_a_dilation_are_near():
    kind = Kind("kind", Heads(1, 1), HeadDim(16, 16), dilation=4, causal=True)
    assert visible_pairs(plan_forward(kind), 400, 400) == pytest.approx(seen(kind, 400, 400), rel=0.02)


@settings(max_examples=100, deadline=None)
@given(masked_kinds(), lengths, lengths, st.sampled_from([1, 4, 16]), st.sampled_from([1, 4, 16]), st.booleans())
def test_tiles_are_those_that_the_kernel_goes_over(kind, seq_q, seq_k, block_q, block_n, split_masks):
    plan = plan_forward(kind)
    masked, full = tiles_of(plan, seq_q, seq_k, block_q, block_n, split_masks)
    sizes = whole(seq_q, seq_k, block_q, block_n, split_masks)
    for tile in range(-(-seq_q // block_q)):
        steps = visits(plan, sizes, tile)
        assert masked[tile] == sum(step_masked for _, step_masked in steps)
        assert full[tile] == sum(not step_masked for _, step_masked in steps)


def test_the_work_of_a_causal_launch():
    """2 sequences of 256 tokens, 8 query heads over 2: tiles of 64 x 64, dims 64."""
    kind = Kind("kind", Heads(8, 2), HeadDim(64, 64), causal=True)
    plan, problem = plan_forward(kind), Problem("forward", kind.digest(), 2, 256, 256)
    config = Config(schedule="portable", BLOCK_M=64, BLOCK_N=64, PACK_HEADS=1, SPLIT_MASKS=True)
    work = tile_work(plan, config, problem)
    assert work.programs == 2 * 8 * 4
    assert (work.tiles_masked, work.tiles_full) == (2 * 8 * 4, 2 * 8 * (0 + 1 + 2 + 3))
    assert work.longest == 4
    assert work.exps == 2 * 8 * 10 * 64 * 64
    assert work.flops == 2 * work.exps * 128
    assert useful_flops(plan, problem) == 2 * 2 * 8 * (256 * 257 // 2) * 128
    assert work.bytes == compulsory_bytes(plan, problem) == 2 * 256 * (2 * (8 + 2) * 128 + 4 * 8)


def test_packed_heads_share_tiles():
    kind = Kind("kind", Heads(8, 2), HeadDim(64, 64), causal=True, window=Window(31, 0))
    plan, problem = plan_forward(kind), Problem("forward", kind.digest(), 1, 128, 128)
    config = Config(schedule="portable", BLOCK_M=64, BLOCK_N=32, PACK_HEADS=4, SPLIT_MASKS=True)
    assert tile_work(plan, config, problem).programs == 2 * (128 // 16)
