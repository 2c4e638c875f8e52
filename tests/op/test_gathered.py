"""Attention over listed keys in Triton's interpreter, at sizes of a few tiles, against a float64 reference."""

import pytest
import torch

from attngen.config import Config
from attngen.errors import CallError, NotGeneratedError
from attngen.op.gathered import GatheredLauncher, gathered_grid, why_not_gathered_by_hopper
from attngen.plan import plan_gathered
from attngen.spec.model import BlockSelect, HeadDim, Heads, Kind, Latent, Select, Window
from tests.op.cases import kind_of
from tests.op.gathered_cases import (
    GatheredCase,
    gathered_reference,
    latent_kind,
    make_gathered_inputs,
    run_gathered,
)
from tests.op.test_interpreter import check

SMALL = Config(schedule="portable", BLOCK_H=16, BLOCK_N=16, num_warps=4, num_stages=1)
HOPPER = Config(schedule="hopper", BLOCK_H=64, BLOCK_N=64, num_warps=4, TURNS=0, TICKETS=True)
GQA = kind_of((6, 2), (16, 16))
BLOCKS = {size: Select(blocks=BlockSelect(size, 3, last=1)) for size in (4, 12, 32)}


@pytest.fixture(scope="module")
def interpret(interpreter):
    """Runs a case in the interpreter."""
    return lambda case: interpreter(run_gathered, case)


