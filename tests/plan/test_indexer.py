"""Plans and spaces of indexers and of quantisation: what is generated, where it runs, and what a default is."""

import pytest

from attngen.errors import NotGeneratedError
from attngen.plan.indexer import plan_indexer
from attngen.plan.indexer_hopper import IndexerShape
from attngen.plan.quantise import plan_latent, plan_pages, plan_quantise
from attngen.plan.space import default_config, enumerate_configs, feasible, feasible_anywhere, shared_bytes
from attngen.problem import Problem
from attngen.spec.model import HeadDim, Heads, Kind
from attngen.target import TARGETS, get_target
from tests.op.indexer_cases import kind_of

H100 = get_target("h100")
MOST_POINTS = 40


@pytest.mark.parametrize(
    "make",
    [
        lambda: plan_indexer(Kind("kind", Heads(8, 1), HeadDim(64, 64))),
        lambda: plan_indexer(kind_of(heads=4)),
        lambda: plan_indexer(kind_of(heads=129)),
        lambda: plan_indexer(kind_of(head_dim=256, block=256)),
        lambda: plan_indexer(kind_of(head_dim=40)),  # not a multiple of 16 bytes
        lambda: plan_indexer(kind_of(block=64)),
        lambda: plan_quantise(kind_of(head_dim=96), rotate=True),
        lambda: plan_latent(Kind("kind", Heads(8, 1), HeadDim(64, 64))),
    ],
)
def test_what_is_not_generated(make):
    with pytest.raises(NotGeneratedError, match="kind 'kind'"):
        make()


def test_plans_are_what_the_spec_says():
    plan = plan_indexer(kind_of(heads=24, head_dim=96))
    assert (plan.padded_heads, plan.width, plan.dtype, plan.scaled) == (32, 128, "float8_e4m3", True)
    assert not plan_indexer(kind_of(), dtype="bfloat16").scaled
    assert plan_indexer(kind_of(head_dim=40), dtype="float16").head_dim == 40
    assert plan_quantise(kind_of()).format == "ue8m0" and plan_quantise(kind_of(dtype="bfloat16")).identity
    assert plan_pages(kind_of(dtype="bfloat16")).dtype == "float8_e4m3"  # the layout has no other


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
@pytest.mark.parametrize("dtype", ["float8_e4m3", "bfloat16"])
@pytest.mark.parametrize("heads", [8, 9, 24, 32, 64, 100, 128])
def test_every_target_has_a_small_space_and_a_default(target, dtype, heads):
    plan = plan_indexer(kind_of(heads), dtype=dtype)
    if dtype == "float8_e4m3" and (target.backend == "hip" or target.arch < 89):
        with pytest.raises(NotGeneratedError):
            default_config(plan, target)
        return
    points = list(feasible_anywhere(plan, target))
    assert 0 < len(points) <= MOST_POINTS
    assert {config["schedule"] for config in points} == {"portable", *(["hopper"] if target.arch == 90 else [])}
    for problem in (None, Problem("indexer", "d", 1, 4096, 32768), Problem("indexer", "d", 64, 1, 32768)):
        config = default_config(plan, target, problem)
        assert feasible(plan, config, target, problem) is None
        assert config["schedule"] == ("hopper" if target.arch == 90 else "portable")
        assert config in enumerate_configs(plan, target, problem) if problem else config in points
        assert shared_bytes(plan, config, target) <= target.shared_per_block


def test_queries_of_the_next_item_have_a_place_where_there_is_room():
    plan = plan_indexer(kind_of())
    config = default_config(plan, H100)
    shape = IndexerShape.of(plan, config)
    assert (shape.columns, shape.block_n, shape.q_buffers, shape.block_q) == (256, 64, 2, 8)
    assert IndexerShape.of(plan, config.replace(PERSISTENT=False)).q_buffers == 1
    assert (shape.products, shape.product_queries, shape.product_columns) == (2, 2, 128)
    wide = plan_indexer(kind_of(), dtype="bfloat16")
    assert IndexerShape.of(wide, default_config(wide, H100)).q_buffers == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"BLOCK_N": 128},
        {"WARPGROUPS": 3},
        {"WARPGROUPS": 4, "OVERLAP": False},
        {"WARPGROUPS": 5, "OVERLAP": False, "BLOCK_Q": 2},
        {"BLOCK_Q": 8},
        {"BLOCK_Q": 2},
        {"num_stages": 9},
        {"BLOCK_N": 96},
        {"WARPGROUPS": 1},
    ],
    ids=str,
)
def test_what_does_not_fit_hopper(changes):
    plan = plan_indexer(kind_of())
    assert feasible(plan, default_config(plan, H100).replace(**changes), H100)


def test_numbers_in_sixteen_bits_need_no_kernel():
    with pytest.raises(NotGeneratedError):
        default_config(plan_quantise(kind_of(dtype="bfloat16")), H100)
