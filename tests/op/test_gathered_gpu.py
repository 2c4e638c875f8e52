"""Attention over listed keys on a GPU, at real shapes: FlashMLA's own data and tolerances, and bounds of rounding."""

import pytest
import torch

from attngen.errors import NotGeneratedError
from attngen.op.gathered import GatheredLauncher
from attngen.plan import plan_gathered
from attngen.plan.boxes import is_gluon
from attngen.plan.space import default_config, feasible
from attngen.spec.model import HeadDim, Heads, Kind, Latent, Window
from attngen.target import detect
from tests.op.gathered_cases import GatheredCase, gathered_bounds, gathered_reference, make_gathered_inputs

pytestmark = pytest.mark.gpu
# FlashMLA's tests draw normal numbers of a tenth; an element is wrong where both its errors are too large.
FLASHMLA_SIZE, FLASHMLA_COSINE = 0.1, 7e-6
FLASHMLA_OUT, FLASHMLA_ROWS = (8e-4, 3.01 / 128), (1e-6, 2.01 / 65536)  # absolute, relative
SCHEDULES = ("portable", "hopper")


def latent(heads=128, rank=512, rope=64, **fields):
    values = {"scale": 192**-0.5, "latent": Latent(rank, rope), **fields}
    return Kind("kind", Heads(heads, 1), HeadDim(rank + rope, rank), **values)


def plain(dims, heads, **fields):
    return Kind("kind", Heads(*heads), HeadDim(*dims), scale=dims[0] ** -0.5, **fields)


def config_of(plan, schedule, **changes):
    """The default of a schedule, changed; skips what this GPU has not."""
    target = detect()
    try:
        config = default_config(plan, target, able=lambda config: is_gluon(config) == (schedule == "hopper"))
    except NotGeneratedError as why:
        pytest.skip(str(why))
    config = config.replace(**changes)
    assert feasible(plan, config, target) is None
    return config


def check(case, schedule, **changes):
    plan = plan_gathered(case.kind, maxima=case.maxima)
    inputs = make_gathered_inputs(case, "cuda")
    launcher = GatheredLauncher(plan, config_of(plan, schedule, **changes))
    exact = gathered_reference(case.kind, **inputs)
    first = launcher(**inputs)
    if case.size == FLASHMLA_SIZE:
        compare_like_flashmla(first, exact)
    else:
        compare(first, exact, *gathered_bounds(case.kind, inputs, exact))
    again = launcher(**inputs)  # by the kept launch
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def compare(results, exact, out_bound, row_bound):
    """Errors are those that rounding explains."""
    (out, *rows), (exact_out, *exact_rows) = results, exact
    unseen = same_rows(out, rows, exact_rows[0])
    assert ((out.double() - exact_out).abs() <= out_bound).all()
    for row, exact_row in zip(rows, exact_rows, strict=False):
        assert (row.double() - exact_row).masked_fill(unseen, 0.0).abs().max() <= row_bound


def compare_like_flashmla(results, exact):
    (out, *rows), (exact_out, *exact_rows) = results, exact
    unseen = same_rows(out, rows, exact_rows[0])
    assert not wrong(out.double(), exact_out, *FLASHMLA_OUT).any()
    squares = (out.double() ** 2).sum() + (exact_out**2).sum()
    assert 1 - 2 * (out.double() * exact_out).sum() / squares.clamp_min(1e-12) <= FLASHMLA_COSINE or not squares
    for row, exact_row in zip(rows, exact_rows, strict=False):
        assert not wrong(
            *(values.double().masked_fill(unseen, 0.0) for values in (row, exact_row)), *FLASHMLA_ROWS
        ).any()


def wrong(result, exact, absolute, relative):
    errors = (result - exact).abs()
    return (errors >= absolute) & (errors / (exact.abs() + 1e-6) >= relative)


def same_rows(out, rows, exact_lse):
    """Which rows saw no key; they give 0, and minus infinity."""
    unseen = exact_lse == -torch.inf
    assert not out[unseen].any()
    assert all(torch.equal(row == -torch.inf, unseen) for row in rows)
    return unseen


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("top_k", [64, 500, 2048])
@pytest.mark.parametrize(("seq_q", "seq_k"), [(1, 1840), (62, 592), (213, 95), (213, 1840)])
def test_shapes(schedule, seq_q, seq_k, top_k):
    check(GatheredCase(latent(), None, seq_q, seq_k, top_k, batch=1, size=FLASHMLA_SIZE, maxima=True), schedule)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    "kind", [latent(), plain((128, 128), (32, 8), causal=True), latent(16, sink=True, softcap=20.0)]
)
def test_maxima(schedule, kind):
    check(GatheredCase(kind, None, 150, 700, 300, maxima=True, bad=0.7), schedule)


