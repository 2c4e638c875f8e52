"""The cost model orders what anyone would order, and stays within reach of what was measured."""

from __future__ import annotations

import pytest

from attngen.config import Config
from attngen.plan import plan_forward
from attngen.plan.space import default_config, enumerate_configs
from attngen.problem import Problem
from attngen.spec import load_spec
from attngen.spec.model import HeadDim, Heads, Kind, Window
from attngen.target import TARGETS
from attngen.tuner import estimate_ms
from attngen.tuner.bench import Compiled
from attngen.tuner.seeds import SEEDS, promising
from attngen.tuner.task import task_for
from attngen.tuner.timing import summary
from attngen.tuner.verdict import judge

H100 = TARGETS["h100"]
SPEC = load_spec("examples/modernbert-base.yaml")


def case(kind="global", seq=8192, batch=8):
    plan = plan_forward(SPEC.kind(kind))
    problem = Problem("forward", plan.kind.digest(), batch, seq, seq)
    return plan, default_config(plan, H100, problem), problem


def default_ms(target=H100, **options):
    plan, config, problem = case(**options)
    return estimate_ms(plan, config, problem, target)


def test_more_work_takes_longer():
    assert default_ms(seq=4096) < default_ms() < default_ms(seq=16384)
    assert default_ms(kind="local") < default_ms() / 10
    assert default_ms(seq=128, batch=1) < 0.05


@pytest.mark.parametrize("kind", ["global", "local"])
def test_a_faster_gpu_is_faster(kind):
    assert default_ms(TARGETS["h200"], kind=kind) <= default_ms(kind=kind) < default_ms(TARGETS["a100"], kind=kind)


def test_every_config_has_a_finite_time():
    plan, _, problem = case(kind="local")
    times = [estimate_ms(plan, config, problem, H100) for config in enumerate_configs(plan, H100, problem)]
    assert times and all(0.02 < ms < 10 for ms in times)


def test_spills_and_lost_occupancy_cost():
    plan, _, problem = case()
    config = default_config(plan, H100, problem, able=lambda config: config["schedule"] == "portable")

    def ms(**changes):
        report = dict(registers=128, spills=0, shared=50000, seconds=1.0)
        return estimate_ms(plan, config, problem, H100, Compiled(**{**report, **changes}))

    assert ms() < ms(spills=64) and ms() < ms(shared=200000) and ms() <= ms(registers=255)


def test_summary_of_times():
    timing = summary([3.0, 1.0, 2.0, 10.0, 4.0])
    assert (timing.median_ms, timing.samples) == (3.0, 5)
    assert timing.spread_ms == pytest.approx(5.2 - 1.8)


def hopper_ms(seq=16384, batch=1, **fields):
    """The estimate of every config, and the plan's problem."""
    plan = plan_forward(Kind("kind", Heads(16, 16), **{"head_dim": HeadDim(128, 128), **fields}))
    problem = Problem("forward", plan.kind.digest(), batch, seq, seq)
    return {config: estimate_ms(plan, config, problem, H100) for config in enumerate_configs(plan, H100, problem)}


@pytest.mark.parametrize("dim", [64, 128, 256])
@pytest.mark.parametrize("causal", [True, False])
def test_dense_work_goes_to_the_schedule_made_for_the_chip(dim, causal):
    times = hopper_ms(head_dim=HeadDim(dim, dim), causal=causal)
    best = min(times, key=times.get)
    portable = min(ms for config, ms in times.items() if config["schedule"] == "portable")
    assert best["schedule"] == "hopper"
    assert times[best] < 0.95 * portable


def test_a_search_begins_with_configs_of_every_schedule():
    plan = plan_forward(Kind("kind", Heads(8, 2), HeadDim(64, 64), causal=True, window=Window(127, 0)))
    problem = Problem("forward", plan.kind.digest(), 1, 8192, 8192)
    favourites = promising(task_for(plan, problem, H100))
    assert {config["schedule"] for config in favourites[:4]} == {"portable", "window", "hopper", "hopper_window"}
    assert len(set(favourites)) == len(favourites) == SEEDS


@pytest.mark.parametrize(
    ("schedule", "spills", "status"),
    [("hopper", 512, "ok"), ("hopper", 700, "spilled"), ("portable", 512, "ok"), ("portable", 513, "spilled")],
)
def test_hopper_kernels_may_spill_outside_their_loops(schedule, spills, status):
    config = Config(schedule=schedule, num_warps=4)
    assert judge(config, Compiled(registers=168, spills=spills, shared=0, seconds=1.0), H100)[0] == status
