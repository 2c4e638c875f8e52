"""Attention over chosen blocks in Triton's interpreter, at sizes of a few tiles, against the float64 reference."""

import pytest
import torch

from attngen.config import Config
from attngen.errors import CallError, NotGeneratedError
from attngen.op.parts import Part, split
from attngen.op.routed import RoutedLauncher
from attngen.plan import plan_routed
from attngen.spec.model import Kind, Latent, Window
from tests.op.routed_cases import RoutedCase, make_routed_inputs, routed_kind, run_routed

SMALL = Config(schedule="portable", BLOCK_M=32, BLOCK_N=16, num_warps=4, num_stages=1, loads="pointer")
SHARED = routed_kind((3, 1), per="kv_head")


@pytest.fixture
def run(interpreter):
    return lambda case: interpreter(run_routed, case)


def check(outcome):
    assert outcome.right_rows
    assert outcome.out_error <= outcome.out_bound
    assert outcome.lse_error <= outcome.lse_bound


KINDS = {
    "causal, a list a head": routed_kind((4, 2)),
    "causal, a list a KV head": SHARED,
    "window of both sides, a list a KV head": routed_kind((4, 2), per="kv_head", causal=False, window=Window(9, 12)),
    "window, softcap and sink": routed_kind(window=Window(21, 0), softcap=1.5, sink=True),
    "chunk": routed_kind(chunk=24),
    "dilation, sink, a list a KV head": routed_kind(dilation=3, sink=True, per="kv_head"),
    "both directions, blocks of no whole tiles, padded": routed_kind((2, 2), (20, 24), size=20, causal=False),
    "float32": routed_kind(dtype="float32"),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds(run, name):
    check(run(RoutedCase(KINDS[name], SMALL)))


TWO = {"batch": 2}
CALLS = {
    "one query": {"seq_q": 1},
    "more queries than keys": {"seq_q": 40, "seq_k": 20},
    "wide lists": {"width": 7, "seq_k": 90, "seq_q": 12},
    "no valid entry": {"bad": 1.1},
    "no entries": {"width": 0},
    "no keys": {"seq_k": 0},
    "no queries": {"seq_q": 0},
    "no sequences": {"batch": 0},
    "one block chosen by all": {"listed": "one for all", "bad": 0.0},
    "blocks that none chose": {"listed": "none of the first"},
    "offsets": {"offsets": (5, -9), **TWO},  # some rows see nothing
    "key range, strided": {"key_range": ((19, 37), (-3, 10**6)), "strided": True, **TWO},
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(run, name):
    check(run(RoutedCase(routed_kind(), SMALL, **CALLS[name])))


def test_a_call_of_shared_lists(run):
    placed = {"offsets": (5, -9), "key_range": ((19, 37), (-3, 10**6))}
    check(run(RoutedCase(SHARED, SMALL, batch=2, strided=True, **placed)))


def test_parts_change_no_bit(run):
    """Not even with a workspace that is too small for the least of them."""
    kind = routed_kind((3, 1), per="kv_head", window=Window(40, 0))
    check(run(RoutedCase(kind, SMALL, seq_q=70, seq_k=70, workspaces=(1,), coarse=True)))


def test_partials_in_float16_are_scaled(run):
    check(run(RoutedCase(SHARED, SMALL, partials="float16")))


def test_parts():
    assert split(7, 100, 3, 300, 32) == [Part(0, 3, 0, 100), Part(3, 3, 0, 100), Part(6, 1, 0, 100)]
    assert split(6, 100, 5, 500, 32) == [Part(0, 3, 0, 100), Part(3, 3, 0, 100)]
    assert split(1, 100, 0, 64, 32) == [Part(0, 1, 0, 64), Part(0, 1, 64, 36)]
    assert split(2, 40, 0, -5, 32) == [Part(n, 1, q, size) for n in (0, 1) for q, size in ((0, 32), (32, 8))]


@pytest.mark.parametrize("seq_q", [1, 33, 1000])
@pytest.mark.parametrize("most", [0, 40, 999, 5000])
def test_parts_cover_everything_once(seq_q, most):
    parts = split(7, seq_q, most // seq_q, most, 32)
    covered = [(n, q) for p in parts for n in range(p.first_list, p.first_list + p.part_lists) for q in _queries(p)]
    assert sorted(covered) == [(n, q) for n in range(7) for q in range(seq_q)]
    assert max(p.part_lists * p.queries for p in parts) == parts[0].part_lists * parts[0].queries <= max(most, 32)


def _queries(part):
    return range(part.first_query, part.first_query + part.queries)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"mask": "x"}, "'mask'"),
        ({"alibi": True}, "'alibi'"),
        ({"prefix": 4}, "'prefix'"),
        ({"latent": Latent(16, 16)}, "'latent'"),
        ({"dtype": "float8_e4m3"}, "float8_e4m3"),
        ({"select": None}, "so no blocks are selected"),
    ],
)
def test_kinds_without_a_kernel(changes, word):
    kind = routed_kind()
    with pytest.raises(NotGeneratedError, match=word):
        plan_routed(Kind(**{**{f: getattr(kind, f) for f in kind.__dataclass_fields__}, **changes}))


WRONG = {
    "q": (lambda x: {"q": x["q"].float()}, "q is .*float16 is needed"),
    "k": (lambda x: {"k": x["k"][:1]}, "k has shape"),
    "v": (lambda x: {"v": x["v"].transpose(2, 3)}, "v has stride"),
    "heads": (lambda x: {"q": x["q"][:, :1]}, "1 heads; 2 share"),
    "lists": (lambda x: {"blocks": x["blocks"][:, :1]}, r"blocks has shape .* \(2, 2, 23, 2\) is needed"),
    "no heads": (lambda x: {"blocks": x["blocks"][:, 0]}, "blocks has shape"),
    "int64": (lambda x: {"blocks": x["blocks"].long()}, "blocks is torch.int64"),
    "entries": (lambda x: {"blocks": x["blocks"].transpose(2, 3).contiguous().transpose(2, 3)}, "blocks has stride 23"),
    "sink": (lambda x: {"sink": torch.zeros(2)}, "takes no argument 'sink'"),
    "offsets": (lambda x: {"offsets": torch.zeros(3, dtype=torch.int32)}, "offsets has shape"),
    "key_range": (lambda x: {"key_range": torch.zeros(2, 2)}, "key_range is torch.float32"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    case = RoutedCase(routed_kind(), SMALL, batch=2)
    inputs = make_routed_inputs(case)
    change, message = WRONG[name]
    with pytest.raises(CallError, match=message):
        RoutedLauncher(plan_routed(case.kind), SMALL)(**{**inputs, **change(inputs)})


def test_a_sink_is_needed():
    case = RoutedCase(routed_kind(sink=True), SMALL)
    inputs = make_routed_inputs(case)
    del inputs["sink"]
    with pytest.raises(CallError, match="needs the argument 'sink'"):
        RoutedLauncher(plan_routed(case.kind), SMALL)(**inputs)
