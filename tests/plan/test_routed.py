"""The space of attention over chosen blocks, and what its plan says of partial results."""

import pytest

from attngen.plan import plan_routed
from attngen.plan.space import default_config, feasible, feasible_anywhere
from attngen.target import get_target
from tests.op.routed_cases import routed_kind

H100 = get_target("h100")
TARGETS = ("a100", "h100", "b200", "mi300x", "rtx4090")
MOST_POINTS = 60


def plan(heads=(32, 8), dims=(128, 128), size=512, top_k=8, dtype="bfloat16", **fields):
    return plan_routed(routed_kind(heads, dims, size, top_k, dtype=dtype, **fields))


PLANS = {
    "a list a head": plan(),
    "a list a KV head": plan(size=64, top_k=16, per="kv_head"),
    "blocks of no whole tiles": plan(size=100),
    "small blocks": plan(size=16),
    "values of 256": plan(dims=(256, 256)),
    "192 and 128 wide": plan(dims=(192, 128)),
    "128 heads of a list": plan((128, 1), per="kv_head"),
    "float32": plan(dtype="float32"),
    "float32, wide": plan(dims=(256, 256), dtype="float32"),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PLANS)
def test_every_plan_has_a_default_in_a_small_space(name, target):
    points = list(feasible_anywhere(PLANS[name], get_target(target)))
    assert default_config(PLANS[name], get_target(target)) in points
    assert len(points) <= MOST_POINTS


def test_a_tile_holds_all_heads_of_a_query():
    config = default_config(PLANS["128 heads of a list"], H100)
    assert config["BLOCK_M"] == 128
    assert "128 heads of a list" in str(feasible(PLANS["128 heads of a list"], config.replace(BLOCK_M=64), H100))


def test_the_copy_engine_takes_whole_tiles():
    name = "blocks of no whole tiles"
    config = default_config(PLANS[name], H100)
    assert config["loads"] == "pointer"
    assert "do not divide" in str(feasible(PLANS[name], config.replace(loads="descriptor"), H100))


def test_no_list_has_more_heads_than_a_tile():
    many = plan((256, 1), per="kv_head")
    assert "256 heads share a list" in str(feasible(many, default_config(plan(), H100), H100))


@pytest.mark.parametrize(
    ("dtype", "partials"), [("bfloat16", "float16"), ("float16", "float32"), ("float32", "float32")]
)
def test_partial_results_have_more_bits_than_weights(dtype, partials):
    assert plan(dtype=dtype).partials == partials
