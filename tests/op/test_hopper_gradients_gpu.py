"""Hopper's backward kernels on a GPU: every structure in several configs, within what rounding explains, the same bits
from run to run."""

from unittest import mock

import pytest
import torch

from attngen import reference
from attngen.op.checks import keywords_of
from attngen.op.gradient_launch import Call, FusedLauncher
from attngen.op.kernels import launcher_of
from attngen.plan.backward import plan_backward
from attngen.plan.boxes import is_gluon
from attngen.plan.space import default_config, feasible
from attngen.spec.model import Window
from attngen.target import get_target
from tests.op.cases import Case, config_of, kind_of
from tests.op.gradient_cases import run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0), reason="sm_90"),
]

H100 = get_target("h100")
FORWARD = config_of(BLOCK_M=64, BLOCK_N=64)


def kind(dim, heads=(4, 2), v_dim=None, **fields):
    return kind_of(heads, (dim, v_dim or dim), **fields)


BOTH_WAYS = kind(64, window=Window(64, 64))
IN_ORDER = (
    {"schedule": "hopper", "BLOCK_N": 192, "num_stages": 4, "AHEAD": False},
    {"schedule": "hopper", "BLOCK_M": 192, "num_stages": 4, "AHEAD": False},
)
EACH = {"schedule": "hopper_wide", "BLOCK_M": 64, "BLOCK_N": 64, "num_stages": 2}
CASES = {  # kind, sizes, and changes of the default configs of backward_kv and backward_q
    "64, causal": (kind(64, causal=True), (512, 512), {}, {}),
    "64, two warpgroups": (kind(64), (333, 333), {"BLOCK_N": 128, "BLOCK_M": 128}, {"BLOCK_M": 128, "BLOCK_N": 128}),
    "64, in order": (kind(64, causal=True), (300, 1000), {"AHEAD": False}, {"AHEAD": False}),
    "128, causal": (kind(128, causal=True), (700, 400), {}, {}),
    "128, full": (kind(128, (4, 4)), (250, 777), {}, {"AHEAD": True, "BLOCK_N": 64}),
    "128, in order": (kind(128, causal=True), (777, 777), {"AHEAD": False}, {"BLOCK_N": 64}),
    "values narrower": (kind(128, v_dim=64, causal=True), (500, 450), {}, {}),
    "values wider": (kind(64, v_dim=128, causal=True), (500, 450), {}, {}),
    "32 wide": (kind(32, (6, 2), causal=True), (300, 300), {}, {}),
    "a padded head": (kind(24, causal=True), (200, 300), {}, {}),
    "bfloat16": (kind(128, causal=True, dtype="bfloat16"), (600, 600), {"HEADS_TOGETHER": 16}, {"HEADS_TOGETHER": 1}),
    "window": (BOTH_WAYS, (1000, 1000), {}, {}),
    "window, more tiles than stages": (BOTH_WAYS, (701, 200), {"num_stages": 2}, {"num_stages": 2}),
    "window, few queries": (BOTH_WAYS, (200, 701), {"num_stages": 4}, {"num_stages": 4}),
    "window, by roles": (BOTH_WAYS, (1000, 1000), *IN_ORDER),
    "window, by roles, ahead": (BOTH_WAYS, (701, 200), *({**changes, "AHEAD": True} for changes in IN_ORDER)),
    "window, softcap": (
        kind(64, (4, 1), causal=True, window=Window(99, 0), softcap=9.0),
        (400, 400),
        {"schedule": "hopper_window", "BLOCK_N": 64},
        {"schedule": "hopper_window", "BLOCK_M": 64, "num_stages": 2},
    ),
    "window behind": (kind(128, causal=True, window=Window(299, 0)), (900, 1100), {}, {}),
    "one query": (kind(64, causal=True), (1, 65), {}, {}),
    "one query, one key": (kind(128), (1, 1), {}, {}),
    "first keys, softcap, ALiBi, sink": (
        kind(64, causal=True, window=Window(99, 0), always_first=4, softcap=20.0, alibi=True, sink=True),
        (600, 600),
        {},
        {},
    ),
    "first keys, in order": (
        kind(64, causal=True, window=Window(99, 0), always_first=4),
        (600, 600),
        {"AHEAD": False},
        {"AHEAD": False},
    ),
    "global tokens, both directions": (kind(64, window=Window(64, 64), global_tokens=5), (701, 701), {}, {}),
    "documents by mask": (kind(128, causal=True, mask="doc[b, i] == doc[b, j]"), (64, 64), {}, {}),
    "dilation, chunk": (kind(64, causal=True, dilation=3, chunk=200), (500, 500), {}, {}),
    "prefix": (kind(128, causal=True, prefix="argument"), (400, 400), {}, {}),
    "ALiBi": (kind(128, causal=True, alibi=True), (400, 400), {}, {}),
    "softcap": (kind(128, causal=True, softcap=10.0), (400, 400), {}, {}),
    "softcap, a warpgroup for each": (kind(128, softcap=10.0), (300, 300), {**EACH, "BLOCK_M": 128}, {}),
    "score": (kind(128, score="s * gain[h] + tanh(s) * u[h, j]", softcap=20.0), (300, 400), EACH, {}),
    "64, score": (kind(64, score="s + bias[h, i - j + 300]"), (300, 400), {}, {}),
    "256": (kind(256, causal=True), (500, 450), {}, {}),
    "256, window, softcap": (kind(256, causal=True, window=Window(199, 0), softcap=10.0), (700, 700), {}, {}),
    "256, full": (kind(256, (2, 2)), (130, 333), {}, {"AHEAD": True}),
}


