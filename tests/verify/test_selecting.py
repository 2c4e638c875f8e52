"""Verification of kinds that select keys: kernels made of the reference pass, and spoilt ones do not."""

from dataclasses import replace

import pytest
import torch

from attngen import reference
from attngen.op.kernels import LAUNCHERS
from attngen.op.quantise import quantise_in_torch
from attngen.plan.kernels import launched_plans, plans_of
from attngen.plan.space import default_config
from attngen.spec import parse_spec
from attngen.spec.model import Window
from attngen.target import get_target
from attngen.verify.cases import cases_of, shortened
from attngen.verify.comparisons import COMPARISONS
from attngen.verify.interpreted import verify_interpreted
from attngen.verify.kinds import verify_kinds
from attngen.verify.variants import structure, variants

H100 = get_target("h100")
SELECT = "causal: true, select: {top_k: 8, first: 1, indexer: {heads: 8, head_dim: 32}}}"
LATENT = parse_spec("{name: small, heads: 16, latent: {rank: 64, rope: 16}, " + SELECT)
GROUPS = parse_spec(
    "{name: small, heads: {query: 4, kv: 2}, head_dim: 32, window: {total: 90}, sink: learned, " + SELECT
)
KERNELS = ("quantise", "indexer", "select", "gathered")


@pytest.fixture(autouse=True)
def no_database(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNGEN_DB", str(tmp_path / "tunings.sqlite"))


def exact(plan, config):
    """A kernel that rounds as ours do."""

    def attention(indices=None, **inputs):
        out, lse = reference.attention(plan.kind, indices=indices, **inputs)
        return out.half(), lse.float()

    def logits(q, k, w, key_first, key_end, k_scale):
        return reference.index_scores(q.transpose(1, 2), k, w, k_scale=k_scale).float()

    def keys(logits, key_first, key_end):
        return reference.select_keys(logits, key_first, key_end, plan.top_k, first=plan.first, last=plan.last)

    made = {"indexer": logits, "select": keys, "gathered": attention, "forward": attention}
    made["quantise"] = lambda x: quantise_in_torch(x, plan.format, plan.rotate)
    return made[plan.kernel]


def verify(spec, make=exact, seqs=(45,)):
    return list(verify_kinds(spec.kinds, H100, interpret=True, seqs=seqs, make_kernel=make))


@pytest.mark.parametrize(
    ("spec", "kernels"), [(LATENT, KERNELS), (GROUPS, (*KERNELS, "forward"))], ids=["latent", "groups"]
)
def test_what_is_right_passes(spec, kernels):
    found = verify(spec)
    assert tuple(dict.fromkeys(finding.kernel for finding in found)) == kernels
    assert all(finding.status == "ok" for finding in found), found
    assert [f.title for f in found][1:4] == ["attention indexer", "attention select", "attention gathered"]


def another(kernel, change):
    """A kernel whose result ``change`` has spoilt, the others right."""

    def make(plan, config):
        right = exact(plan, config)
        return (lambda **inputs: change(right(**inputs))) if plan.kernel == kernel else right

    return make


def one_other(tensor, value):
    tensor = tensor.clone()
    tensor.view(-1)[-2] = value
    return tensor


def no_zero(logits):
    """What a head that counts although its product is negative would add."""
    return logits * (1 + 1e-3)


SPOILT = [
    ("quantise", lambda made: (made[0], made[1] * 2), "45 rows have other bits than PyTorch gives them"),
    ("indexer", no_zero, "a logit is off by more than rounding explains"),
    ("indexer", lambda logits: one_other(logits, torch.nan), "logits that are not finite"),
    ("select", lambda keys: one_other(keys, 3), "1 rows differ from a stable sort of the same scores"),
    ("gathered", lambda made: (made[0] * 1.002, made[1]), "the error is larger than rounding explains"),
    ("gathered", lambda made: (made[0], made[1] + 1e-2), "lse is off by more than rounding explains"),
]


@pytest.mark.parametrize(("kernel", "change", "fault"), SPOILT, ids=[f"{one[0]} {n}" for n, one in enumerate(SPOILT)])
def test_what_is_wrong_fails_and_nothing_else(kernel, change, fault):
    found = verify(LATENT, another(kernel, change))
    assert {f.kernel for f in found if f.status == "failed"} == {kernel}
    assert fault in {f.fault for f in found}


def test_lists_are_of_keys_that_a_window_hides():
    """So that a kernel which trusts its lists is found out."""

    def trusting(plan, config):
        kind = replace(plan.kind, window=Window(10**6, 0))
        return exact(replace(plan, kind=kind) if plan.kernel == "gathered" else plan, config)

    found = verify(GROUPS, trusting, seqs=(150,))
    assert {f.kernel for f in found if f.status == "failed"} == {"gathered"}


def test_kinds_are_shortened_for_small_sizes():
    kind = shortened(
        parse_spec("{heads: 128, latent: {rank: 512, rope: 64}, select: {top_k: 2000, last: 64}}").kinds[0]
    )
    assert (kind.heads.query, kind.heads.kv, kind.select.top_k, kind.select.last) == (16, 1, 24, 5)


def test_every_structure_of_every_kernel_is_verified():
    kind = parse_spec("{heads: 128, latent: {rank: 512, rope: 64}, " + SELECT.replace("heads: 8", "heads: 64")).kinds[0]
    schedules = {}
    for plan in plans_of(kind, H100):
        configs = variants(plan, H100, default_config(plan, H100))
        assert len({structure(plan, config) for config in configs}) == len(configs) < 8
        schedules[plan.kernel] = {config["schedule"] for config in configs}
        if plan.kernel == "gathered":
            assert {config["PREFETCH"] for config in configs if config["schedule"] == "hopper"} == {True, False}
        if plan.kernel == "indexer":
            assert {config["MIXED"] for config in configs if config["schedule"] == "hopper"} == {True, False}
    assert list(schedules) == ["indexer", "select", "gathered"]
    assert all(made == {"hopper", "portable"} for made in schedules.values())


def test_rows_outgrow_the_lists_of_a_selection():
    for interpret in (True, False):
        longest = {
            plan.kernel: max(case.seq_k for case in cases_of(plan, (), interpret))
            for plan in launched_plans(LATENT.kinds[0], H100)
        }
        assert longest["select"] > 2 * longest["indexer"]
        assert longest["select"] > 8192


def test_generated_kernels_are_right():
    found = list(verify_interpreted(LATENT, ["attention"], H100, seqs=(12,)))
    assert {finding.status for finding in found} == {"ok"}
    assert [finding.kernel for finding in found] == [*KERNELS]


def test_every_kernel_is_compared_with_something():
    assert set(COMPARISONS) == set(LAUNCHERS)
