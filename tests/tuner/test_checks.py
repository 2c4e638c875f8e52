"""A candidate's answers are compared before it is timed, and slight faults are seen."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch

from attngen import reference
from attngen.plan import plan_forward
from attngen.problem import Problem
from attngen.spec import parse_spec
from attngen.target import TARGETS
from attngen.tuner.checks import Checks
from attngen.tuner.kernel import KernelBench
from attngen.verify.baseline import same_dtype

SPEC = """
name: example
heads: {query: 2, kv: 1}
head_dim: 16
layers: 1
dtype: DTYPE
causal: true
sink: learned
kinds:
  local: {window: {total: 40}}
  other: {window: {total: 41}}
pattern: [local]
"""


def kinds(dtype="bfloat16"):
    spec = parse_spec(SPEC.replace("DTYPE", dtype))
    return spec.kind("local"), spec.kind("other")


def problem(kind):
    return Problem("forward", kind.digest(), 2, 130, 190)


def computed(kind):
    """A right kernel: the reference in float32, its result rounded to the kind's dtype."""

    def kernel(**inputs):
        out, lse = reference.attention(kind, **inputs, dtype=torch.float32)
        return out.to(getattr(torch, kind.out_dtype)), lse

    return kernel


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float8_e4m3"])
def test_a_right_kernel_passes(dtype):
    kind, _ = kinds(dtype)
    assert Checks(kind, problem(kind), device="cpu").find_fault(computed(kind)) is None


def test_strips_of_listed_blocks():
    """Their lists are cut with their queries; a kernel that sees other blocks is found out at the problem's sizes."""
    kind = parse_spec("{heads: {query: 4, kv: 2}, head_dim: 16, blocks: {size: 32}}").kinds[0]
    checks, right = Checks(kind, problem(kind), device="cpu"), computed(kind)
    assert checks.find_fault(right) is None

    def moved(**inputs):
        lists = inputs["block_index"]
        return right(**{**inputs, "block_index": lists.roll(1, 2) if lists.shape[2] == 5 else lists})

    assert checks.find_fault(moved).startswith("the problem's sizes: ")


def test_compressed_keys_have_positions_of_their_own():
    text = (
        "{name: b, heads: {query: 2, kv: 1}, head_dim: 16, causal: true, branches: {coarse: {compress: {size: 8, "
        "stride: 4}}, near: {}}}"
    )
    (coarse, _) = parse_spec(text).kinds[0].branches
    checks = Checks(coarse, problem(coarse), device="cpu")
    assert checks.find_fault(computed(coarse)) is None
    assert checks.find_fault(computed(replace(coarse, compress=replace(coarse.compress, size=12)))) is not None


def test_faults_are_seen():
    kind, other = kinds()
    checks = Checks(kind, problem(kind), device="cpu")
    right = computed(kind)

    def faulty(change):
        def kernel(**inputs):
            return change(*right(**inputs))

        return checks.find_fault(kernel)

    assert checks.find_fault(computed(other)).startswith("small sizes: relative L2 error")  # a window one too long
    assert "not finite" in faulty(lambda out, lse: (out.index_fill(0, torch.tensor(1), torch.nan), lse))
    assert faulty(lambda out, lse: (out, lse + 0.0205)).startswith("small sizes: lse is off by 2")
    assert "NaN" in faulty(lambda out, lse: (out, lse * torch.nan))
    large = problem(kind).seq_q

    def broken_at_the_problem(out, lse):
        return (out if out.shape[2] != large else out.roll(1, dims=2)), lse

    assert faulty(broken_at_the_problem).startswith("the problem's sizes: relative L2 error")


def test_faults_are_seen_in_fp8():
    """Weights rounded to e4m3 are right; a scale of another head, or weights of fewer bits, are not."""
    kind, other = kinds("float8_e4m3")
    checks = Checks(kind, problem(kind), device="cpu")

    def rounded(**inputs):
        return same_dtype(kind, inputs), reference.attention(kind, **inputs)[1]

    def rolled(**inputs):
        return rounded(**{**inputs, "q_scale": inputs["q_scale"].roll(1)})

    def coarse(**inputs):
        out, lse = rounded(**inputs)
        return out * (1 + 0.08 * torch.sign(torch.randn(out.shape, generator=torch.Generator().manual_seed(0)))), lse

    assert checks.find_fault(rounded) is None
    assert checks.find_fault(computed(other)).startswith("small sizes: relative L2 error")
    assert checks.find_fault(rolled).startswith("small sizes: ")
    assert checks.find_fault(coarse).startswith("small sizes: relative L2 error")
    assert "lse is off" in checks.find_fault(lambda **inputs: (rounded(**inputs)[0], rounded(**inputs)[1] + 0.02))


def test_a_kernel_travels_and_compiles_without_a_gpu():
    kind, _ = kinds()
    plan = plan_forward(kind)
    from attngen.plan.space import default_config

    bench = pickle.loads(pickle.dumps(KernelBench(plan, problem(kind), TARGETS["h100"])))
    compiled = bench.compile(default_config(plan, TARGETS["h100"], problem(kind)))
    assert compiled.registers > 16 and compiled.spills == 0 and compiled.shared > 0
    assert bench.healthy()
