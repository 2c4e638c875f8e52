"""The cost model of a backward pass orders what anyone would order."""

import pytest

from attngen.plan.backward import plan_backward
from attngen.plan.boxes import is_gluon
from attngen.plan.space import default_config, enumerate_configs
from attngen.problem import Problem
from attngen.spec import parse_spec
from attngen.target import TARGETS
from attngen.tuner.backward_cost import estimate_backward_ms
from attngen.tuner.bench import Compiled
from attngen.tuner.task import task_for

H100 = TARGETS["h100"]
KERNELS = ("backward_rows", "backward_kv", "backward_q", "backward_elements")


def plan_of(kernel, fields="causal: true", dim=128):
    score = ', score: "s + e[i // 8, j // 8]"' if kernel == "backward_elements" else ""
    kind = parse_spec(f"{{heads: {{query: 16, kv: 8}}, head_dim: {dim}, {fields}{score}}}").kinds[0]
    return next(plan for plan in plan_backward(kind) if plan.kernel == kernel)


def best_ms(plan, target=H100, seq=8192):
    problem = Problem(plan.kernel, plan.kind.digest(), 2, seq, seq)
    configs = enumerate_configs(plan, target, problem)
    return min(estimate_backward_ms(plan, config, problem, target) for config in configs)


@pytest.mark.parametrize("kernel", KERNELS)
def test_more_work_takes_longer(kernel):
    plan = plan_of(kernel)
    assert best_ms(plan, seq=4096) < best_ms(plan) < best_ms(plan, seq=16384)
    assert best_ms(plan) < best_ms(plan, TARGETS["a100"])
    if kernel != "backward_rows":
        assert best_ms(plan_of(kernel, "window: {half: 64}")) < best_ms(plan) / 10


def test_keys_cost_more_than_queries():
    """Four products of a tile beside three."""
    ratio = best_ms(plan_of("backward_kv")) / best_ms(plan_of("backward_q"))
    assert 1.1 < ratio < 1.6


@pytest.mark.parametrize("dim", [64, 128, 256])
@pytest.mark.parametrize("kernel", ["backward_kv", "backward_q"])
def test_what_is_made_for_hopper_is_faster_there(kernel, dim):
    """As was measured: without a GPU, a tuning would choose the portable schedule otherwise."""
    plan = plan_of(kernel, dim=dim)
    problem = Problem(kernel, plan.kind.digest(), 2, 8192, 8192)
    configs = enumerate_configs(plan, H100, problem)
    best = min(configs, key=lambda config: estimate_backward_ms(plan, config, problem, H100))
    assert is_gluon(best)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("target", ["h100", "mi300x"])
def test_every_config_has_a_time_beyond_the_roofline(kernel, target):
    plan, gpu = plan_of(kernel), TARGETS[target]
    task = task_for(plan, Problem(kernel, plan.kind.digest(), 2, 8192, 8192), gpu)
    least = 0.1 if kernel != "backward_rows" else 0.02
    assert task.source == "model" and task.configs
    assert all(least < task.estimate(config, None) < 100 for config in task.configs)


def test_spills_and_lost_occupancy_cost():
    plan = plan_of("backward_kv")
    problem = Problem(plan.kernel, plan.kind.digest(), 2, 8192, 8192)
    config = default_config(plan, TARGETS["a100"], problem)  # of a schedule whose programs share a multiprocessor

    def ms(**changes):
        report = dict(registers=128, spills=0, shared=50000, seconds=1.0)
        return estimate_backward_ms(plan, config, problem, H100, Compiled(**{**report, **changes}))

    assert ms() < ms(spills=64) and ms() < ms(shared=200000) and ms() <= ms(registers=255)
