"""Hopper's backward kernels where there is no GPU: their text, and what an assembler makes of it."""

import os
from pathlib import Path

import pytest

from attngen.plan.backward import plan_backward
from attngen.plan.boxes import is_gluon
from attngen.plan.space import default_config, feasible, feasible_anywhere, shared_bytes
from attngen.plan.space.backward_hopper import HOPPER, HOPPER_FUSED, HOPPER_WIDE, HOPPER_WINDOW
from attngen.source import cross, render
from attngen.spec.model import HeadDim, Heads, Kind, Window
from attngen.target import get_target
from tests.op.cases import kind_of
from tests.op.test_interpreter import FIELDS
from tests.source.linted import assert_content, both_checks
from tests.source.sass import assemble
from tests.source.test_text import GOLDEN, LONG, REGENERATE

pytestmark = pytest.mark.usefixtures("fresh_caches")

H100 = get_target("h100")
MOST_SPILLS = 300  # bytes a thread, before and after the loops
SPILLS_IN_LOOPS = 30  # instructions, of several hundred


def kind(dims, heads=(8, 8), **fields) -> Kind:
    return kind_of(heads, dims, **{"dtype": "bfloat16", **fields})


KERNELS = {  # the kernel, the kind, and changes of its default config
    "keys, 64 wide": ("kv", kind((64, 64), causal=True), {}),
    "keys, 64 wide, a window": ("kv", kind((64, 64), window=Window(64, 64)), {}),
    "keys, 64 wide, a window in order": (
        "kv",
        kind((64, 64), window=Window(64, 64)),
        {"schedule": "hopper", "BLOCK_N": 192, "AHEAD": False},
    ),
    "queries, 64 wide, a window": ("q", kind((64, 64), (8, 2), causal=True, window=Window(127, 0)), {}),
    "keys, 64 wide, many loops": (
        "kv",
        kind((64, 64), (8, 2), causal=True, window=Window(127, 0), always_first=4, softcap=20.0, alibi=True),
        {},
    ),
    "keys, 128 wide": ("kv", kind((128, 128), causal=True), {}),
    "keys, 128 wide, in order": ("kv", kind((128, 128), (8, 2)), {"AHEAD": False}),
    "keys, 128 wide, prefix": ("kv", kind((128, 128), (8, 2), causal=True, prefix="argument"), {}),
    "keys, 128 wide, softcap": ("kv", kind((128, 128), (8, 2), softcap=50.0), {}),
    "keys, 128 wide, score": (
        "kv",
        kind((128, 128), score="s * gain[h] + tanh(s) * u[h, j]"),
        {"schedule": "hopper_wide", "BLOCK_M": 64, "BLOCK_N": 64},
    ),
    "keys, 128 and 64 wide": ("kv", kind((128, 64), causal=True, dtype="float16"), {}),
    "keys, 256 wide": ("kv", kind((256, 256), (8, 4), causal=True), {}),
    "queries, 64 wide": ("q", kind((64, 64), causal=True), {}),
    "queries, 64 wide, score": ("q", kind((64, 64), score="s * gain[h] + tanh(s) * u[h, j]", softcap=9.0), {}),
    "queries, 128 wide": ("q", kind((128, 128), causal=True), {}),
    "queries, 128 wide, ahead": ("q", kind((128, 128), causal=True), {"AHEAD": True, "BLOCK_N": 64}),
    "queries, 128 wide, a mask": ("q", kind((128, 128), causal=True, mask="doc[b, i] == doc[b, j]"), {}),
    "keys, 64 wide, documents": ("kv", kind((64, 64), (8, 2), causal=True, documents=True), {}),
    "keys, 128 wide, documents": ("kv", kind((128, 128), (8, 2), causal=True, documents=True), {}),
    "keys, 256 wide, documents": ("kv", kind((256, 256), (8, 4), causal=True, documents=True), {}),
    "queries, 128 wide, documents": ("q", kind((128, 128), causal=True, documents=True), {}),
    "all, a window": ("fused", kind((128, 128), (8, 2), causal=True, window=Window(4095, 0)), {}),
    "all, a window both ways": ("fused", kind((128, 128), window=Window(400, 200)), {"num_stages": 2}),
    "all, causal": ("fused", kind((128, 128), (8, 2), causal=True), {}),
    "all, every key": ("fused", kind((128, 128)), {}),
    "queries, 256 wide, softcap": ("q", kind((256, 256), (8, 4), causal=True, softcap=50.0), {}),
}
QUICK = ("keys, 128 wide", "keys, 256 wide", "queries, 128 wide", "all, causal")


