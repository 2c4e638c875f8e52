"""Every example in Triton at its default config, compiled for GPUs that are not here: no spills, and memory fits."""

import re
from pathlib import Path

import pytest

from attngen.config import Config
from attngen.plan import ForwardPlan, plan_forward
from attngen.plan.boxes import is_gluon
from attngen.plan.space import default_config
from attngen.plan.space.common import why_no_kernel
from attngen.problem import Problem
from attngen.source import CompileError, compile_source, render
from attngen.spec import load_spec
from attngen.target import get_target

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
TARGETS = ("h100", "a100", "b200", "mi300x")
SEQ = 4096


def different_kernels() -> dict[str, tuple[ForwardPlan, Config, str]]:
    """Kind and target -> what to compile; kinds whose code is the same but for names are compiled once."""
    units: dict[tuple, tuple[str, ForwardPlan]] = {}
    for path in EXAMPLES:
        for kind in (one for whole in load_spec(path).kinds for one in whole.branches or (whole,)):
            if kind.select is not None:
                continue
            plan = plan_forward(kind)
            for target in TARGETS:
                if why_no_kernel(plan, get_target(target)):
                    continue
                problem = Problem("forward", kind.digest(), 1, SEQ, SEQ)
                config = default_config(plan, get_target(target), problem, able=lambda config: not is_gluon(config))
                code = render(plan, config).text.split('"""', 2)[2]
                if config["schedule"] == "portable":  # there it only divides a head's number
                    code = re.sub(r"GROUP = .*", "", code)
                units.setdefault((target, config, kind.dtype, code), (f"{path.stem}.{kind.name}-{target}", plan))
    return {name: (plan, config, target) for (target, config, *_), (name, plan) in units.items()}


KERNELS = different_kernels()


pytestmark = pytest.mark.usefixtures("fresh_caches")


OFTEN = ("modernbert-base", "gpt-oss-20b", "nsa-27b")  # on every target
SELDOM = ("a100", "b200", "mi300x")  # for the others: what their code differs by is in those


def often() -> list:
    return [
        pytest.param(name, marks=pytest.mark.slow) if target in SELDOM and not name.startswith(OFTEN) else name
        for name, (_, _, target) in KERNELS.items()
    ]


@pytest.mark.parametrize("name", often())
def test_example_at_its_default_config(name):
    plan, config, target_name = KERNELS[name]
    target = get_target(target_name)
    resources = compile_source(plan, config, target)
    assert resources.spills == 0, config.label()
    assert resources.shared <= target.shared_per_block
    assert 0 < resources.registers <= target.registers_per_thread
    assert resources.num_warps == config["num_warps"]


def test_what_cannot_compile_is_one_line():
    plan = plan_forward(load_spec(EXAMPLES[0]).kinds[0])
    config = default_config(plan, get_target("a100")).replace(BLOCK_N=48)  # not a power of two
    with pytest.raises(CompileError) as error:
        compile_source(plan, config, get_target("h100"))
    assert "\n" not in str(error.value)
