"""Selections of blocks compiled for GPUs that are not here: they fit and do not spill; text is as a linter wants it."""

import pytest

from attngen.plan.block_select import plan_block_select
from attngen.plan.space import default_config, shared_bytes
from attngen.source import compile_source, render
from attngen.spec.model import BlockSelect, Compress, HeadDim, Heads, Kind, Select
from attngen.target import get_target
from tests.op.block_select_cases import plan_of
from tests.source.linted import assert_content, both_checks

SPILLS_OF_64 = 128  # bytes a thread, of lists of 64
REDUCTION_BYTES = 16384  # of shared memory: what warps that share a row tell each other


def moba(top_k=12, **fields):
    shared = {"heads": Heads(32, 8), "head_dim": HeadDim(128, 128), "causal": True, "dtype": "bfloat16"}
    select = Select(blocks=BlockSelect(512, top_k, last=1))
    return plan_block_select(Kind("moba", select=select, **{**shared, **fields}))


def nsa(top_k=16, per="kv_head"):
    shared = {"heads": Heads(64, 4), "head_dim": HeadDim(192, 128), "causal": True, "dtype": "bfloat16"}
    compressed = Kind("compressed", compress=Compress(32, 16), scale=192**-0.5, **shared)
    select = Select(blocks=BlockSelect(64, top_k, 1, 2, per, by="compressed"))
    return plan_block_select(Kind("nsa", select=select, **shared), compressed)


PLANS = {
    "MoBA": moba(),
    "top 64": moba(64),
    "MoBA in float32": moba(dtype="float32"),
    "NSA": nsa(),
    "NSA, top 64": nsa(64),
    "NSA, lists of heads": nsa(per="head"),
}
OFTEN = [("MoBA", "h100"), ("NSA", "a100")]
SELDOM = [(name, target) for name in PLANS for target in ("a100", "h100", "b200", "mi300x")]
COMPILED = [*OFTEN, *(pytest.param(*one, marks=pytest.mark.slow) for one in SELDOM if one not in OFTEN)]


@pytest.mark.parametrize("name, target_name", COMPILED)
def test_defaults_fit_and_do_not_spill(name, target_name, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setenv("ATTNGEN_CACHE", str(tmp_path / "attngen"))
    target, plan = get_target(target_name), PLANS[name]
    config = default_config(plan, target)
    resources = compile_source(plan, config, target)
    assert resources.spills <= (SPILLS_OF_64 if plan.listed == 64 else 0), config.label()
    assert 0 < resources.registers <= target.registers_per_thread * (2 if target.backend == "hip" else 1)
    assert resources.shared <= min(shared_bytes(plan, config, target) + REDUCTION_BYTES, target.shared_per_block)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every structure that the template has, a file each."""
    made, gpu = tmp_path_factory.mktemp("generated"), get_target("h100")
    plans = [*PLANS.values(), plan_of(first=2, dim=24), plan_of(top_k=1), plan_of(per="kv_head", heads=(6, 2), last=1)]
    plans += [plan_of(paid=True, per="kv_head", heads=(6, 2), dim=40), plan_of(paid=True, compress=(4, 4), first=1)]
    for n, plan in enumerate(plans):
        (made / f"blocks_{n}.py").write_text(render(plan, default_config(plan, gpu)).text)
    return made


@both_checks
def test_text_is_as_a_linter_wants_it(check, folder):
    assert_content(check, folder)