def check(case: Case, of_keys: dict, of_queries: dict, **given) -> None:
    plans = plan_backward(case.kind)
    configs = {}
    for plan, changes in ((plans.kv, of_keys), (plans.q, of_queries)):
        config = configs[plan.kernel] = default_config(plan, H100).replace(**changes)
        assert is_gluon(config)
        assert feasible(plan, config, H100) is None, (config, feasible(plan, config, H100))
    wanted = ("q", "k", "v")  # portable schedules make the gradients of learned arguments
    found = run(case, wanted=wanted, twice=True, device="cuda", configs=configs, **given)
    assert all(share <= 1.0 for share in found.of.values()), found.of
    assert found.repeated


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    kind, sizes, of_keys, of_queries = CASES[name]
    check(Case(kind, FORWARD, *sizes), of_keys, of_queries, of_lse=True)


WIDE_WINDOW = kind(128, causal=True, window=Window(299, 0))
FUSED = {  # kind, sizes, and changes of the default config of backward_fused
    "behind": (WIDE_WINDOW, (1300, 1300), {}),
    "two stages": (WIDE_WINDOW, (1024, 1024), {"num_stages": 2, "HEADS_TOGETHER": 1}),
    "more keys, no multiple of a tile": (WIDE_WINDOW, (777, 1303), {}),
    "more queries than keys": (WIDE_WINDOW, (1303, 777), {}),
    "both ways": (kind(128, (4, 4), window=Window(200, 150)), (1000, 1000), {}),
    "both ways, fewer keys": (kind(128, (8, 2), window=Window(200, 150)), (1400, 800), {}),
    "before": (kind(128, window=Window(0, 300)), (900, 1000), {}),
    "blocks together": (WIDE_WINDOW, (1300, 1400), {"BLOCKS_TOGETHER": 3, "HEADS_TOGETHER": 3}),
    "both ways, blocks together": (
        kind(128, (4, 4), window=Window(200, 150)),
        (1000, 1000),
        {"BLOCKS_TOGETHER": 2, "HEADS_TOGETHER": 16},
    ),
    "causal": (kind(128, (4, 4), causal=True), (1300, 1300), {}),
    "causal, several heads": (kind(128, (8, 2), causal=True), (900, 1303), {}),
    "causal, several heads, more queries than keys": (kind(128, (8, 2), causal=True), (1303, 777), {}),
    "every key": (kind(128, (4, 4)), (1300, 1000), {"HEADS_TOGETHER": 2}),
    "every key, several heads": (kind(128, (8, 2)), (777, 1303), {"num_stages": 2}),
    "shorter than the window": (WIDE_WINDOW, (200, 250), {}),
    "one query": (WIDE_WINDOW, (1, 500), {}),
    "one key": (WIDE_WINDOW, (500, 1), {}),
    "bfloat16, a sink": (
        kind(128, (8, 2), causal=True, window=Window(511, 0), sink=True, dtype="bfloat16"),
        (2100, 2100),
        {},
    ),
}


