"""The yardstick: attention in the dtype itself has the error of that dtype, and means the same as the reference."""

import pytest
import torch

from attngen import reference
from attngen.spec import parse_spec
from attngen.verify.baseline import same_dtype
from attngen.verify.cases import Case
from attngen.verify.judge import l2_error

FIELDS = [
    "causal: true",
    "window: {half: 9}",
    "causal: true, sink: learned",
    "softcap: 5",
    "alibi: true",
    "prefix: argument",
]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float8_e4m3"])
@pytest.mark.parametrize("fields", FIELDS)
def test_it_computes_the_same_with_the_dtypes_error(fields, dtype):
    kind = parse_spec("{heads: {query: 4, kv: 2}, head_dim: 32, dtype: " + dtype + ", " + fields + "}").kinds[0]
    inputs = Case(2, 61, 40, padded=True).inputs(kind, "cpu")
    out, lse = reference.attention(kind, **inputs)
    found = same_dtype(kind, inputs)
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float8_e4m3": 2.0**-6}[dtype]
    assert found.dtype == getattr(torch, kind.out_dtype)
    assert unit / 8 < l2_error(found, out) < 8 * unit
    assert bool((found[torch.isneginf(lse)] == 0).all())


def test_plain_scores_keep_intermediate_results_in_the_dtype():
    """scaled_dot_product_attention would compute in float32 if it were not told to round: too strict a yardstick,
    which no kernel that multiplies rounded probabilities on tensor cores could meet."""
    kind = parse_spec("{heads: 2, head_dim: 64}").kinds[0]
    inputs = Case(1, 256, 256).inputs(kind, "cpu")
    out, _ = reference.attention(kind, **inputs)
    rounded_once = l2_error(out.bfloat16(), out)
    assert l2_error(same_dtype(kind, inputs), out) > 1.5 * rounded_once
    assert not torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
