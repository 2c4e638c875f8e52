"""Operations, bytes and floors against figures reckoned elsewhere, by hand."""

import pytest

from attngen.bench.cases import suite_cases
from attngen.plan import plan_forward
from attngen.report.work import work_of
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


def test_small_head_dims_are_bound_by_exponentials():
    kind = parse_spec("{heads: 8, head_dim: 16}").kinds[0]
    assert work_of(plan_forward(kind), 1, 8192, 8192, H100).bound == "exponentials"
