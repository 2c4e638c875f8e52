"""An indexer's logits in the interpreter against float64: heads, widths, dtypes, ranges of keys, shapes."""

import dataclasses

import pytest
import torch

from attngen.errors import CallError
from attngen.op.indexer import INTERPRETED_PROGRAMS, IndexerLauncher, check_indexer_call, describable
from attngen.op.indexer_items import MOST_KEYS, UNIT, keys_per_item
from attngen.plan.space import default_config
from attngen.target import get_target
from tests.op.indexer_cases import IndexerCase, inputs_of, portable, run_indexer

FLOAT8 = {"dtype": "float8_e4m3"}
RAGGED = ((0, 70), (5, 5), (20, 3), (64, 70), (-4, 99))  # whole, empty, reversed, an end, past both ends
CASES = {
    "causal": {},
    "FP8": FLOAT8,
    "float32 logits of 12 heads": {"heads": 12},
    "24 heads of 48 columns": {"heads": 24, "head_dim": 48, "seq_k": 33},
    "FP8, 96 columns": {**FLOAT8, "head_dim": 96, "heads": 9, "seq_k": 33},
    "128 heads": {**FLOAT8, "heads": 128, "config": portable(BLOCK_Q=1), "seq_k": 40},
    "one query of 64 heads and 128 columns": {**FLOAT8, "heads": 64, "head_dim": 128, "seq_q": 1, "seq_k": 33},
    "ragged": {"ranges": RAGGED},
    "ragged and clean": {"ranges": RAGGED, "clean": True},
    "FP8, ragged and clean, bfloat16": {**FLOAT8, "ranges": RAGGED, "clean": True, "logits": "bfloat16"},
    "no key is seen, clean": {"ranges": ((3, 3),) * 5, "clean": True},
    "windows, clean": {"ranges": tuple((n * 10, n * 10 + 9) for n in range(5)), "clean": True},
    "strided": {**FLOAT8, "strided": True},
    "more columns than keys": {"extra_columns": 19},
    "more columns than keys, clean": {"extra_columns": 19, "clean": True},
    "fewer keys than queries": {"seq_q": 7, "seq_k": 3, "ranges": ((0, 0),) * 4 + ((0, 1), (0, 2), (0, 3))},
    "whole tiles": {"seq_q": 4, "seq_k": 64},
    "one key": {"seq_q": 1, "seq_k": 1, "batch": 1},
    "many sequences": {"batch": 5, "seq_q": 3, "seq_k": 17},
    "wide tiles": {**FLOAT8, "config": portable(BLOCK_Q=8, BLOCK_N=64)},
    "shares": {"seq_k": 2100, "seq_q": 3, "batch": 1, "config": portable(BLOCK_N=64), "clean": True},
    "shares, a window": {
        "seq_k": 2100,
        "seq_q": 3,
        "batch": 1,
        "clean": True,
        "config": portable(BLOCK_N=64),
        "ranges": ((1000, 1100), (1020, 1100), (1030, 1200)),
    },
}


@pytest.mark.parametrize("name", CASES)
def test_logits(interpreter, name):
    assert interpreter(run_indexer, IndexerCase(**CASES[name])) == []


def test_a_wrong_weight_would_be_seen(interpreter):
    assert interpreter(_with_another_weight, IndexerCase()) != []


def _with_another_weight(case):
    """One weight of one query a hundredth larger than the reference has it."""
    from tests.op import indexer_cases

    made = indexer_cases.exact_logits

    def other(inputs):
        w = inputs["w"].clone()
        w[1, 3, 5] *= 1.01
        return made({**inputs, "w": w})

    indexer_cases.exact_logits = other
    try:
        return run_indexer(case)
    finally:
        indexer_cases.exact_logits = made


@pytest.mark.parametrize("sizes", [{"seq_q": 0}, {"seq_k": 0}, {"batch": 0}], ids=str)
def test_nothing_to_compute(sizes):
    case = IndexerCase(**sizes)
    out = IndexerLauncher(case.plan(), case.config)(**inputs_of(case))
    assert out.shape == (case.batch, case.seq_q, case.seq_k)


