"""Kernels of attention over chosen blocks, compiled for GPUs that are not here, and their text."""

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from attngen.config import Config
from attngen.plan import plan_routed
from attngen.plan.space import default_config, feasible_anywhere
from attngen.source import compile_source, load_source, render_routing
from attngen.source.cross import launch_signature
from attngen.source.render import render
from attngen.spec.model import Window
from attngen.target import get_target
from tests.op.routed_cases import routed_kind
from tests.source.linted import assert_content, both_checks

H100 = get_target("h100")
TARGETS = ("a100", "h100", "b200", "mi300x")


def wide(heads=(32, 8), dims=(128, 128), size=512, top_k=8, dtype="bfloat16", **fields):
    return routed_kind(heads, dims, size, top_k, dtype=dtype, **fields)


KINDS = {
    "a list a head": wide(),
    "a list a KV head": wide(size=64, top_k=16, per="kv_head", sink=True),
    "window, float16": wide(dtype="float16", window=Window(4000, 0)),
    "chunk, softcap": wide(chunk=5000, softcap=30.0, size=100),
    "both directions": wide(causal=False, dims=(192, 128)),
    "256 wide": wide((16, 8), (256, 256)),
    "float32": wide(dtype="float32"),
}
QUICK = "a list a head"
FEW_SPILLS = 128  # bytes a thread


@pytest.fixture(autouse=True)
def fresh_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setenv("ATTNGEN_CACHE", str(tmp_path / "attngen"))


@pytest.mark.parametrize("target_name", TARGETS)
@pytest.mark.parametrize("name", [n if n == QUICK else pytest.param(n, marks=pytest.mark.slow) for n in KINDS])
def test_defaults(name, target_name):
    plan, target = plan_routed(KINDS[name]), get_target(target_name)
    config = default_config(plan, target)
    resources = compile_source(plan, config, target)
    assert resources.spills <= (0 if target is H100 else FEW_SPILLS), config.label()
    assert resources.shared <= target.shared_per_block
    assert resources.num_warps == config["num_warps"]


@pytest.mark.parametrize("target_name", ["h100", pytest.param("a100", marks=pytest.mark.slow), "mi300x"])
def test_sorting_and_merging(target_name):
    target = get_target(target_name)
    tile = Config(BLOCK_M=64, BLOCK=512)
    for source in render_routing(plan_routed(KINDS["a list a KV head"])).values():
        ast = ASTSource(fn=load_source(source), **launch_signature(source, tile))
        where = GPUTarget(target.backend, target.arch, target.warp_size)
        assert triton.compile(ast, target=where, options=source.options).metadata.shared <= target.shared_per_block


@both_checks
def test_text(check, tmp_path):
    for n, kind in enumerate(KINDS.values()):
        plan = plan_routed(kind)
        texts = {render(plan, config).text for config in feasible_anywhere(plan, H100)}
        texts |= {source.text for source in render_routing(plan).values()}
        for m, text in enumerate(sorted(texts)):
            (tmp_path / f"kernel_{n}_{m}.py").write_text(text)
    assert_content(check, tmp_path)
