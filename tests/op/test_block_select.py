"""Lists of blocks in the interpreter: scores are whole numbers or sums of powers of two, and lists must be equal."""

import dataclasses

import pytest
import torch

from attngen.errors import CallError
from attngen.op.block_select import BlockSelectLauncher
from attngen.problem import Problem
from attngen.tuner.sparse_checks import BlockSelectChecks
from tests.op.block_select_cases import (
    INF,
    NAN,
    SUMMED,
    TINY,
    BlockCase,
    inputs_of,
    interpreted_blocks,
    plan_of,
)

RAGGED = ((0, 25), (5, 5), (9, 3), (-3, 11), (20, 40), (24, 25), (3, 19), (15, 17), (30, 35))  # empty, outside, short
WITHIN = (*((first, min(end, 25)) for first, end in RAGGED[:-1]), (25, 25))  # of blocks that there are
WINDOWS = tuple((n, n + 9) for n in range(0, 18, 2))
EMPTY = ((5, 5),) * 8 + ((9, 2),)
KEYS = ((0, 99), (7, 7), (-4, 30), (60, 200), (10, 11), (50, 3), (20, 90), (98, 99), (150, 160))
FORCED = {"first": 1, "last": 2, "top_k": 6}
THREE = {"per": "kv_head", "heads": (3, 1)}
WIDE = TINY.replace(BLOCK_N=64)
CASES = {
    "mean": BlockCase(plan_of(heads=(4, 2)), seq_q=21),
    "mean, of float32": BlockCase(plan_of(dtype="float32", dim=24), batch=1),
    "mean, only first and last": BlockCase(plan_of(first=2, last=3, top_k=5), ranges=RAGGED),
    "mean, ragged": BlockCase(plan_of(last=1), ranges=RAGGED),
    "mean, windows": BlockCase(plan_of(**FORCED), ranges=WINDOWS),
    "mean, no blocks": BlockCase(plan_of(**FORCED), ranges=EMPTY),
    "mean, more than there are": BlockCase(plan_of(top_k=64, first=1), blocks=9, batch=1, config=WIDE),
    "mean, one block": BlockCase(plan_of(top_k=1), blocks=1, seq_q=1, batch=1),
    "mean, top 1": BlockCase(plan_of(top_k=1)),
    "mean, NaN": BlockCase(plan_of(**FORCED), special=NAN),
    "mean, infinite": BlockCase(plan_of(), special=INF, values=2),
    "mean, -infinite": BlockCase(plan_of(top_k=12), special=-INF),
    "mean, strided": BlockCase(plan_of(dim=40), strided=True),
    "mean, one list for two heads": BlockCase(plan_of(per="kv_head", last=1), config=SUMMED),
    "mean, three heads": BlockCase(plan_of(**THREE, dim=5), special=INF, ranges=RAGGED, strided=True, config=SUMMED),
    "paid": BlockCase(plan_of(paid=True)),
    "paid, of float32": BlockCase(plan_of(paid=True, dtype="float32", per="kv_head"), batch=1, config=SUMMED),
    "paid, as NSA does": BlockCase(
        plan_of(paid=True, per="kv_head", heads=(4, 2), **FORCED), batch=1, config=SUMMED.replace(BLOCK_Q=4)
    ),
    "paid, in one loop": BlockCase(plan_of(paid=True), config=TINY.replace(FLATTEN=True)),
    "paid, three heads": BlockCase(plan_of(paid=True, **THREE, dim=40), strided=True, config=SUMMED),
    "paid, long keys": BlockCase(plan_of(paid=True, size=4, compress=(12, 2), top_k=4)),
    "paid, keys without overlap": BlockCase(plan_of(paid=True, size=8, compress=(4, 4), top_k=4)),
    "paid, key ranges": BlockCase(plan_of(paid=True, last=1), ranges=WITHIN, key_ranges=KEYS),
    "paid, windows": BlockCase(plan_of(paid=True, per="kv_head"), ranges=WINDOWS, key_ranges=KEYS, config=SUMMED),
    "paid, no keys": BlockCase(plan_of(paid=True), ranges=WITHIN, key_ranges=EMPTY),
    "paid, more than there are": BlockCase(plan_of(paid=True, top_k=40), blocks=11, batch=1, config=WIDE),
    "paid, lse is NaN": BlockCase(plan_of(paid=True, **FORCED), special=NAN, key_ranges=KEYS),
    "paid, lse is infinite": BlockCase(plan_of(paid=True, per="kv_head"), special=INF, config=SUMMED),
    "paid, lse is -infinite": BlockCase(plan_of(paid=True), special=-INF, key_ranges=KEYS),
}


@pytest.mark.parametrize("name", CASES)
def test_lists(interpreter, name):
    assert interpreter(interpreted_blocks, CASES[name]) == []


def _fault(plan, config):
    """What the tuner says of lists by scores that are not whole numbers."""
    torch.set_num_threads(1)
    checks = BlockSelectChecks(plan, Problem("block_select", "", 1, 9, 300), device="cpu")
    return checks.find_fault(BlockSelectLauncher(plan, config))


def test_the_tuner_finds_no_fault(interpreter):
    plan = plan_of(paid=True, per="kv_head", size=32, compress=(16, 8), last=1, scale=0.25)
    assert interpreter(_fault, plan, SUMMED) is None


def call(plan=None, **changes):
    plan = plan or plan_of()
    inputs = inputs_of(BlockCase(plan))
    return BlockSelectLauncher(plan, TINY)(**{**inputs, **changes})


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"q": torch.zeros(2, 9, 16)}, "(batch, heads, seq_q, dim)"),
        ({"q": torch.zeros(2, 3, 9, 16).half()}, "a multiple of 2"),
        ({"q": torch.zeros(2, 2, 9, 16)}, "in float16"),
        ({"q": torch.zeros(2, 2, 16, 9).half().transpose(2, 3)}, "last stride of 1"),
        ({"keys": torch.zeros(2, 2, 25, 16).half()}, "(2, 1, 25, 16)"),
        ({"block_end": torch.zeros(2, 9)}, "int32"),
        ({"block_first": torch.zeros(9, 2, dtype=torch.int32).T}, "contiguous"),
        ({"lse": torch.zeros(2, 2, 9)}, "None is needed for lse"),
        ({"out": torch.zeros(2, 2, 9, 4, dtype=torch.int32)}, "(2, 2, 9, 3)"),
    ],
)
def test_wrong_calls(changes, words):
    with pytest.raises(CallError) as error:
        call(**changes)
    assert words in str(error.value)


@pytest.mark.parametrize("name", ["lse", "key_first", "key_end"])
def test_what_a_compressed_branch_needs(name):
    with pytest.raises(CallError, match=f"'compressed': a tensor is needed for {name}"):
        call(plan_of(paid=True), **{name: None})


def test_no_queries():
    plan = plan_of()
    inputs = inputs_of(dataclasses.replace(BlockCase(plan), seq_q=0))
    assert BlockSelectLauncher(plan, TINY)(**inputs).shape == (2, 2, 0, 3)
