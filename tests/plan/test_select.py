"""Plans of selections, and their space: defaults lie in it and fit, whatever the top k and the target."""

import pytest

from attngen.errors import NotGeneratedError
from attngen.plan import plan_select
from attngen.plan.select import most_programs, scratch_elements
from attngen.plan.space import default_config, enumerate_configs, feasible, forward_space
from attngen.problem import Problem
from attngen.spec.model import HeadDim, Heads, Kind, Select
from attngen.target import TARGETS, get_target

TOP_KS = (1, 64, 512, 2048, 2049, 8192)
MOST_POINTS = 40


def kind_of(top_k, **forced):
    return Kind("sparse", Heads(1, 1), HeadDim(64, 64), select=Select(top_k=top_k, **forced))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("top_k", TOP_KS)
def test_defaults_lie_in_a_small_space(target, top_k):
    gpu, plan = get_target(target), plan_select(kind_of(top_k))
    choices = {parameter.name: parameter.choices for parameter in forward_space(plan, gpu)}
    for rows in (None, 1, 64, 512, 4096):
        problem = rows and Problem("select", "digest", 1, rows, 131072)
        config = default_config(plan, gpu, problem)
        assert feasible(plan, config, gpu, problem) is None
        assert all(config[name] in values for name, values in choices.items())
        assert config["schedule"] == ("hopper" if gpu.arch == 90 else "portable")
    configs = enumerate_configs(plan, gpu, Problem("select", "digest", 1, 4096, 131072))
    assert 0 < len(configs) <= MOST_POINTS and config in configs


def test_few_rows_have_more_warps():
    plan, gpu = plan_select(kind_of(2048)), get_target("h100")
    few, many = (default_config(plan, gpu, Problem("select", "digest", 1, n, 8192)) for n in (64, 512))
    assert few["num_warps"] == 16 and many["num_warps"] == 8


def test_scratch_is_as_documented():
    config = default_config(plan_select(kind_of(2048)), get_target("h100"))
    assert 8 * scratch_elements(config) * most_programs(config, 132) <= 35e6


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"LIST": 1024}, "cannot hold 2048 keys"),
        ({"BLOCK": 8192, "num_warps": 16}, "longer than a list"),
        ({"SAMPLE": 8192}, "longer than a list"),
        ({"LIST": 32768}, "16384"),
        ({"num_warps": 4}, "candidates a thread"),
        ({"BLOCK": 3000}, "powers of two"),
        ({"schedule": "hopper"}, "sm_90"),
    ],
)
def test_what_is_not_worth_compiling(changes, words):
    plan, gpu = plan_select(kind_of(2048)), get_target("a100")
    config = default_config(plan, gpu).replace(**{"num_warps": 8, "BLOCK": 2048, **changes})
    assert words in (feasible(plan, config, gpu) or "")


@pytest.mark.parametrize(
    "kind, fields, words",
    [
        (Kind("dense", Heads(1, 1), HeadDim(64, 64)), {}, "select"),
        (Kind("blocks", Heads(1, 1), HeadDim(64, 64), select=Select()), {}, "select"),
        (kind_of(8193), {}, "1 to 8192"),
        (kind_of(0), {}, "1 to 8192"),
        (kind_of(64), {"logits": "float16"}, "float32 and bfloat16"),
        (kind_of(64, first=60, last=5), {}, "top_k = 64"),
        (kind_of(64, first=-1), {}, "top_k = 64"),
    ],
)
def test_what_is_not_generated(kind, fields, words):
    with pytest.raises(NotGeneratedError) as error:
        plan_select(kind, **fields)
    assert words in str(error.value)