KINDS = {
    "latent": latent_kind(),
    "latent, causal": latent_kind(causal=True, select=Select(top_k=17)),
    "latent, one head": latent_kind(heads=1),
    "latent, heads of two tiles": latent_kind(heads=20),
    "latent, no rope": latent_kind(rope=0),
    "latent, rank in two chunks": latent_kind(rank=48, rope=8),
    "latent, padded rank": latent_kind(rank=44, rope=24),
    "latent, softcap and sink": latent_kind(softcap=2.0, sink=True),
    "latent, float32": latent_kind(dtype="float32"),
    "groups of heads": GQA,
    "as many KV heads as heads": kind_of((3, 3), (16, 16)),
    "values narrower than keys": kind_of((4, 2), (24, 16)),
    "values wider than keys": kind_of((4, 2), (16, 40)),
    "padded head_dim": kind_of((4, 2), (20, 20)),
    "window": kind_of((4, 2), (16, 16), window=Window(7, 5)),
    "window before": kind_of((4, 2), (16, 16), causal=True, window=Window(6, 0)),
    "chunk": kind_of((4, 2), (16, 16), chunk=8),
    "causal, dilation": kind_of((4, 2), (16, 16), causal=True, dilation=2),
    "sink": kind_of((4, 2), (16, 16), sink=True),
    "softcap": kind_of((4, 2), (16, 16), softcap=1.5, causal=True),
    "small blocks": kind_of((4, 2), (16, 16), select=BLOCKS[4], causal=True),
    "blocks that tiles do not divide": kind_of((4, 2), (16, 16), select=BLOCKS[12]),
    "blocks of two tiles": kind_of((4, 2), (16, 16), select=BLOCKS[32], causal=True, window=Window(9, 0)),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds(interpret, name):
    top_k = {"top_k": 3, "seq_k": 50} if "blocks" in name else {}
    check(interpret(GatheredCase(KINDS[name], SMALL, **top_k)))


CALLS = {
    "one query": {"seq_q": 1},
    "one key": {"seq_k": 1, "top_k": 1},
    "more queries than keys": {"seq_q": 6, "seq_k": 4},
    "more entries than keys": {"seq_k": 5, "top_k": 40},
    "whole tiles": {"top_k": 32, "seq_k": 64, "bad": 0.0},
    "one entry": {"top_k": 1},
    "no valid entry": {"bad": 1.1},
    "no entries": {"top_k": 0},
    "no keys": {"seq_k": 0},
    "no queries": {"seq_q": 0},
    "no sequences": {"batch": 0},
    "lists of heads": {"lists_of_heads": True},
    "offsets": {"offsets": (0, 11)},
    "negative positions": {"offsets": (-3, 40)},
    "key range": {"key_range": ((0, 12), (5, 100))},
    "empty key range": {"key_range": ((7, 7), (-5, 3))},
    "lengths": {"lengths": (0, 1, 16, 17, 40), "seq_q": 5},
    "negative lengths": {"lengths": (-4, 3, 0)},
    "strided": {"strided": True},
    "strided, lists of heads": {"strided": True, "lists_of_heads": True},
}


BLOCK_CALLS = ["no valid entry", "lists of heads", "offsets", "key range", "lengths", "strided", "no keys", "one entry"]


@pytest.mark.parametrize("name", BLOCK_CALLS)
def test_calls_with_blocks(interpret, name):
    kind = kind_of((4, 2), (16, 16), causal=True, select=BLOCKS[4])
    check(interpret(GatheredCase(kind, SMALL, **{"top_k": 6, "seq_k": 43, **CALLS[name]})))


PLAIN_AND_LATENT = [latent_kind(causal=True), kind_of((4, 2), (16, 16), causal=True)]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", PLAIN_AND_LATENT, ids=["latent", "plain"])
def test_calls(interpret, kind, name):
    check(interpret(GatheredCase(kind, SMALL, **CALLS[name])))


@pytest.mark.parametrize("changes", [{"BLOCK_H": 32}, {"BLOCK_N": 32}, {"BLOCK_H": 64, "BLOCK_N": 64}], ids=str)
def test_tiles(interpret, changes):
    check(interpret(GatheredCase(latent_kind(heads=33, causal=True), SMALL.replace(**changes), top_k=70, seq_k=80)))


MAXIMA = {
    "latent": (latent_kind(causal=True), {}),
    "no valid entry": (GQA, {"bad": 1.1}),
    "no keys": (GQA, {"seq_k": 0}),
    "softcap and sink": (latent_kind(softcap=2.0, sink=True), {"bad": 0.9}),
    "rows of padding": (latent_kind(heads=20), {"size": 3.0}),
}


@pytest.mark.parametrize("name", MAXIMA)
def test_maxima(interpret, name):
    kind, changes = MAXIMA[name]
    check(interpret(GatheredCase(kind, SMALL, maxima=True, **changes)))


def test_other_heads_in_the_same_groups(interpret):
    check(interpret(GatheredCase(GQA, SMALL, heads=12)))


def test_out_is_laid_out_like_q(interpret):
    outcome = interpret(GatheredCase(GQA, SMALL, strided=True))
    assert outcome.out_strides == (3 * 6 * 16, 16, 6 * 16, 1)


def test_every_occurrence_counts():
    """Of the reference, which the others are judged by: lists hold a key twice only by mistake, and it counts twice."""
    case = GatheredCase(latent_kind(heads=1), SMALL, batch=1, seq_q=1, seq_k=3, top_k=3, bad=0.0)
    inputs = make_gathered_inputs(case)
    _, once, _ = gathered_reference(case.kind, **{**inputs, "indices": torch.tensor([[[1, -1, 9]]], dtype=torch.int32)})
    _, twice, _ = gathered_reference(case.kind, **{**inputs, "indices": torch.tensor([[[1, 1, 9]]], dtype=torch.int32)})
    assert torch.allclose(twice - once, torch.full_like(once, 2.0).log())


WRONG = {
    "values in the keys": (latent_kind(), {"v": torch.zeros(2, 1, 23, 32, dtype=torch.float16)}, "None is needed"),
    "values missing": (GQA, {"v": None}, "a tensor is needed"),
    "dtype": (GQA, {"k": torch.zeros(2, 2, 23, 16)}, "float16 is needed"),
    "indices of 64 bits": (GQA, {"indices": torch.zeros(2, 3, 17, dtype=torch.int64)}, "int32 is needed"),
    "indices of another batch": (GQA, {"indices": torch.zeros(3, 3, 17, dtype=torch.int32)}, r"\(2, 3, 17\) is needed"),
    "indices of another stride": (
        GQA,
        {"indices": torch.zeros(2, 17, 3, dtype=torch.int32).transpose(1, 2)},
        "1 is needed",
    ),
    "two latents": (latent_kind(), {"q": torch.zeros(2, 8, 3, 48, dtype=torch.float16)}, "q has 8 heads"),
    "heads that do not group": (GQA, {"q": torch.zeros(2, 5, 3, 16, dtype=torch.float16)}, "3 share a KV head"),
    "lengths": (GQA, {"topk_length": torch.zeros(2, 4, dtype=torch.int32)}, r"\(2, 3\) is needed"),
    "sink of a kind without": (GQA, {"sink": torch.zeros(6)}, "no argument 'sink'"),
    "no sink": (kind_of((6, 2), (16, 16), sink=True), {"sink": None}, "needs the argument 'sink'"),
    "offsets on another device": (GQA, {"offsets": torch.zeros(2, dtype=torch.int32, device="meta")}, "one device"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    kind, changes, message = WRONG[name]
    inputs = make_gathered_inputs(GatheredCase(kind, SMALL)) | changes
    with pytest.raises(CallError, match=message):
        GatheredLauncher(plan_gathered(kind), SMALL)(**inputs)


NOT_GENERATED = [{"alibi": True}, {"prefix": 3}, {"always_first": 2}, {"documents": True}, {"dtype": "float8_e4m3"}]


@pytest.mark.parametrize("fields", NOT_GENERATED, ids=str)
def test_what_is_not_generated(fields):
    with pytest.raises(NotGeneratedError):
        plan_gathered(kind_of((4, 2), (16, 16), **fields))


def test_programs():
    latent = plan_gathered(latent_kind(heads=128))
    assert gathered_grid(latent, HOPPER.replace(TURNS=1, TICKETS=False), 1, 128, 4096) == 8192
    assert gathered_grid(latent, HOPPER, 1, 128, 4096, sms=132) == 132
    assert gathered_grid(latent, HOPPER, 1, 128, 50, sms=132) == 100
    assert gathered_grid(plan_gathered(GQA), SMALL, 2, 6, 5) == 20
    with pytest.raises(CallError, match="split the batch"):
        gathered_grid(latent, SMALL, 2**20, 128, 2**12)


def test_what_asynchronous_copies_take():
    q = torch.zeros(2, 5, 4, 576, dtype=torch.bfloat16).transpose(1, 2)
    k = torch.zeros(2, 1, 9, 576, dtype=torch.bfloat16)
    assert why_not_gathered_by_hopper(q, k) is None
    assert "stride 580" in str(why_not_gathered_by_hopper(q, torch.zeros(1, 1, 9, 580, dtype=q.dtype)[..., :576]))
    assert "q does not begin" in str(why_not_gathered_by_hopper(torch.zeros(8 * 577)[1:577].view(1, 1, 1, 576), k))


def test_a_plan_says_what_is_shared():
    latent = plan_gathered(Kind("kind", Heads(16, 1), HeadDim(576, 512), latent=Latent(512, 64), causal=True))
    assert latent.shared_values and [c.width for c in latent.v_chunks] == [512]
    assert [(c.start, c.width) for c in latent.qk_chunks] == [(0, 512), (512, 64)]
    plain = plan_gathered(GQA)
    assert not plain.shared_values and [c.width for c in plain.v_chunks] == [16]
