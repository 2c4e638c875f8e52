"""Plans of selections of blocks, and their space: defaults lie in it and fit, whatever the top k and the target."""

import pytest

from attngen.errors import NotGeneratedError
from attngen.plan.block_select import plan_block_select
from attngen.plan.space import default_config, enumerate_configs, feasible, forward_space
from attngen.problem import Problem
from attngen.spec.model import BlockSelect, Compress, HeadDim, Heads, Kind, Latent, Select
from attngen.target import TARGETS, get_target

MOST_POINTS = 80
FIELDS = {"heads": Heads(32, 4), "head_dim": HeadDim(128, 128)}


def kind_of(top_k=12, **changes):
    chosen = {name: changes.pop(name) for name in ("first", "last", "per", "by") if name in changes}
    select = changes.pop("select", Select(blocks=BlockSelect(64, top_k, **chosen)))
    return Kind("blocks", **{**FIELDS, "causal": True, "select": select, **changes})


def compressed(size=32, stride=16, **changes):
    return Kind("compressed", **{**FIELDS, "compress": Compress(size, stride), **changes})


PLANS = {
    "mean": plan_block_select(kind_of()),
    "mean, top 1": plan_block_select(kind_of(1)),
    "mean, top 64": plan_block_select(kind_of(64)),
    "mean, summed": plan_block_select(kind_of(per="kv_head")),
    "mean, 71 heads": plan_block_select(kind_of(per="kv_head", heads=Heads(71, 1))),
    "mean, float32": plan_block_select(kind_of(dtype="float32")),
    "paid": plan_block_select(kind_of(16, per="kv_head", by="compressed"), compressed()),
    "paid, of a head": plan_block_select(kind_of(64, by="compressed"), compressed()),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PLANS)
def test_defaults_lie_in_a_small_space(target, name):
    gpu, plan = get_target(target), PLANS[name]
    choices = {parameter.name: parameter.choices for parameter in forward_space(plan, gpu)}
    for seq_q in (None, 1, 64, 4096):
        problem = seq_q and Problem("block_select", "digest", 1, seq_q, 65536)
        config = default_config(plan, gpu, problem)
        assert feasible(plan, config, gpu, problem) is None
        assert all(config[name] in values for name, values in choices.items()) and set(config) == set(choices)
        assert config["BLOCK_N"] >= plan.listed
    configs = enumerate_configs(plan, gpu, Problem("block_select", "digest", 1, 4096, 65536))
    assert 0 < len(configs) <= MOST_POINTS and config in configs


def test_few_queries_have_a_small_tile():
    gpu = get_target("h100")
    few, many = (default_config(PLANS["mean"], gpu, Problem("block_select", "", 1, n, 8192)) for n in (1, 4096))
    assert few["BLOCK_Q"] == 16 and many["BLOCK_Q"] > 16


def test_what_a_plan_is_made_of():
    plan = PLANS["mean, 71 heads"]
    assert (plan.heads, plan.padded_heads, plan.listed) == (71, 128, 16)
    assert PLANS["mean"].heads == 1 and PLANS["mean, top 1"].listed == 2
    assert PLANS["paid"].exp_scale == pytest.approx(1.4426950408889634)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"BLOCK_N": 32}, "shorter than a list of 64"),
        ({"num_warps": 4, "BLOCK_N": 128}, "entries a thread"),
        ({"BLOCK_Q": 128, "num_warps": 4, "BLOCK_N": 128}, "scores a thread"),
        ({"BLOCK_Q": None}, "scores a thread"),
        ({"schedule": "hopper"}, "no schedule 'hopper'"),
    ],
)
def test_what_is_not_worth_compiling(changes, words):
    plan, gpu = PLANS["mean, top 64"], get_target("h100")
    assert words in (feasible(plan, default_config(plan, gpu).replace(**changes), gpu) or "")


def test_shared_memory_bounds_tiles():
    plan, gpu = PLANS["mean, float32"], get_target("rtx4090")
    config = default_config(plan, gpu).replace(BLOCK_Q=128, BLOCK_N=64, num_warps=8, num_stages=3)
    assert "shared memory" in (feasible(plan, config, gpu) or "")


@pytest.mark.parametrize(
    "kind, branch, error, words",
    [
        (kind_of(select=None), None, NotGeneratedError, "select: {blocks"),
        (kind_of(select=Select(top_k=8)), None, NotGeneratedError, "select: {blocks"),
        (kind_of(latent=Latent(512, 64)), None, NotGeneratedError, "latent"),
        (kind_of(dtype="float8_e4m3"), None, NotGeneratedError, "float8_e4m3"),
        (kind_of(65), None, NotGeneratedError, "1 to 64"),
        (kind_of(0), None, NotGeneratedError, "1 to 64"),
        (kind_of(4, first=3, last=2), None, NotGeneratedError, "top_k = 4"),
        (kind_of(per="kv_head", heads=Heads(256, 1)), None, NotGeneratedError, "at most 128"),
        (kind_of(by="compressed"), compressed(softcap=20.0), NotGeneratedError, "'softcap'"),
        (kind_of(by="compressed"), None, ValueError, "branch 'compressed' is needed"),
        (kind_of(), compressed(), ValueError, "none is needed"),
        (kind_of(by="compressed"), compressed(compress=None), ValueError, "compress keys"),
        (kind_of(by="compressed"), compressed(48, 24), ValueError, "divide 64"),
        (kind_of(by="compressed"), compressed(head_dim=HeadDim(64, 64)), ValueError, "differ"),
    ],
)
def test_what_is_not_generated(kind, branch, error, words):
    with pytest.raises(error) as raised:
        plan_block_select(kind, branch)
    assert words in str(raised.value)
