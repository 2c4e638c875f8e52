"""Operations, bytes and floors against figures reckoned elsewhere, by hand."""

import pytest

from attngen.bench.cases import suite_cases
from attngen.plan import plan_forward
from attngen.plan.backward import plan_backward
from attngen.report.work import backward_work_of, floor_in_words, kernel_work_of, work_of
from attngen.spec import parse_spec
from attngen.target import get_target

H100 = get_target("h100")


def test_a_small_case_by_hand():
    kind = parse_spec("{heads: {query: 4, kv: 2}, head_dim: {qk: 32, v: 16}, causal: true}").kinds[0]
    work = work_of(plan_forward(kind), 3, 10, 10, H100)
    assert work.pairs == 55 and work.all_pairs == 100
    assert work.flops == 2 * 3 * 4 * 55 * (32 + 16)
    assert work.exps == 3 * 4 * 55
    # q and out have 4 heads, k and v 2; two bytes an element, four for each lse
    assert work.bytes == 3 * 10 * (4 * (32 + 16) * 2 + 2 * (32 + 16) * 2 + 4 * 4)
    assert work.floor_ms == max(work.math_ms, work.bytes_ms, work.exp_ms)
    assert work.share(2 * work.floor_ms) == 0.5
    assert work.tflops(1.0) == work.flops * 1e-9 and work.gbps(1.0) == work.bytes * 1e-6


@pytest.mark.parametrize(
    ("model", "bytes_ms", "math_ms"),
    [
        ("ModernBERT-base", 0.134, 0.032),
        ("GPT-OSS", 0.201, 0.086),
        ("Gemma-3", 0.268, 0.677),
        ("Mistral", 0.224, 2.58),
    ],
)
def test_floors_of_windows_that_were_reckoned_before(model, bytes_ms, math_ms):
    """By hand for an H100, at 3.0 TB/s and 800 TFLOP/s, lse apart."""
    case = next(case for case in suite_cases("window") if case.name.startswith(model))
    work = work_of(plan_forward(case.kind), case.batch, case.seq, case.seq, H100)
    assert work.bytes_ms == pytest.approx(bytes_ms, rel=0.02)
    assert work.math_ms == pytest.approx(math_ms, rel=0.03)
    assert work.bound == ("bytes" if bytes_ms > math_ms else "math")


def test_the_least_time_in_words():
    """D128 causal at 8192, by hand: 32 heads of 8192 x 8193 / 2 pairs of 512 FLOP, 8192 rows of 4 x 128 bf16 + lse."""
    case = next(case for case in suite_cases("dense") if case.name == "D128 causal S8192")
    work = work_of(plan_forward(case.kind), case.batch, case.seq, case.seq, H100)
    assert work.intensity == pytest.approx(5.499e11 / 2.695e8, rel=1e-3)
    assert floor_in_words(work, H100) == "at least 0.689 ms on h100, by math: 550 GFLOP, 269 MB, 2040 FLOP/B"


def test_small_head_dims_are_bound_by_exponentials():
    kind = parse_spec("{heads: 8, head_dim: 16}").kinds[0]
    assert work_of(plan_forward(kind), 1, 8192, 8192, H100).bound == "exponentials"


def test_the_work_of_a_backward_pass():
    """D128 causal at 8192, by hand: 2.5 times the forward's 550 GFLOP, of which 4 and 3 of 7 products are the kernels';
    eight tensors of 134 MB, 2 of float32 rows in the workspace."""
    case = next(case for case in suite_cases("backward") if case.name == "D128 causal S8192")
    sizes = (case.batch, case.seq, case.seq, H100)
    forward, whole = work_of(plan_forward(case.kind), *sizes), backward_work_of(plan_forward(case.kind), *sizes)
    tensor, row = 2 * 16 * 8192 * 128 * 2, 2 * 16 * 8192 * 4
    assert whole.flops == 2.5 * forward.flops and whole.exps == forward.exps and whole.bytes == 8 * tensor + row
    plans = plan_backward(case.kind)
    kv, q, rows = (kernel_work_of(plan, *sizes) for plan in (plans.kv, plans.q, plans.rows))
    assert kv.flops == pytest.approx(whole.flops * 4 / 7) and kv.flops + q.flops == pytest.approx(whole.flops)
    assert (kv.bytes, q.bytes, rows.bytes) == (6 * tensor + 2 * row, 5 * tensor + 2 * row, 2 * tensor + 3 * row)
    assert (kv.bound, rows.bound, rows.exps) == ("math", "bytes", 0)