def planned(name):
    kernel, kind, changes = KERNELS[name]
    plan = getattr(plan_backward(kind), kernel)
    return plan, default_config(plan, H100).replace(**changes)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in KERNELS])
def test_main_loops_are_what_they_should_be(name):
    plan, config = planned(name)
    assert is_gluon(config) and feasible(plan, config, H100) is None
    made = assemble(plan, config)
    assert not made.warnings  # asynchronous products stay so
    assert made.spills <= MOST_SPILLS
    assert len(made.loops) >= (1 if config["schedule"] == "hopper_window" else 2)  # of each warpgroup
    for count in made.loops:
        assert count["LDL"] + count["STL"] <= SPILLS_IN_LOOPS, count
        assert count["HGMMA"] >= 12 and count["SHFL"] == 0, count


@pytest.mark.parametrize("name", ["keys, 128 wide", "keys, 256 wide", "queries, 256 wide, softcap"])
def test_shared_memory_is_foreseen(name):
    plan, config = planned(name)
    needed = cross.compile_source(plan, config, H100).shared
    assert shared_bytes(plan, config, H100) - 1024 <= needed <= shared_bytes(plan, config, H100)


@pytest.mark.parametrize("name", QUICK)
def test_kept_kernels(name):
    path = GOLDEN / f"gradients_{''.join(c if c.isalnum() else '_' for c in name)}.txt"
    text = render(*planned(name)).text
    if os.environ.get(REGENERATE):
        path.write_text(text)
    assert text == path.read_text(), (
        f"generated code changed: set {REGENERATE}=1, run this again, review the difference"
    )


def structures(plan):
    """One config of each text, but for how many tiles are in flight."""
    found = {}
    for config in feasible_anywhere(plan, H100):
        if is_gluon(config):
            found[tuple(config.get(name) for name in ("schedule", "AHEAD", "BLOCK_M", "BLOCK_N"))] = config
    return list(found.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Every kernel, and every field in one of its structures, by turns."""
    made = tmp_path_factory.mktemp("generated")
    sources = {name: planned(name) for name in KERNELS}
    for n, (field, small) in enumerate(FIELDS.items()):
        if field in LONG:
            continue
        width = (64, 128)[n // 2 % 2]
        wide = Kind(**{**vars(small), "heads": Heads(4, 2), "head_dim": HeadDim(width, width)})
        for plan in (plan_backward(wide).kv, plan_backward(wide).q):
            sources[f"{field} {plan.kernel}"] = plan, structures(plan)[-(n % 2)]
    for name, (plan, config) in sources.items():
        (made / f"{''.join(c if c.isalnum() else '_' for c in name)}.py").write_text(render(plan, config).text)
    return made


@both_checks
def test_ruff_has_nothing_to_say(folder, check):
    assert_content(check, folder)


REFUSED = {
    "float32": ({"dtype": "float32"}, "16-bit"),
    "rows of 40 bytes": ({"head_dim": (20, 20)}, "16 bytes"),
    "two chunks": ({"head_dim": (96, 96)}, "one part"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_refuses(name):
    fields, reason = REFUSED[name]
    plans = plan_backward(kind_of(**{"head_dim": (64, 64), "dtype": "bfloat16", **fields}))
    for plan in (plans.kv, plans.q):
        assert reason in str(HOPPER.why_not(plan, H100))
        assert reason in str(HOPPER_WIDE.why_not(plan, H100))
        assert reason in str(HOPPER_WINDOW.why_not(plan, H100))
        assert reason in str(HOPPER_FUSED.why_not(plan, H100))
        assert default_config(plan, H100)["schedule"] == "portable"


def test_other_targets_and_wide_heads():
    plan = plan_backward(kind((256, 256))).kv
    assert "sm_90" in str(HOPPER.why_not(plan, get_target("a100")))
    assert "wide" in str(HOPPER.why_not(plan, H100))
    assert HOPPER_WIDE.why_not(plan, H100) is None
    assert "registers" in str(HOPPER_WIDE.why_not(plan_backward(kind((128, 128))).kv, H100))
    assert "windows" in str(HOPPER_WINDOW.why_not(plan, H100))
