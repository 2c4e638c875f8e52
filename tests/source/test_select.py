"""Selections compiled for GPUs that are not here: they fit, and tiles do not spill; text is as a linter wants it."""

from collections import Counter
from pathlib import Path

import pytest

from attngen.plan import plan_select
from attngen.plan.select import SelectPlan
from attngen.plan.space import default_config, shared_bytes
from attngen.problem import Problem
from attngen.source import compile_source, load_source, render
from attngen.source.cross import launch_signature
from attngen.source.select import HOPPER_REGISTERS
from attngen.spec.model import HeadDim, Heads, Kind, Select
from attngen.target import get_target
from tests.source.linted import assert_content, both_checks
from tests.source.sass import basic_blocks, disassembled

MOST_SPILLS = 300  # bytes a thread, of plain Triton, where a list is cut
MOST_SPILLS_HOPPER = 1000  # bytes a thread, where a list is cut and where a row begins
SPILLS_ON_THE_WAY = 3  # instructions, loads as well as stores, in what every tile runs through


def plan_of(top_k, **fields):
    forced = {name: fields.pop(name) for name in ("first", "last") if name in fields}
    return plan_select(Kind("sparse", Heads(1, 1), HeadDim(64, 64), select=Select(top_k=top_k, **forced)), **fields)


PLANS = {
    "2048": plan_of(2048),
    "2048 of bfloat16, first and last": plan_of(2048, logits="bfloat16", first=4, last=128),
    "first and last alone": plan_of(64, first=4, last=60),
}


pytestmark = pytest.mark.usefixtures("fresh_caches")


@pytest.mark.parametrize("target_name", ["a100", "h100", "b200", "mi300x"])
def test_portable_defaults(target_name):
    target, plan = get_target(target_name), PLANS["2048"]
    config = default_config(plan, target).replace(schedule="portable", num_warps=512 // target.warp_size)
    resources = compile_source(plan, config, target)
    assert resources.spills <= MOST_SPILLS
    assert resources.shared <= shared_bytes(plan, config, target) <= target.shared_per_block


@pytest.mark.parametrize("name", PLANS)
def test_hopper_defaults(name):
    target, plan = get_target("h100"), PLANS[name]
    config = default_config(plan, target)
    resources = compile_source(plan, config, target)
    assert config["schedule"] == "hopper"
    assert resources.registers <= HOPPER_REGISTERS  # so that 1024 threads share an SM
    assert resources.spills <= MOST_SPILLS_HOPPER


@pytest.mark.parametrize("rows", [64, 4096])
def test_tiles_do_not_spill_on_hopper(rows):
    plan = PLANS["2048"]
    config = default_config(plan, get_target("h100"), Problem("select", "digest", 1, rows, 131072))
    tiles = [
        count for count in blocks_of(plan, config) if count["STG"] == config["BLOCK"] // (32 * config["num_warps"])
    ]
    whole = min(tiles, key=Counter.total)  # the other one has a mask
    assert whole["LDG"] == whole["STG"] // 4  # of 16 bytes each
    assert max(whole["LDL"], whole["STL"]) <= SPILLS_ON_THE_WAY
    assert whole.total() <= 20 * whole["STG"] + 120


def blocks_of(plan: SelectPlan, config) -> list[Counter]:
    """Instructions of the parts of a kernel for sm_90 without a branch."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.experimental.gluon._runtime import GluonASTSource

    source = render(plan, config)
    made = triton.compile(
        GluonASTSource(fn=load_source(source), **launch_signature(source, config)),
        target=GPUTarget("cuda", 90, 32),
        options=source.options,
    )
    return [block.opcodes for block in basic_blocks(disassembled(made.asm["cubin"], Path(triton.__file__).parent))]


@both_checks
def test_text_is_as_a_linter_wants_it(check, tmp_path):
    for name, plan in PLANS.items():
        for schedule in ("portable", "hopper"):
            config = default_config(plan, get_target("h100")).replace(schedule=schedule)
            path = tmp_path / f"{name.replace(' ', '_')}_{schedule}.py"
            path.write_text(render(plan, config).text)
    assert_content(check, tmp_path)
