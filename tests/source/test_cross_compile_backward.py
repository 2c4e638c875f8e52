"""Kernels of the backward pass at their default configs, compiled for GPUs that are not here: few spills, and memory
fits."""

from pathlib import Path

import pytest

from attngen.plan.backward import plan_backward
from attngen.plan.boxes import is_gluon
from attngen.plan.space import default_config
from attngen.problem import Problem
from attngen.source import compile_source
from attngen.spec import load_spec
from attngen.target import get_target
from attngen.tuner.bench import Compiled
from attngen.tuner.verdict import judge

EXAMPLES = Path(__file__).parents[2] / "examples"
SEQ = 4096
KINDS = ("modernbert-base.local", "gpt-oss-20b.local", "gemma-3-4b.local", "llama-3.1-8b.attention", "mpt-7b.attention")
TARGETS = ("h100", "a100", "b200", "mi300x")
OFTEN = (("modernbert-base.local", "backward_kv", "h100"), ("modernbert-base.local", "backward_q", "mi300x"))

pytestmark = pytest.mark.usefixtures("fresh_caches")


def cases() -> list:
    every = [(kind, kernel, target) for kind in KINDS for kernel in ("backward_kv", "backward_q") for target in TARGETS]
    return [case if case in OFTEN else pytest.param(*case, marks=pytest.mark.slow) for case in every]


@pytest.mark.parametrize(("name", "kernel", "target"), cases())
def test_default_config(name, kernel, target):
    example, kind_name = name.rsplit(".", 1)
    kind, gpu = load_spec(EXAMPLES / f"{example}.yaml").kind(kind_name), get_target(target)
    plan = next(plan for plan in plan_backward(kind) if plan.kernel == kernel)
    config = default_config(plan, gpu, Problem(kernel, kind.digest(), 1, SEQ, SEQ))
    resources = compile_source(plan, config, gpu)
    assert resources.registers > 0
    assert is_gluon(config) or resources.num_warps == config["num_warps"]  # Gluon's roles have warps besides
    needs = Compiled(resources.registers, resources.spills, resources.shared, resources.seconds)
    assert judge(config, needs, gpu, kernel) == ("ok", ""), config.label()
