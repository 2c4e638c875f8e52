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
    assert IndexerShape.of(plan, default_config(plan, H100)).q_buffers == 2
    wide = plan_indexer(kind_of(), dtype="bfloat16")
    assert IndexerShape.of(wide, default_config(wide, H100)).q_buffers == 1


@pytest.mark.parametrize(
    ("heads", "head_dim", "dtype", "wanted"),
    [
        (8, 128, "float8_e4m3", 2),
        (16, 128, "float8_e4m3", 3),
        (24, 128, "float8_e4m3", 4),
        (64, 128, "float8_e4m3", 4),
        (100, 128, "float8_e4m3", 4),
        (128, 32, "float8_e4m3", 4),
        (64, 64, "bfloat16", 4),
        (64, 128, "bfloat16", 3),
        (8, 128, "bfloat16", 2),
    ],
)
def test_as_many_warpgroups_compute_as_have_registers(heads, head_dim, dtype, wanted):
    plan = plan_indexer(kind_of(heads, head_dim), dtype=dtype)
    config = default_config(plan, H100, Problem("indexer", "d", 1, 4096, 32768))
    shape = IndexerShape.of(plan, config)
    assert (shape.warpgroups, shape.columns, shape.mixed) == (wanted, 128, wanted > 2)
    assert config == default_config(plan, H100)


@pytest.mark.parametrize("heads", [8, 64, 128])
@pytest.mark.parametrize("seq_q", [1, 2, 3, 5, 7, 8, 31])
def test_few_queries_leave_no_warpgroup_idle(seq_q, heads):
    plan = plan_indexer(kind_of(heads))
    shape = IndexerShape.of(plan, default_config(plan, H100, Problem("indexer", "d", 8, seq_q, 32768)))
    least = max(64 // heads, 1)
    assert shape.block_q <= seq_q or (shape.queries, shape.warpgroups) == (least, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"BLOCK_N": 128},
        {"BLOCK_Q": 4},
        {"BLOCK_Q": 8, "WARPGROUPS": 2},
        {"BLOCK_Q": 4, "BLOCK_N": 128, "WARPGROUPS": 2},
        {"BLOCK_Q": 1, "MIXED": False},
        {"BLOCK_Q": 1, "BLOCK_N": 128, "WARPGROUPS": 2},  # and mixed
        {"WARPGROUPS": 5},
        {"WARPGROUPS": 1},
        {"num_stages": 9},
        {"BLOCK_N": 96},
    ],
    ids=str,
)
def test_what_does_not_fit_hopper(changes):
    plan = plan_indexer(kind_of())
    config = default_config(plan, H100)
    assert feasible(plan, config, H100) is None
    assert feasible(plan, config.replace(**changes), H100)


def test_numbers_in_sixteen_bits_need_no_kernel():
    with pytest.raises(NotGeneratedError):
        default_config(plan_quantise(kind_of(dtype="bfloat16")), H100)
