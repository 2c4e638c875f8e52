"""A kernel that was kept is one that Triton need not compile again."""

import shutil

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from attngen.op import Launcher
from attngen.op.compiled import compiled_files, put_back
from attngen.plan import plan_forward
from attngen.plan.space import default_config
from attngen.source import load_source, render
from attngen.source.cross import launch_signature
from attngen.target import get_target
from tests.op.cases import config_of, kind_of

TARGET = get_target("h100")


@pytest.fixture
def hits(monkeypatch, tmp_path):
    """Whether each compilation found a kernel in Triton's cache, which is empty."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    found = []
    monkeypatch.setattr(
        triton.knobs.compilation, "listener", lambda **about: found.append(about["cache_hit"]), raising=False
    )
    return found


def compiled():
    plan, config = plan_forward(kind_of(causal=True, head_dim=(32, 32))), config_of(BLOCK_M=16, BLOCK_N=16)
    source = render(plan, config)
    function = load_source(source)
    return triton.compile(
        ASTSource(fn=function, **launch_signature(source, config)),
        target=GPUTarget(TARGET.backend, TARGET.arch, TARGET.warp_size),
        options=source.options,
    )


def test_a_kernel_is_put_back_into_an_empty_cache(hits, tmp_path):
    first = compiled()
    files = compiled_files(first)
    assert {name.rsplit(".")[-1] for name in files} == {"json", "cubin"}
    assert files["attention_forward.cubin"] == first.asm["cubin"]
    shutil.rmtree(tmp_path / "triton")
    put_back({first.hash: files})
    again = compiled()
    assert hits == [False, True]
    assert again.asm["cubin"] == first.asm["cubin"] and again.metadata == first.metadata


def test_what_is_in_the_cache_stays(hits):
    first = compiled()
    put_back({first.hash: {"attention_forward.json": b"something else"}})
    assert compiled().asm["ptx"] == first.asm["ptx"]


def test_another_kernel_is_never_taken_for_it(hits):
    put_back({"0" * 64: {"attention_forward.json": b"{}", "attention_forward.cubin": b""}})
    compiled()
    assert hits == [False]


@pytest.mark.parametrize(("dtype", "texts"), [("bfloat16", 1), ("float8_e4m3", 2)])
def test_a_launcher_names_every_text_that_a_call_compiles(dtype, texts):
    """Of 8 bits, also the kernel that turns values."""
    plan = plan_forward(kind_of(causal=True, head_dim=(128, 128), dtype=dtype))
    launcher = Launcher(plan, default_config(plan, TARGET))
    assert len(set(launcher.sources())) == texts
    assert launcher.sources()[0] == launcher.source.digest and launcher.compiled() == []
