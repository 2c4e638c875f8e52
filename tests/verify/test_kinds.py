"""Verification passes what is right and finds what is wrong, with kernels made of the reference itself."""

import math
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch

from attngen import reference
from attngen.plan import plan_forward
from attngen.plan.kernels import backward_plans_for
from attngen.plan.space import default_config
from attngen.spec import Kind, parse_spec
from attngen.spec.model import HeadDim, Window
from attngen.target import get_target
from attngen.verify.cases import Case, gpu_cases, shortened
from attngen.verify.kinds import verify_kinds
from attngen.verify.variants import structure, variants
from tests.verify.right_gradients import right_kernel

H100 = get_target("h100")
SPECS = {
    "causal": "causal: true",
    "window": "window: {left: 40, right: 3}",
    "sink": "causal: true, sink: learned, window: {total: 24}",
    "softcap": "causal: true, softcap: 5",
    "alibi": "causal: true, alibi: true",
    "chunk": "chunk: 32, causal: true",
    "score": 'score: "s + 0.5 * h - 0.01 * abs(i - j)"',
    "prefix": "causal: true, prefix: argument",
    "documents": "causal: true, documents: true",
    "blocks": "causal: true, blocks: {size: 16}",
}


def kind_of(fields: str) -> Kind:
    return parse_spec("{heads: {query: 4, kv: 2}, head_dim: 32, " + fields + "}").kinds[0]


def exact(plan, config):
    """A kernel that rounds as ours do: the result in float16, lse in float32."""
    if plan.kernel != "forward":
        return right_kernel(plan)

    def kernel(**inputs):
        out, lse = reference.attention(plan.kind, **inputs)
        return out.half(), lse.float()

    return kernel


def broken(change):
    """A kernel whose result ``change(out, lse, inputs)`` has spoilt."""

    def make(plan, config):
        def kernel(**inputs):
            out, lse = exact(plan, config)(**inputs)
            return change(out.clone(), lse.clone(), inputs)

        return kernel

    return make


def another(**fields):
    """A kernel of a kind that differs a little: what an off-by-one in a bound would compute."""

    def make(plan, config):
        return exact(replace(plan, kind=replace(plan.kind, **fields)), config)

    return make


def verify(kind, make, seqs=(), backward=False):
    plans = backward_plans_for if backward else lambda kind, target: ()
    with patch("attngen.verify.kinds.backward_plans_for", plans):
        return list(verify_kinds([kind], H100, interpret=True, seqs=seqs, make_kernel=make))


@pytest.fixture(autouse=True)
def no_database(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNGEN_DB", str(tmp_path / "tunings.sqlite"))


@pytest.mark.parametrize("name", SPECS)
def test_what_is_right_passes(name):
    found = verify(kind_of(SPECS[name]), exact)
    assert found and all(f.status == "ok" for f in found), [f for f in found if f.status != "ok"]
    assert {f.case for f in found} == {"1 x 130 x 130", "1 x 37 x 203", "2 x 70 x 41 padded", "1 x 1 x 77"}


@pytest.mark.parametrize(
    ("fields", "make"),
    [
        ("window: {left: 40, right: 3}", another(window=Window(41, 3))),
        ("window: {left: 40, right: 3}", another(window=Window(40, 2))),
        ("causal: true", another(causal=False)),
        ("causal: true, sink: learned", another(sink=False)),
        ("causal: true, softcap: 5", another(softcap=5.1)),
        ("chunk: 32, causal: true", another(chunk=31)),
        ("causal: true, scale: 0.2", another(scale=0.2002)),
        ("causal: true, always: {first: 4}, window: {total: 16}", another(always_first=3)),
    ],
)
def test_a_kernel_of_another_mask_or_score_fails(fields, make):
    if "sink" in fields:  # without its sink a kernel takes no such argument

        def make(plan, config):
            return lambda sink, **inputs: exact(replace(plan, kind=replace(plan.kind, sink=False)), config)(**inputs)

    found = verify(kind_of(fields), make)
    assert any(f.status == "failed" for f in found)


def one_wrong_key(out, lse, inputs):
    """The last row of the last head also sees a key that is twice as far away as it may be."""
    lse[0, -1, -1] = torch.logaddexp(lse[0, -1, -1], lse[0, -1, -1] - math.log(200))
    return out, lse


def nan_in_empty_rows(out, lse, inputs):
    out[lse == -math.inf] = math.nan
    return out, lse


def small_in_empty_rows(out, lse, inputs):
    out[lse == -math.inf] = 1e-3
    return out, lse


def finite_lse_in_empty_rows(out, lse, inputs):
    return out, lse.clamp_min(-1e30)


def infinite(out, lse, inputs):
    out[0, 0, 0, 0] = math.inf
    return out, lse


def lost_probability(out, lse, inputs):
    return out * (1 - 2e-3), lse


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (one_wrong_key, "lse is off by more than rounding explains"),
        (nan_in_empty_rows, "NaN"),
        (small_in_empty_rows, "rows that see no key do not give 0 and lse -inf"),
        (finite_lse_in_empty_rows, "rows that see no key do not give 0 and lse -inf"),
        (infinite, "an infinite result"),
        (lost_probability, "the error is larger than rounding explains"),
    ],
)
def test_a_spoilt_result_fails(change, fault):
    found = verify(kind_of("causal: true"), broken(change))
    assert fault in {f.fault for f in found if f.status == "failed"}


def test_whatever_a_kernel_raises_is_a_finding():
    def make(plan, config):
        raise RuntimeError("PassManager::run failed\nat line 3")

    found = verify(kind_of("causal: true"), make)
    assert {(f.status, f.fault) for f in found} == {("failed", "RuntimeError: PassManager::run failed at line 3")}