def check_fused(case: Case, changes: dict, **given) -> None:
    plan = plan_backward(case.kind).fused
    assert plan is not None
    config = default_config(plan, H100).replace(**changes)
    assert feasible(plan, config, H100) is None, feasible(plan, config, H100)
    given |= {"wanted": ("q", "k", "v"), "twice": True, "configs": {"backward_fused": config}}
    launch = FusedLauncher.__call__
    with mock.patch.object(FusedLauncher, "__call__", autospec=True, side_effect=launch) as launched:
        found = run(case, device="cuda", **given)
    assert launched.call_count == 2
    assert all(share <= 1.0 for share in found.of.values()), found.of
    assert found.repeated


@pytest.mark.parametrize("name", FUSED)
def test_all_gradients_by_one_kernel(name):
    kind, sizes, changes = FUSED[name]
    check_fused(Case(kind, FORWARD, *sizes, batch=2), changes, of_lse=True)


@pytest.mark.parametrize("name", ["behind", "both ways", "causal, several heads", "every key"])
def test_one_kernel_with_padding_offsets_and_views(name):
    """Keys that are not valid, and what surrounds the views, are NaN; some queries see no key."""
    kind, _, changes = FUSED[name]
    of_keys = {"key_range": ((0, 733), (41, 797), (200, 200)), "offsets": (0, 150, -77), "batch": 3}
    check_fused(Case(kind, FORWARD, 700, 800, strided=True, **of_keys), changes)


@pytest.mark.parametrize("seq_k", [1000, 1024])
def test_one_kernel_where_all_scores_are_far_below_zero(seq_k):
    """2 ** -log_sum is infinite: what stands where there is no key must not weigh as much."""
    plans = plan_backward(WIDE_WINDOW)
    generator = torch.Generator("cuda").manual_seed(5)

    def normal(heads, length):
        return torch.randn(2, heads, length, 128, generator=generator, device="cuda")

    q, k = (4 + 0.1 * normal(4, 1000)).half(), (-4 + normal(2, seq_k)).half()
    v, dout = normal(2, seq_k).half(), normal(4, 1000).half()
    given = {"key_range": torch.tensor([[0, seq_k - 3], [70, seq_k]], dtype=torch.int32, device="cuda")}
    out, lse = reference.attention(WIDE_WINDOW, q, k, v, **given)
    assert float(lse[lse > -torch.inf].max()) < -100
    call = Call(q, k, v, dout, {**dict.fromkeys(keywords_of(plans.q)), **given})
    rows, fused = (launcher_of(plan, default_config(plan, H100)) for plan in (plans.rows, plans.fused))
    dk, dv, dq, _ = fused(call, rows(out.half(), dout, lse.float()))
    exact = reference.gradients(WIDE_WINDOW, dout, None, q=q, k=k, v=v, **given)
    for name, found in {"q": dq, "k": dk, "v": dv}.items():
        error = (found.double() - exact[name]).norm() / exact[name].norm()
        assert float(error) < 0.01, name


