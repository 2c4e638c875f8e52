"""The backward pass, measured: what is asked of each system, on the CPU."""

import sys

import pytest
import torch

from attngen.bench.backward import gradients_call
from attngen.bench.cases import BenchCase
from attngen.bench.peers import PEERS, Peer, Unsupported
from attngen.bench.run import Bench, measure
from attngen.database import open_database
from attngen.inputs import make_inputs
from attngen.op import KindOp
from attngen.spec import parse_spec
from attngen.target import get_target
from attngen.tuner.bench import Timing

KIND = parse_spec("{heads: {query: 4, kv: 2}, head_dim: 16, dtype: float32, causal: true}").kinds[0]
SINK = parse_spec("{heads: {query: 4, kv: 2}, head_dim: 16, dtype: float32, causal: true, sink: learned}").kinds[0]


class Turns:
    def race(self, calls):
        self.made = [call() for call in calls]
        return [Timing(1.0 + n, 0.1, 30) for n in range(len(calls))]


@pytest.fixture
def bench(tmp_path):
    return Bench(get_target("h100"), Turns(), device="cpu", db=open_database(str(tmp_path / "db")))


def rows_of(bench, kind, *peers):
    (rows,) = measure(bench, [BenchCase("dense-backward", "x S24", "x", kind, 2, 24, backward=True)], peers)
    return rows


def test_rows_are_of_the_backward_pass(bench):
    ours, sdpa = rows_of(bench, KIND, PEERS["sdpa"])
    flops = 2.5 * 2 * 2 * 4 * (24 * 25 // 2) * (16 + 16)
    assert (ours.ms, sdpa.ms, sdpa.note) == (1.0, 2.0, "")
    assert ours.tflops == pytest.approx(flops * 1e-9) and sdpa.tflops == pytest.approx(flops * 0.5e-9)
    for made in bench.timer.made:
        assert [tuple(x.shape) for x in made] == [(2, 4, 24, 16), (2, 2, 24, 16), (2, 2, 24, 16)]


def test_peers_make_the_gradients_that_we_do(bench, monkeypatch):
    """The same gradient of the result given, as often as asked."""
    monkeypatch.setattr(torch, "randn_like", lambda x: torch.ones_like(x) / 3)
    inputs = make_inputs(KIND, 2, 24, 24, device="cpu")
    op = KindOp("x", KIND, bench.db)
    ours = gradients_call(lambda given: lambda: op(**given), inputs)
    theirs = gradients_call(lambda given: PEERS["sdpa"].make(KIND, given), inputs)
    for _ in range(2):
        for made, other in zip(ours(), theirs(), strict=True):
            assert torch.allclose(made, other, atol=1e-5)


def test_peers_leave_a_sink_out_of_the_backward_pass(bench):
    given = []

    def make(kind, inputs):
        given.append(kind.sink)
        return PEERS["sdpa"].make(kind, inputs)

    ours, peer = rows_of(bench, SINK, Peer("p", "P", make, sinks=True))
    assert given == [False] and (peer.note, ours.note) == ("without the sink", "")


def test_a_system_without_gradients_says_so(bench):
    ours, peer = rows_of(bench, KIND, Peer("p", "P", lambda kind, inputs: lambda: inputs["q"].detach()))
    assert ours.ms == 1.0 and peer.ms is None and "does not require grad" in peer.note


def test_a_peer_of_the_backward_pass_alone_is_not_asked_for_the_forward_one(bench):
    only = Peer("p", "P", PEERS["sdpa"].make, only_backward=True)
    assert len(rows_of(bench, KIND, only)) == 2
    (forward,) = measure(bench, [BenchCase("dense", "x S24", "x", KIND, 2, 24)], [only])
    assert [row.system for row in forward] == ["attngen"]


def test_fa4_is_deterministic_where_it_can_be(monkeypatch):
    """FA4 returns its lse beside the result."""
    seen = []

    def ordered(q, k, v, deterministic=False, **options):
        seen.append(deterministic)
        return q * 2, None

    def unordered(q, k, v, **options):
        raise AssertionError("called")

    inputs = {name: torch.zeros(2, 4, 8, 16) for name in "qkv"}
    plain = parse_spec("{heads: 4, head_dim: 16}").kinds[0]
    for function in (ordered, unordered):
        module = type("Module", (), {"flash_attn_func": staticmethod(function)})
        monkeypatch.setitem(sys.modules, "flash_attn", module)
        monkeypatch.setitem(sys.modules, "flash_attn.cute", module)
        if function is unordered:
            with pytest.raises(Unsupported, match="no deterministic backward pass"):
                PEERS["fa4-deterministic"].make(plain, inputs)
            continue
        for name in ("fa4", "fa4-deterministic"):
            PEERS[name].make(plain, inputs)()
        assert seen == [False, True]
        call = gradients_call(lambda given: lambda: ordered(given["q"] + given["k"] + given["v"], None, None), inputs)
        assert [x.shape for x in call()] == [(2, 4, 8, 16)] * 3