KINDS = {
    "64 heads": latent(64),
    "one head": latent(1),
    "16 heads": latent(16),
    "100 heads": latent(100),
    "float16": latent(dtype="float16"),
    "causal": latent(causal=True),
    "sink, softcap, window": latent(sink=True, softcap=20.0, causal=True, window=Window(400, 0)),
    "chunk, dilation": latent(chunk=300, dilation=2),
    "rank 256": latent(32, rank=256),
    "rank 384, rope 32": latent(48, rank=384, rope=32),
    "groups": plain((128, 128), (32, 8), causal=True),
    "192 and 128 wide": plain((192, 128), (16, 16), sink=True),
    "256 wide": plain((256, 256), (16, 2)),
    "float32": plain((64, 64), (8, 2), dtype="float32"),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", KINDS)
def test_kinds(schedule, name):
    check(GatheredCase(KINDS[name], None, 70, 700, 300), schedule)


CALLS = {
    "no valid entry": {"bad": 1.1},
    "every entry valid": {"bad": 0.0, "top_k": 512},
    "offsets": {"offsets": (3, 600)},
    "key range": {"key_range": ((0, 300), (250, 10**6))},
    "lengths": {"lengths": tuple((0, 1, 63, 64, 65, 128, 129, 300)[n % 8] for n in range(70))},
    "strided": {"strided": True},
    "one sequence": {"batch": 1, "seq_q": 400},
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", CALLS)
def test_calls(schedule, name):
    changes = {"seq_q": 70, "seq_k": 700, "top_k": 300} | CALLS[name]
    check(GatheredCase(latent(causal=True), None, **changes), schedule)


@pytest.mark.parametrize(
    "changes", [{"TICKETS": False}, {"TICKETS": False, "TURNS": 1}, {"PREFETCH": True, "PROXY_FENCE": True}], ids=str
)
def test_configs_of_hopper(changes):
    check(GatheredCase(latent(), None, 500, 3000, 700, batch=1), "hopper", **changes)


def test_a_thousand_launches_are_one():
    case = GatheredCase(latent(causal=True), None, 700, 2000, 300, lengths=tuple(n % 301 for n in range(700)), batch=1)
    plan, inputs = plan_gathered(case.kind), make_gathered_inputs(case, "cuda")
    launcher = GatheredLauncher(plan, config_of(plan, "hopper"))
    out, lse = launcher(**inputs)  # whoever is done first takes the next turn: no run is like the one before
    for _ in range(1000):
        again, again_lse = launcher(**inputs)
        assert torch.equal(out, again) and torch.equal(lse, again_lse)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_more_elements_than_32_bits_count(schedule):
    """70000 queries of 128 heads: the first and the last of them."""
    kind, seq_q, seq_k, top_k, size = latent(), 70000, 4096, 128, FLASHMLA_SIZE
    plan = plan_gathered(kind)
    generator = torch.Generator(device="cuda").manual_seed(0)
    q = (
        torch.randn((1, seq_q, 128, 576), generator=generator, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
        * size
    )
    k = torch.randn((1, 1, seq_k, 576), generator=generator, device="cuda", dtype=torch.bfloat16) * size
    indices = torch.randint(seq_k, (1, seq_q, top_k), generator=generator, device="cuda", dtype=torch.int32)
    out, lse = GatheredLauncher(plan, config_of(plan, schedule))(q, k, None, indices)
    for part in (slice(0, 40), slice(seq_q - 40, seq_q)):
        exact = gathered_reference(kind, q[:, :, part], k, None, indices[:, part])
        compare_like_flashmla((out[:, :, part], lse[:, :, part]), exact)


def test_streams_and_graphs():
    """Launches that run beside each other draw turns of their own."""
    case = GatheredCase(latent(causal=True), None, 300, 2000, 600, batch=1)
    plan, inputs = plan_gathered(case.kind), make_gathered_inputs(case, "cuda")
    launcher = GatheredLauncher(plan, config_of(plan, "hopper"))
    out, _ = launcher(**inputs)
    streams = [torch.cuda.Stream() for _ in range(3)]
    torch.cuda.synchronize()
    results = []
    for n in range(60):
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
