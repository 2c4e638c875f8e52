"""The Hopper schedules on a GPU: every structure in several configs, a thousand launches, streams and graphs."""

import pytest
import torch

from attngen.config import Config
from attngen.inputs import make_inputs
from attngen.op import Launcher
from attngen.plan import plan_forward
from attngen.plan.boxes import is_gluon
from attngen.plan.space import enumerate_configs, feasible
from attngen.problem import Problem
from attngen.spec.expression import Expression
from attngen.spec.model import HeadDim, Heads, Kind, Window
from attngen.target import detect
from tests.op.test_gpu import check, pad_and_move

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0), reason="sm_90"),
]

HOPPER = Config(
    schedule="hopper",
    BLOCK_M=128,
    BLOCK_N=128,
    num_warps=4,
    num_stages=2,
    PACK_HEADS=1,
    HEADS_TOGETHER=8,
    PING_PONG=False,
)


def kind(dim, heads=(8, 8), v_dim=None, **fields):
    return Kind("kind", Heads(*heads), HeadDim(dim, v_dim or dim), **fields)


# Two sequences of at least 80 tiles of queries each make every program take several.
CASES = {
    "full, 192 rows": (kind(64, (16, 16)), 2000, 2000, {"BLOCK_M": 192, "PING_PONG": True}),
    "128 wide, three warpgroups": (kind(128, causal=True), 777, 1999, {"BLOCK_M": 192, "BLOCK_N": 64}),
    "full, three warpgroups": (kind(64), 1024, 1024, {"BLOCK_M": 192}),
    "causal, 192 rows, many tiles": (kind(64, (40, 40), causal=True), 1900, 1900, {"BLOCK_M": 192}),
    "causal, ragged": (kind(64, causal=True), 777, 1999, {}),
    "128, full": (kind(128, (16, 16)), 1000, 1000, {}),
    "128, causal, many tiles": (kind(128, (40, 40), causal=True), 2000, 2000, {"PING_PONG": True}),
    "128, one tile each": (kind(128, (40, 40), causal=True), 130, 130, {}),
    "128, more queries than keys": (kind(128, causal=True), 700, 400, {}),
    "128, one query": (kind(128, causal=True), 1, 1500, {}),
    "128, one query, one key": (kind(128, causal=True), 1, 1, {}),
    "float16": (kind(128, causal=True, dtype="float16"), 1500, 1500, {"HEADS_TOGETHER": 3}),
    "window, heads packed": (kind(128, (8, 2), causal=True, window=Window(299, 0)), 1999, 1999, {"PACK_HEADS": 4}),
    "window, first keys, sink": (
        kind(64, (8, 2), causal=True, window=Window(255, 0), always_first=4, sink=True),
        1200,
        1200,
        {"BLOCK_M": 192},
    ),
    "two chunks": (kind(96, causal=True), 900, 900, {}),
    "columns of padding": (kind(80, causal=True, chunk=500, dtype="float16"), 1200, 1200, {}),
    "values narrower": (kind(192, v_dim=128, causal=True), 1024, 1024, {"PING_PONG": True}),
    "wide": (kind(256, (8, 4), causal=True), 1500, 1500, {"BLOCK_N": 64}),
    "wide, window, softcap": (
        kind(256, (8, 2), causal=True, window=Window(399, 0), softcap=50.0),
        1500,
        1500,
        {"BLOCK_N": 64},
    ),
    "prefix, global tokens": (kind(128, causal=True, prefix="argument", global_tokens=3), 900, 900, {}),
    "alibi": (kind(128, (8, 2), causal=True, alibi=True), 1024, 1024, {"PACK_HEADS": 4}),
    "mask and score": (
        kind(
            128,
            mask=Expression.parse("j <= i and kept[j] < 1", "mask"),
            score=Expression.parse("s * gain + bias[h, i - j]", "score"),
        ),
        1000,
        1000,
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_numerics(name):
    """As it is, and with padding that holds NaN and queries that stand elsewhere; twice the same bits."""
    kind_, seq_q, seq_k, changes = CASES[name]
    launcher = Launcher(plan_forward(kind_), HOPPER.replace(**changes))
    inputs = make_inputs(kind_, 2, seq_q, seq_k, device="cuda")
    out, lse = launcher(**inputs)
    check(kind_, out, lse, inputs)
    for made, expected in zip(launcher(**inputs), (out, lse), strict=True):
        assert torch.equal(made, expected)
    if seq_k > 300:
        pad_and_move(inputs)
        check(kind_, *launcher(**inputs), inputs)


SMALL_WINDOWS = {
    "both sides": kind(64, (4, 4), window=Window(64, 64)),
    "a group and a sink": kind(64, (16, 2), causal=True, window=Window(127, 0), sink=True),
    "wide": kind(256, (4, 2), causal=True, window=Window(63, 0)),
}


@pytest.mark.parametrize("name", SMALL_WINDOWS)
def test_configs_of_a_small_window(name):
    kind_ = SMALL_WINDOWS[name]
    plan = plan_forward(kind_)
    inputs = make_inputs(kind_, 2, 999, 1111, device="cuda")
    configs = enumerate_configs(plan, detect(), Problem("forward", kind_.digest(), 2, 999, 1111))
    tried = [config for config in configs if is_gluon(config)]
    assert tried
    for config in tried[:: len(tried) // 8 or 1]:
        check(kind_, *Launcher(plan, config)(**inputs), inputs)


REPEATED = {
    "causal": (kind(128, (16, 16), causal=True), HOPPER),
    "in turns": (kind(64, (16, 16)), HOPPER.replace(BLOCK_M=192, PING_PONG=True)),
    "wide": (kind(256, (8, 4), causal=True), HOPPER.replace(BLOCK_N=64)),
    "small window": (SMALL_WINDOWS["a group and a sink"], None),
}


@pytest.mark.parametrize("name", REPEATED)
def test_a_thousand_launches_are_bitwise_equal(name):
    kind_, config = REPEATED[name]
    plan = plan_forward(kind_)
    if config is None:
        problem = Problem("forward", kind_.digest(), 2, 1500, 1500)
        configs = enumerate_configs(plan, detect(), problem)
        config = next(c for c in configs if c["schedule"] == "hopper_window")
    launcher = Launcher(plan, config)
    inputs = make_inputs(kind_, 2, 1500, 1500, device="cuda")
    out, lse = launcher(**inputs)
    different = torch.zeros((), dtype=torch.int64, device="cuda")
    for _ in range(1000):
        made, made_lse = launcher(**inputs)
        different += (made != out).sum() + (made_lse != lse).sum()
    assert int(different) == 0


def test_launches_of_two_streams_overlap():
    """Persistent programs draw tiles from a counter: each stream has one of its own."""
    kind_ = kind(128, (16, 16), causal=True)
    launcher = Launcher(plan_forward(kind_), HOPPER)
    inputs = [make_inputs(kind_, 2, 1500, 1500, device="cuda", seed=seed) for seed in range(2)]
    expected = [launcher(**one) for one in inputs]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in inputs]
    for _ in range(100):
        made = []
        for stream, one in zip(streams, inputs, strict=True):
            with torch.cuda.stream(stream):
                made.append(launcher(**one))
        torch.cuda.synchronize()
        for (out, lse), (wanted, wanted_lse) in zip(made, expected, strict=True):
            assert torch.equal(out, wanted) and torch.equal(lse, wanted_lse)


def test_a_graph_replays_beside_other_launches():
    """A captured launch brings a counter of its own: replays may overlap with launches of the stream it was made on."""
    kind_ = kind(128, (16, 16), causal=True)
    launcher = Launcher(plan_forward(kind_), HOPPER)
    inputs = make_inputs(kind_, 2, 1500, 1500, device="cuda")
    expected = launcher(**inputs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = launcher(**inputs)
    side = torch.cuda.Stream()
    for _ in range(50):
        with torch.cuda.stream(side):
            graph.replay()
        beside = launcher(**inputs)
        torch.cuda.synchronize()
        for made in (captured, beside):
            assert all(torch.equal(x, y) for x, y in zip(made, expected, strict=True))


def test_new_lengths_compile_nothing():
    kind_ = kind(128, (8, 2), causal=True, window=Window(299, 0))
    launcher = Launcher(plan_forward(kind_), HOPPER)
    for batch, (seq_q, seq_k) in enumerate([(1, 1), (1, 100), (17, 33), (128, 128), (1000, 999), (2047, 2049)], 1):
        inputs = make_inputs(kind_, batch, seq_q, seq_k, device="cuda")
        check(kind_, *launcher(**inputs), inputs)
    (compiled, *_) = launcher.function.device_caches[torch.cuda.current_device()]
    assert len(compiled) == 1


def test_the_configs_of_these_tests_are_those_of_the_space():
    for name, (kind_, _, _, changes) in CASES.items():
        plan, config = plan_forward(kind_), HOPPER.replace(**changes)
        assert feasible(plan, config, detect()) is None, name
