"""Attention over chosen blocks on a GPU, at real shapes, against float64 and bounds of rounding."""

from dataclasses import replace

import pytest
import torch

from attngen.inputs_sparse import make_blocks
from attngen.op.routed import RoutedLauncher
from attngen.plan import plan_routed
from attngen.plan.space import default_config, feasible
from attngen.problem import Problem
from attngen.spec.model import Window
from attngen.target import detect
from attngen.tuner.sparse_checks import RoutedChecks
from tests.op.routed_cases import RoutedCase, make_routed_inputs, measured, plan_of, routed_kind

pytestmark = pytest.mark.gpu


def wide(heads=(8, 2), dims=(128, 128), size=128, top_k=4, dtype="bfloat16", **fields):
    return routed_kind(heads, dims, size, top_k, dtype=dtype, **fields)


def config_of(plan, **changes):
    """The default, changed; skips what this GPU has not."""
    config = default_config(plan, detect()).replace(**changes)
    if reason := feasible(plan, config, detect()):
        pytest.skip(reason)
    return config


def check(case, **changes):
    plan, inputs = plan_of(case), make_routed_inputs(case, "cuda")
    launcher = RoutedLauncher(plan, config_of(plan, **changes))
    first = launcher(**inputs)
    outcome = measured(plan, inputs, first)
    assert outcome.right_rows
    assert outcome.out_error <= outcome.out_bound
    assert outcome.lse_error <= outcome.lse_bound
    again = launcher(**inputs)  # by the kept launch
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


KINDS = {
    "a list a head": wide(),
    "a list a KV head": wide(per="kv_head", size=64, sink=True),
    "three heads of a list": wide((6, 2), per="kv_head", window=Window(300, 0)),
    "window, chunk": wide(window=Window(200, 0), chunk=500),
    "both directions, softcap": wide(causal=False, softcap=20.0, sink=True),
    "float16": wide(dtype="float16"),
    "float32": wide((4, 2), (64, 64), dtype="float32"),
    "blocks of no whole tiles": wide(size=100),
    "192 and 128 wide": wide(dims=(192, 128)),
    "80 wide": wide(dims=(80, 80)),
    "256 wide": wide((4, 2), (256, 256)),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds(name):
    check(RoutedCase(KINDS[name], None, 300, 1000))


CALLS = {
    "one query": {"seq_q": 1},
    "more queries than keys": {"seq_q": 900, "seq_k": 300},
    "no valid entry": {"bad": 1.1},
    "wide lists": {"width": 12, "bad": 0.0},
    "one block chosen by all": {"listed": "one for all", "bad": 0.0},
    "blocks that none chose": {"listed": "none of the first"},
    "offsets": {"offsets": (3, -150), "batch": 2},
    "key range": {"key_range": ((100, 713), (250, 10**6)), "batch": 2},
    "strided": {"strided": True},
    "many sequences": {"batch": 9, "seq_q": 130, "seq_k": 257},
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name):
    check(RoutedCase(wide(), None, **{"seq_q": 300, "seq_k": 1000, **CALLS[name]}))


@pytest.mark.parametrize(
    "changes",
    [
        {"loads": "pointer", "num_stages": 2},
        {"BLOCK_M": 128, "num_warps": 8, "num_stages": 2},
        {"BLOCK_M": 128, "BLOCK_N": 128, "num_warps": 8, "num_stages": 2},
        {"BLOCK_M": 32, "BLOCK_N": 32, "num_warps": 4, "num_stages": 2, "loads": "pointer"},
    ],
    ids=str,
)
def test_configs(changes):
    check(RoutedCase(wide(), None, 300, 1000), **changes)


@pytest.mark.parametrize("kind", [wide(), wide(window=Window(700, 0)), wide(per="kv_head")], ids=str)
def test_parts_change_no_bit(kind):
    """Tiles of other queries, and more or fewer of them."""
    plan, inputs = plan_routed(kind), make_blocks(kind, 2, 2000, 3000, device="cuda")
    whole = RoutedLauncher(plan, config_of(plan))(**inputs)
    for workspace in (1, 2**20, 2**23):
        parts = RoutedLauncher(plan, config_of(plan), workspace)(**inputs)
        assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_results_in_float16_hold_any_value():
    """Columns of values 2**40 apart: each is as near as its own size asks for."""
    case = RoutedCase(wide(), None, 300, 1000)
    plan, inputs = plan_of(case), make_routed_inputs(case, "cuda")
    sizes = 2.0 ** torch.linspace(-10, 30, 128, device="cuda").round()
    inputs["v"] = inputs["v"] * sizes.to(torch.bfloat16)
    near = slice(128 - 80, None)  # columns within 2**-25 of the largest keep all their bits
    out, lse = RoutedLauncher(plan, config_of(plan))(**inputs)
    exact = RoutedLauncher(replace(plan, partials="float32"), config_of(plan))(**inputs)
    assert torch.isfinite(out).all() and torch.equal(lse, exact[1])
    size = exact[0].double().square().mean((0, 1, 2)).sqrt()
    error = (out.double() - exact[0].double()).square().mean((0, 1, 2)).sqrt()
    assert (error[near] <= 2.0**-8 * size[near]).all()


def test_a_long_sequence():
    """The check of the tuner: queries at the start, in the middle and at the end of 32768."""
    kind = wide((32, 8), size=512, top_k=8)
    plan = plan_routed(kind)
    checks = RoutedChecks(plan, Problem("routed", kind.digest(), 1, 32768, 32768))
    assert checks.find_fault(RoutedLauncher(plan, config_of(plan))) is None
    found = RoutedLauncher(plan, config_of(plan))(**{**checks.inputs, "blocks": checks.inputs["blocks"].roll(1, 1)})
    assert "error" in str(checks.compare(found, checks.inputs, slice(16384, 16400)))


def test_streams_and_graphs():
    kind = wide()
    plan, inputs = plan_routed(kind), make_blocks(kind, 1, 2000, 2000, device="cuda")
    launcher = RoutedLauncher(plan, config_of(plan), 2**22)
    out, _ = launcher(**inputs)
    streams = [torch.cuda.Stream() for _ in range(3)]
    torch.cuda.synchronize()
    results = []
    for n in range(30):
        with torch.cuda.stream(streams[n % 3]):
            results.append(launcher(**inputs)[0])
    torch.cuda.synchronize()
    assert all(torch.equal(out, result) for result in results)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured, _ = launcher(**inputs)
    for _ in range(3):
        captured.zero_()
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(out, captured)


def test_nothing_is_waited_for():
    """A call only launches: no copy to the host, no wait."""
    kind = wide()
    plan, inputs = plan_routed(kind), make_blocks(kind, 1, 2000, 2000, device="cuda")
    launcher = RoutedLauncher(plan, config_of(plan), 2**22)
    out, _ = launcher(**inputs)
    torch.cuda.set_sync_debug_mode("error")
    try:
        again, _ = launcher(**inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(out, again)


def test_the_workspace_is_bounded():
    kind = wide((16, 4))
    plan, inputs = plan_routed(kind), make_blocks(kind, 1, 16384, 16384, device="cuda")
    launcher = RoutedLauncher(plan, config_of(plan), 2**24)
    launcher(**inputs)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out, lse = launcher(**inputs)
    results = out.numel() * out.element_size() + lse.numel() * 4
    assert torch.cuda.max_memory_allocated() - before <= results + 1.1 * 2**24