CROWDED = {  # kind, and changes of the default config
    "window": (kind(128, (16, 4), causal=True, window=Window(1023, 0), dtype="bfloat16"), {"BLOCKS_TOGETHER": 4}),
    "window open behind": (kind(128, (8, 8), window=Window(None, 700), dtype="bfloat16"), {}),
    "causal": (kind(128, (16, 4), causal=True, dtype="bfloat16"), {}),
    "every key": (kind(128, (8, 8), dtype="bfloat16"), {}),
}


@pytest.mark.parametrize("name", CROWDED)
def test_blocks_of_keys_add_in_turn_on_a_busy_gpu(name):
    """More programs than fit at once, and other work beside them: nobody waits for one that is not there yet."""
    side = torch.cuda.Stream()
    busy = torch.randn(4096, 4096, device="cuda").bfloat16()
    with torch.cuda.stream(side):
        for _ in range(50):
            busy @ busy
    kind, changes = CROWDED[name]
    check_fused(Case(kind, FORWARD, 2048, 2048, batch=4), changes)


def test_one_kernel_in_a_graph():
    """Blocks count from 0 again in every replay."""
    plans = plan_backward(WIDE_WINDOW)
    q, dout, out = (torch.randn(1, 4, 900, 128, device="cuda").half() for _ in range(3))
    k, v = (torch.randn(1, 2, 900, 128, device="cuda").half() for _ in range(2))
    lse = torch.full((1, 4, 900), 6.0, device="cuda")
    call = Call(q, k, v, dout, dict.fromkeys(keywords_of(plans.q)))
    rows, fused = (launcher_of(plan, default_config(plan, H100)) for plan in (plans.rows, plans.fused))
    expected = fused(call, rows(out, dout, lse))[:3]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = fused(call, rows(out, dout, lse))[:3]
    for _ in range(3):
        for x in made:
            x.fill_(float("nan"))
        graph.replay()
        assert all(torch.equal(x, wanted) for x, wanted in zip(made, expected, strict=True))


PADDED = {"key_range": ((0, 333), (41, 397), (200, 200)), "offsets": (0, 150, -20), "batch": 3}


@pytest.mark.parametrize(
    "name", ["64, causal", "128, full", "window", "window, by roles", "first keys, in order", "softcap", "256"]
)
def test_padding_offsets_and_views(name):
    """Keys that are not valid, and what surrounds the views, are NaN."""
    kind, _, of_keys, of_queries = CASES[name]
    check(Case(kind, FORWARD, 300, 400, strided=True, **PADDED), of_keys, of_queries)


def test_what_cannot_be_described_runs_all_the_same():
    """Views whose rows are no multiple of 16 bytes go to the portable schedule."""
    from attngen.op.gradients import Gradients
    from attngen.op.kernels import Launchers
    from attngen.target import detect

    kind = kind_of((2, 1), (64, 64), causal=True)
    assert detect() is not None
    q, k, v, dout = (torch.randn(1, heads, 70, 65, device="cuda").half()[..., :64] for heads in (2, 1, 1, 2))
    seen: list[bool] = []
    chosen = Launchers.at

    def spy(self, *sizes, gluon=True):
        seen.append(gluon)
        return chosen(self, *sizes, gluon=gluon)

    Launchers.at = spy  # type: ignore[method-assign]
    try:
        lse = torch.zeros(1, 2, 70, device="cuda")
        Gradients(kind, "sqlite://").cuda(dout, None, q, k, v, torch.zeros_like(q), lse, None, None, [True] * 3)
    finally:
        Launchers.at = chosen  # type: ignore[method-assign]
    assert sorted(seen) == [False, False, True]  # rows are prepared by one schedule


@pytest.mark.parametrize(("heads", "together"), [((10, 5), 4), ((6, 2), 1)], ids=str)
def test_heads_side_by_side(heads, together):
    case = Case(kind(128, heads, causal=True), FORWARD, 260, 260, batch=3)
    check(case, {"HEADS_TOGETHER": together}, {"HEADS_TOGETHER": together})
