"""FP8 on a GPU that has it: every structure of the kernels, long sums, and scales that change from call to call."""

import pytest
import torch

import attngen
from attngen import reference
from attngen.inputs import make_inputs
from attngen.op import Launcher
from attngen.plan import plan_forward
from attngen.plan.space import default_config
from attngen.plan.space.common import why_no_kernel
from attngen.problem import Problem
from attngen.spec.model import Kind, Spec, Window
from attngen.target import detect
from attngen.tuner.checks import FLOAT8_LSE_TOLERANCE, TOLERANCE
from attngen.verify.judge import l2_error
from attngen.verify.kinds import verify_kinds
from tests.op.cases import kind_of, strided

pytestmark = pytest.mark.gpu

D128 = {"heads": (8, 2), "head_dim": (128, 128), "dtype": "float8_e4m3"}
KINDS = {
    "causal": kind_of(causal=True, **D128),
    "small window": kind_of(window=Window(64, 64), **D128),
    "softcap, sink": kind_of(causal=True, softcap=30.0, sink=True, **D128),
    "odd widths": kind_of(**{**D128, "head_dim": (80, 48)}),
    "wide": kind_of(causal=True, **{**D128, "head_dim": (256, 256)}),
}


@pytest.fixture(autouse=True)
def capable():
    target = detect()
    if target is None or why_no_kernel(plan_forward(KINDS["causal"]), target):
        pytest.skip("this GPU has no products of e4m3")


def launcher(kind: Kind, seq: int) -> Launcher:
    plan = plan_forward(kind)
    return Launcher(plan, default_config(plan, detect(), Problem("forward", kind.digest(), 1, seq, seq)))


@pytest.mark.parametrize("name", KINDS)
def test_every_structure(name, tmp_path):
    found = list(verify_kinds([KINDS[name]], detect(), db=str(tmp_path / "tunings.sqlite")))
    assert found and not [finding for finding in found if finding.status == "failed"]


@pytest.mark.parametrize("seq_q", [1, 300])
def test_long_rows(seq_q):
    kind = KINDS["causal"]
    inputs = make_inputs(kind, 1, seq_q, 40000, device="cuda")
    out, lse = launcher(kind, 40000)(**inputs)
    exact_out, exact_lse = reference.attention(kind, **inputs)
    assert l2_error(out, exact_out) <= TOLERANCE["float8_e4m3"]
    assert float((lse - exact_lse).abs().max()) <= FLOAT8_LSE_TOLERANCE


def test_sums_over_many_keys_keep_their_bits():
    """Values that are all 1 add up to the weights: what Hopper's 14-bit sums lose of 40000 keys would show."""
    kind = KINDS["causal"]
    inputs = make_inputs(kind, 1, 200, 40000, device="cuda")
    inputs["v"].fill_(1.0)
    inputs["v_scale"] = torch.ones(1, device="cuda")
    out, _ = launcher(kind, 40000)(**inputs)
    assert float((out.float() - 1).abs().max()) <= 2.0**-6


def test_scales_of_another_form_or_value(tmp_path):
    """One op, called with per-tensor and per-head scales in turn; no call sees another's."""
    kind = KINDS["causal"]
    op = attngen.load(Spec("gpu", 1, (kind,), (kind.name,)), db=str(tmp_path / "tunings.sqlite")).kinds[kind.name]
    inputs = make_inputs(kind, 2, 500, 500, device="cuda")
    for factor in (1.0, 0.5):
        for name in ("q_scale", "k_scale", "v_scale"):
            for scale in (inputs[name][:1] * factor, inputs[name][:1].reshape(()) * factor, inputs[name] * factor):
                given = {**inputs, name: scale, "q": strided(inputs["q"])}
                out, lse = op(**given, return_lse=True)
                exact_out, exact_lse = reference.attention(kind, **given)
                assert out.dtype == torch.bfloat16
                assert l2_error(out, exact_out) <= TOLERANCE["float8_e4m3"]
                assert float((lse - exact_lse).abs().max()) <= FLOAT8_LSE_TOLERANCE