def test_a_config_that_does_not_fit_is_skipped():
    class OutOfResources(Exception):
        pass

    def make(plan, config):
        if config["loads"] == "pointer":
            raise OutOfResources
        return exact(plan, config)

    found = verify(kind_of("causal: true"), make)
    assert {f.status for f in found} == {"ok", "skipped"}


@pytest.mark.parametrize(("name", "seqs"), [*((name, (50,)) for name in SPECS), ("sink", ())])
def test_right_gradients_pass(name, seqs):
    found = verify(kind_of(SPECS[name]), exact, seqs, backward=True)
    assert all(f.status == "ok" for f in found), [f for f in found if f.status != "ok"]
    assert {f.kernel for f in found} == {"forward", "backward_rows", "backward_kv", "backward_q"}


def test_a_kernel_that_is_only_of_gluon_is_not_interpreted():
    fields = {"causal": True, "window": Window(299, 0)}
    kind = replace(kind_of("causal: true"), head_dim=HeadDim(128, 128), **fields)
    assert "backward_fused" in [plan.kernel for plan in backward_plans_for(kind, H100)]
    found = verify(kind, exact, (50,), backward=True)
    assert {f.kernel for f in found} == {"forward", "backward_rows", "backward_kv", "backward_q"}


@pytest.mark.parametrize("kernel", ["backward_rows", "backward_kv", "backward_q"])
def test_wrong_gradients_fail(kernel):
    """A kernel of a window that is one key too long, or of a sink that is not there."""
    kind = kind_of("causal: true, sink: learned, window: {total: 24}")

    def make(plan, config):
        if plan.kernel != kernel:
            return exact(plan, config)
        if kernel != "backward_rows":
            return right_kernel(replace(plan, kind=replace(plan.kind, window=Window(24, 0))))
        return lambda sink, **inputs: right_kernel(plan)(sink=sink + 0.01, **inputs)

    found = verify(kind, make, seqs=(130,), backward=True)
    assert {f.kernel for f in found if f.status == "failed"} == {kernel}
    faults = {f.fault for f in found if f.status == "failed"}
    assert all(fault.endswith("the error is larger than rounding explains") for fault in faults)


def test_kernels_of_every_learned_read_are_verified():
    found = verify(kind_of("score: 's * gain[h] + u[j] + e[i // 8, j // 8]'"), exact, (50,), backward=True)
    assert {f.status for f in found} == {"ok"}
    assert {f.kernel for f in found} == {
        "forward",
        "backward_rows",
        "backward_kv",
        "backward_q",
        "backward_elements",
    }


def test_lengths_of_ones_own():
    found = verify(kind_of("causal: true"), exact, seqs=(1, 50))
    assert {f.case for f in found} == {"1 x 1 x 1", "1 x 50 x 50"}


def test_gpu_cases_reach_beyond_every_window():
    kind = kind_of("causal: true, chunk: 8192")
    cases = gpu_cases(kind)
    assert any(case.seq_k > 8192 and case.seq_q != case.seq_k for case in cases)
    assert any(case.padded for case in cases) and any(case.seq_q == 1 for case in cases)
    assert gpu_cases(kind, (7,)) == [Case(1, 7, 7)]


def test_kinds_are_shortened_for_small_sizes():
    kind = kind_of("causal: true, window: {total: 4096}, always: {first: 64}")
    short = shortened(kind)
    assert (short.dtype, short.window, short.always_first) == ("float16", Window(100, 0), 5)
    assert shortened(kind_of("window: {left: 7, right: null}")).window == Window(7, None)


def test_padded_cases_have_a_sequence_without_keys():
    inputs = Case(2, 5, 20, padded=True).inputs(kind_of("causal: true"), "cpu")
    assert inputs["key_range"].tolist() == [[3, 13], [20, 20]]


def test_every_structure_is_verified_once():
    plan = plan_forward(parse_spec("{heads: {query: 16, kv: 2}, head_dim: 64, window: {half: 64}}").kinds[0])
    in_use = default_config(plan, H100)
    configs = variants(plan, H100, in_use)
    structures = [structure(plan, config) for config in configs]
    assert configs[0] == in_use and len(set(structures)) == len(structures)
    portable = [config for config in configs if config["schedule"] in ("portable", "window")]
    assert {config["schedule"] for config in portable} == {"portable", "window"}
    assert {config["loads"] for config in portable} == {"pointer", "descriptor"}


def test_every_choice_of_the_hopper_schedule_is_verified():
    plan = plan_forward(parse_spec("{heads: {query: 16, kv: 2}, head_dim: 64, causal: true}").kinds[0])
    in_use = default_config(plan, H100)
    configs = [config for config in variants(plan, H100, in_use) if config["schedule"] == "hopper"]
    assert configs[0] == in_use and len(configs) < 10
    for name in ("PING_PONG", "BLOCK_M", "PACK_HEADS"):
        assert len({config[name] for config in configs}) == 2, name
    interpreted = variants(plan, H100, in_use, interpreted=True)
    assert {config["schedule"] for config in interpreted[1:]} == {"portable"}


def test_both_orders_of_8_bits_are_verified():
    plan = plan_forward(parse_spec("{heads: 8, head_dim: 128, causal: true, dtype: float8_e4m3}").kinds[0])
    configs = variants(plan, H100, default_config(plan, H100))
    assert {config["BLOCK_N"] for config in configs if config["schedule"] == "hopper"} >= {128, 256}


def test_the_interpreter_is_given_no_gluon():
    found = verify(kind_of("causal: true"), exact, seqs=(50,))
    assert default_config(plan_forward(kind_of("causal: true")), H100)["schedule"] == "hopper"
    assert found and not any("hopper" in finding.config for finding in found)
