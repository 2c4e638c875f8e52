"""Kernels of attention over listed keys, compiled for GPUs that are not here: registers, spills, products in flight."""

from dataclasses import replace

import pytest

from attngen.plan import plan_gathered
from attngen.plan.boxes import is_gluon
from attngen.plan.space import default_config, feasible, feasible_anywhere, shared_bytes
from attngen.source import compile_source, render
from attngen.source.types import NOTHING
from attngen.spec.model import HeadDim, Heads, Kind, Latent, Window
from attngen.target import get_target
from tests.source import sass
from tests.source.linted import assert_content, both_checks
from tests.source.sass import assemble

H100 = get_target("h100")


def latent(heads=128, rank=512, rope=64, **fields):
    return Kind("kind", Heads(heads, 1), HeadDim(rank + rope, rank), latent=Latent(rank, rope), causal=True, **fields)


def plain(dims, heads, **fields):
    return Kind("kind", Heads(*heads), HeadDim(*dims), **fields)


KINDS = {
    "latent, 128 heads": latent(),
    "latent, 16 heads": latent(16),
    "groups of 4": plain((128, 128), (32, 8), causal=True),
    "256 wide, window": plain((256, 256), (16, 8), causal=True, window=Window(4095, 0), dtype="float16"),
    "192 and 128 wide, sink": plain((192, 128), (64, 1), sink=True, softcap=30.0),
    "float32": plain((128, 128), (8, 8), dtype="float32"),
}
HOPPER = {
    "128 heads": (latent(), {}),
    "16 heads, float16": (latent(16, dtype="float16"), {}),
    "sink, softcap, window": (latent(sink=True, softcap=30.0, window=Window(4000, 0)), {}),
    "chunk and dilation": (latent(chunk=5000, dilation=2), {}),
    "rank 256": (latent(rank=256), {}),
    "prefetch, fences": (latent(), {"PREFETCH": True, "PROXY_FENCE": True}),
    "a fixed order": (latent(), {"TICKETS": False}),
    "one turn": (latent(), {"TICKETS": False, "TURNS": 1}),
}
QUICK = ("128 heads",)
KEYS, STEP = 64, 16  # keys of a tile, and the depth of a product


pytestmark = pytest.mark.usefixtures("fresh_caches")


@pytest.mark.parametrize("target_name", ["a100", "h100", pytest.param("b200", marks=pytest.mark.slow), "mi300x"])
@pytest.mark.parametrize("name", KINDS)
def test_portable_defaults(name, target_name):
    plan, target = plan_gathered(KINDS[name]), get_target(target_name)
    config = default_config(plan, target, able=lambda config: not is_gluon(config))
    resources = compile_source(replace(plan, maxima=True), config, target)
    assert resources.spills == 0, config.label()
    assert resources.shared <= target.shared_per_block
    assert resources.num_warps == config["num_warps"]


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in HOPPER])
def test_hopper(name):
    kind, changes = HOPPER[name]
    plan = plan_gathered(kind)
    config = default_config(plan, H100).replace(**changes)
    assert config["schedule"] == "hopper" and feasible(plan, config, H100) is None
    check_hopper(assemble(plan, config), kind)
    resources = compile_source(plan, config, H100)  # what is compiled already
    assert resources.shared <= shared_bytes(plan, config, H100) <= H100.shared_per_block


def test_hopper_with_everything_given(monkeypatch):
    """The code of a call that gives what may be left out."""

    def rendered(plan, config):
        source = render(plan, config)
        return replace(source, types=tuple("*i32" if held == NOTHING else held for held in source.types))

    monkeypatch.setattr(sass, "render", rendered)
    plan = plan_gathered(latent(sink=True, window=Window(4000, 0)), maxima=True)
    check_hopper(assemble(plan, default_config(plan, H100)), plan.kind)


def check_hopper(made, kind):
    assert not made.warnings and made.spills == 0
    assert len(made.loops) == 2  # one a warpgroup
    for count in made.loops:  # scores, and the values of two tiles
        assert count["HGMMA"] == (kind.head_dim.qk + 2 * KEYS) // STEP
        assert count["SHFL"] == 8  # maxima and sums of two rows a thread
        assert count["LDL"] + count["STL"] == 0


@both_checks
def test_text(check, tmp_path):
    kinds = {**KINDS, **{f"hopper {n}": kind for n, (kind, _) in enumerate(HOPPER.values())}}
    for n, kind in enumerate(kinds.values()):
        plan = plan_gathered(kind, maxima=n % 2 == 0)
        texts = {render(plan, config).text for config in feasible_anywhere(plan, H100) if not config.get("PROXY_FENCE")}
        for m, text in enumerate(sorted(texts)):
            (tmp_path / f"kernel_{n}_{m}.py").write_text(text)
    assert_content(check, tmp_path)
