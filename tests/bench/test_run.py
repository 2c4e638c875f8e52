"""The measuring, on the CPU: rows of systems that run, that cannot, and that fail."""

import importlib.metadata
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from attngen.bench import host as host_module
from attngen.bench import peers
from attngen.bench.cases import spec_cases
from attngen.bench.host import first_calls, measure_host
from attngen.bench.peers import PEERS, Peer, Unsupported, chosen
from attngen.bench.run import Bench, measure
from attngen.database import open_database
from attngen.errors import UsageError
from attngen.inputs import make_inputs
from attngen.spec import parse_spec
from attngen.target import get_target
from attngen.tuner.bench import Timing

SPEC = parse_spec("{name: x, heads: {query: 4, kv: 2}, head_dim: 16, dtype: float32, causal: true}")


class Turns:
    """A timer that calls everything once and says that each call took a millisecond longer than the one before."""

    def race(self, calls):
        for call in calls:
            call()
        return [Timing(1.0 + n, 0.1, 30) for n in range(len(calls))]


@pytest.fixture
def bench(tmp_path):
    return Bench(get_target("h100"), Turns(), device="cpu", db=open_database(str(tmp_path / "db")))


def fails(kind, inputs):
    raise RuntimeError("out of\nluck")


def unable(kind, inputs):
    raise Unsupported("no windows")