WRONG = {
    "heads": lambda i: {"q": i["q"][:, :, :4]},
    "dtype": lambda i: {"k": i["k"].float()},
    "k_scale": lambda i: {"k_scale": torch.ones(i["k"].shape[:2])},
    "columns": lambda i: {"k": i["k"].transpose(1, 2).contiguous().transpose(1, 2)},
    "queries": lambda i: {"q": i["q"].transpose(0, 1).contiguous().transpose(0, 1)},
    "ranges": lambda i: {"key_end": i["key_end"].long()},
    "weights": lambda i: {"w": i["w"][:, :, :1].expand(i["w"].shape)},
    "rows of out": lambda i: {"out": torch.empty(2, 5, 70)},
    "dtype of out": lambda i: {"out": torch.empty(2, 5, 80, dtype=torch.float64)},
    "size of out": lambda i: {"out": torch.empty(2, 5, 64)},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(name):
    case = IndexerCase()
    inputs = inputs_of(case)
    with pytest.raises(CallError):
        IndexerLauncher(case.plan(), case.config)(**{**inputs, **WRONG[name](inputs)})


def test_the_copy_engine_is_asked_of_strides_and_addresses():
    keys = torch.zeros(2, 40, 256, dtype=torch.float8_e4m3fn)
    assert describable(keys) and describable(keys[:, :, :128]) and describable(keys[:, ::2, 16:144])
    assert not describable(keys[:, :, 8:136]) and not describable(torch.zeros(2, 40, 136, dtype=keys.dtype)[:, :, :128])
    assert describable(torch.zeros(1, 1, 1000)[:, :, :128].to(keys.dtype))
    case = IndexerCase(heads=64, head_dim=128, dtype="float8_e4m3", strided=True, batch=1)
    config = default_config(case.plan(), get_target("h100"))
    case = dataclasses.replace(case, config=config)
    inputs = inputs_of(case)
    bad = {**inputs, "k": torch.zeros(1, 70, 136, dtype=keys.dtype)[:, :, :128]}
    with pytest.raises(CallError, match="portable"):
        IndexerLauncher(case.plan(), config)(**bad)
    out = torch.empty(1, 5, 80)[..., :70]
    check_indexer_call(case.plan(), *(inputs[n] for n in ("q", "k", "w", "key_first", "key_end", "k_scale")), out)


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("seq_q", [1, 8, 100, 2048, 4096])
@pytest.mark.parametrize("seq_k", [1, 512, 1024, 8192, 131072])
def test_shares_fill_the_gpu(lasting, seq_q, seq_k):
    tiles = -(-seq_q // 8)
    keys = keys_per_item(tiles, 8, 1, seq_q, seq_k, 132, lasting)
    assert keys % UNIT == 0 and 0 < keys <= min(-(-seq_k // UNIT) * UNIT, MOST_KEYS)
    items = tiles * -(-seq_k // keys)
    if seq_q * seq_k >= 8 * 131072:
        assert items >= 120  # an SM or so may stay idle where that costs less than another item


@pytest.mark.parametrize("dtype", ["float8_e4m3", "bfloat16"])
def test_a_kernel_for_hopper_is_given_all_that_it_takes(dtype):
    plan = IndexerCase(heads=64, head_dim=128, dtype=dtype).plan()
    config = default_config(plan, get_target("h100"))
    case = IndexerCase(heads=64, head_dim=128, dtype=dtype, seq_q=45, seq_k=1000, batch=2, config=config)
    inputs = inputs_of(case)
    launcher = IndexerLauncher(plan, config)
    out = launcher.empty_logits(inputs["q"], inputs["k"])
    assert out.stride() == (45 * 1008, 1008, 1)
    bound = launcher._prepare(inputs["q"], inputs["k"], inputs["k_scale"], out)
    given = {**dict(zip(launcher.source.parameters, bound._values, strict=True))}
    tensors = {launcher.source.parameters[place] for place, _ in bound._pointers}
    assert {name for name, value in given.items() if value is None} == {n for n in tensors if n.endswith("_ptr")}
    assert given["q_desc"].shape == [2, 45, 64, 128] and given["q_desc"].block_shape == [1, 2, 64, 128]
    assert given["k_desc"].block_shape == [1, 64, 128] and given["stride_os"] == 1008
    assert bound._grid == INTERPRETED_PROGRAMS  # for 6 tiles of 8 queries of 2 sequences