def test_every_system_has_a_row(bench):
    systems = [PEERS["sdpa"], Peer("broken", "Broken", fails), Peer("unable", "Unable", unable)]
    ((ours, sdpa, broken, cannot),) = measure(bench, spec_cases(SPEC, SPEC.kinds, [(2, 24)]), systems)
    assert (ours.system, ours.ms, sdpa.system, sdpa.ms) == ("attngen", 1.0, "sdpa", 2.0)
    flops = 2 * 2 * 4 * (24 * 25 // 2) * (16 + 16)
    assert ours.tflops == pytest.approx(flops * 1e-9) and sdpa.tflops == pytest.approx(flops * 0.5e-9)
    assert (broken.ms, broken.note) == (None, "RuntimeError: out of luck")
    assert (cannot.ms, cannot.note) == (None, "no windows")


def test_rows_say_what_ran_and_which_limit_holds(bench):
    ((ours, sdpa),) = measure(bench, spec_cases(SPEC, SPEC.kinds, [(2, 24)]), [PEERS["sdpa"]])
    assert ours.config["BLOCK_M"] > 0 and ours.provenance.startswith("default for h100")
    assert sdpa.config is None and sdpa.provenance == ""
    assert ours.bound == sdpa.bound == "bytes" and ours.sm_mhz is None


def test_the_clock_of_a_case_is_that_of_its_race(bench):
    class Throttled(Turns):
        def race(self, calls):
            for mhz in (1500.0, 1200.0, 1300.0):
                bench.log.note(mhz)
            return super().race(calls)

    bench.log.note(1980.0)  # before
    ((ours, sdpa),) = measure(
        replace(bench, timer=Throttled()), spec_cases(SPEC, SPEC.kinds, [(2, 24)]), [PEERS["sdpa"]]
    )
    assert ours.sm_mhz == sdpa.sm_mhz == 1300.0


def test_a_case_that_fails_does_not_end_the_run(bench):
    """The first race fails for all: its rows say why, and the next case is measured."""

    class Once(Turns):
        raced = 0

        def race(self, calls):
            self.raced += 1
            if self.raced == 1:
                raise RuntimeError("an illegal access")
            return super().race(calls)

    first, second = measure(
        replace(bench, timer=Once()), spec_cases(SPEC, SPEC.kinds, [(2, 24), (1, 8)]), [PEERS["sdpa"]]
    )
    assert [(row.system, row.ms, row.note) for row in first] == [
        ("attngen", None, "RuntimeError: an illegal access"),
        ("sdpa", None, "RuntimeError: an illegal access"),
    ]
    assert [row.ms for row in second] == [1.0, 2.0]


def test_peers_compute_what_we_do(bench):
    """SDPA's call means the same as ours, grouped heads and scale included."""
    from attngen.op import KindOp
    from attngen.problem import Problem
    from attngen.tuner.checks import Checks

    kind = parse_spec("{heads: {query: 4, kv: 2}, head_dim: 16, dtype: float32, causal: true, scale: 0.3}").kinds[0]
    checks = Checks(kind, Problem("forward", kind.digest(), 2, 24, 24), "cpu")
    ours = KindOp("x", kind, bench.db)(**checks.inputs)
    assert torch.allclose(PEERS["sdpa"].make(kind, checks.inputs)(), ours, atol=1e-5)


def test_peers_say_what_they_lack():
    kind = parse_spec("{heads: 2, head_dim: 64, causal: true, window: {total: 9}, softcap: 3}").kinds[0]
    with pytest.raises(Unsupported, match="SDPA has no window, softcap"):
        PEERS["sdpa"].make(kind, {})
    sink = parse_spec("{heads: 2, head_dim: 64, causal: true, sink: learned}").kinds[0]
    peers.refuse(sink, {"causal", "sink"}, "x")
    assert PEERS["fa3"].left_out(sink) == "without the sink" and PEERS["fa4"].left_out(sink) == ""
    assert PEERS["fa3"].left_out(kind) == ""


def test_fp8_is_for_those_who_take_it(monkeypatch):
    kind = parse_spec("{heads: {query: 4, kv: 2}, head_dim: 32, causal: true, dtype: float8_e4m3}").kinds[0]
    for name in ("sdpa", "cudnn", "flex"):
        with pytest.raises(Unsupported, match="has no FP8"):
            PEERS[name].make(kind, {})
    called = {}
    module = SimpleNamespace(flash_attn_func=lambda q, k, v, **options: called.update(options))
    monkeypatch.setitem(sys.modules, "flash_attn_interface", module)
    inputs = make_inputs(kind, 3, 9, 9, device="cpu")
    with pytest.raises(Unsupported, match="FA3 has one scale for the queries of a KV head"):
        PEERS["fa3"].make(kind, inputs)
    PEERS["fa3"].make(kind, {**inputs, "q_scale": torch.tensor([0.25])})()
    assert torch.equal(called["q_descale"], torch.full((3, 2), 0.25))
    assert torch.equal(called["v_descale"], inputs["v_scale"].expand(3, 2))
    assert torch.equal(called["k_descale"], inputs["k_scale"].expand(3, 2))


def test_choosing_peers():
    assert [peer.name for peer in chosen("sdpa, flex,sdpa", PEERS)] == ["sdpa", "flex"]
    assert chosen("none", PEERS) == []
    every = ["sdpa", "cudnn", "fa2", "flex", "fa3", "fa4", "fa4-deterministic"]
    assert [peer.name for peer in chosen("all", PEERS)] == every
    with pytest.raises(UsageError, match="did you mean 'cudnn'"):
        chosen("cudn", PEERS)


def test_a_missing_peer_is_named():
    assert Peer("x", "X", fails, "no_such_module").missing() == "no_such_module is not installed"
    assert Peer("x", "X", fails, "no_such_package.part").missing() == "no_such_package.part is not installed"
    assert Peer("x", "X", fails, "torch.nn").missing() == "" and PEERS["sdpa"].missing() == ""


def test_versions_of_peers():
    here = [Peer("x", "X", fails, "click"), Peer("y", "Y", fails, "no_such_module"), PEERS["sdpa"]]
    assert peers.versions(here) == {"click": importlib.metadata.version("click")}


def test_fa3_is_called_as_it_wants(monkeypatch):
    """Views of (batch, sequence, heads, dim), a window that is -1 where it is open and 0 after a causal query."""
    seen = {}

    class Module:
        @staticmethod
        def flash_attn_func(q, k, v, **options):
            seen.update(options, shape=q.shape, contiguous=q.is_contiguous())

    monkeypatch.setitem(sys.modules, "flash_attn_interface", Module)
    inputs = {name: torch.zeros(2, 4, 8, 16) for name in "qkv"}
    for fields, size in [
        ("causal: true, window: {total: 128}", (127, 0)),
        ("window: {half: 64}", (64, 64)),
        ("causal: true", (-1, 0)),
        ("scale: 0.5", (-1, -1)),
    ]:
        kind = parse_spec("{heads: 4, head_dim: 16, " + fields + "}").kinds[0]
        PEERS["fa3"].make(kind, inputs)()
        assert seen["window_size"] == size and seen["causal"] == kind.causal and seen["softmax_scale"] == kind.scale
        assert seen["shape"] == (2, 8, 4, 16)


def test_fa4_is_called_as_it_wants(monkeypatch):
    """As FA3, but a window is None where it is open, and it takes the sink."""
    seen = {}

    class Module:
        @staticmethod
        def flash_attn_func(q, k, v, **options):
            seen.clear()
            seen.update(options, shape=q.shape)

    monkeypatch.setitem(sys.modules, "flash_attn", Module)
    monkeypatch.setitem(sys.modules, "flash_attn.cute", Module)
    inputs = {name: torch.zeros(2, 4, 8, 16) for name in "qkv"} | {"sink": torch.ones(4)}
    for fields, size in [
        ("causal: true, window: {total: 128}, sink: learned", (127, 0)),
        ("window: {half: 64}, softcap: 3", (64, 64)),
        ("causal: true", (None, None)),
        ("scale: 0.5", (None, None)),
    ]:
        kind = parse_spec("{heads: 4, head_dim: 16, " + fields + "}").kinds[0]
        PEERS["fa4"].make(kind, inputs)()
        assert seen["window_size"] == size and seen["causal"] == kind.causal and seen["softmax_scale"] == kind.scale
        assert seen["shape"] == (2, 8, 4, 16)
        assert ("learnable_sink" in seen) == bool(kind.sink) and seen.get("softcap") == kind.softcap


def test_host_time(bench, monkeypatch):
    monkeypatch.setattr(host_module, "CALLS", 2)
    monkeypatch.setattr(host_module, "ROUNDS", 3)
    monkeypatch.setattr(host_module, "WARMUP", 1)
    monkeypatch.setattr(host_module, "SPEC", "{heads: 2, head_dim: 16, dtype: float32}")
    ours, sdpa, broken, cannot = measure_host(bench, [PEERS["sdpa"], Peer("b", "B", fails), Peer("u", "U", unable)])
    assert ours.call_us > sdpa.call_us > 0  # the reference, here
    assert broken.call_us is None and broken.note == "RuntimeError: out of luck"
    assert cannot.note == "no windows"


@pytest.mark.slow
def test_first_calls(tmp_path):
    cold, warm = first_calls(SPEC, 1, 8, str(tmp_path / "db"))
    assert cold > 0 and warm > 0
