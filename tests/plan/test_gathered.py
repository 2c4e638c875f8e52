"""The space of attention over listed keys: what is tried where, and why the rest is not."""

import pytest

from attngen.plan import plan_gathered
from attngen.plan.space import default_config, feasible, feasible_anywhere
from attngen.plan.space.gathered import EVERY
from attngen.problem import Problem
from attngen.spec.model import HeadDim, Heads, Kind, Latent
from attngen.target import get_target

H100 = get_target("h100")
TARGETS = ("a100", "h100", "b200", "mi300x", "rtx4090")
MOST_POINTS = 40


def latent(heads=128, rank=512, rope=64, **fields):
    return plan_gathered(
        Kind("kind", Heads(heads, 1), HeadDim(rank + rope, rank), latent=Latent(rank, rope), causal=True, **fields)
    )


def plain(dims, heads, **fields):
    return plan_gathered(Kind("kind", Heads(*heads), HeadDim(*dims), **fields))


PLANS = {
    "128 heads": latent(),
    "16 heads": latent(16),
    "one head": latent(1),
    "another rope": latent(rope=32),
    "another rank": latent(rank=384),
    "groups": plain((128, 128), (32, 8)),
    "float32": plain((256, 256), (8, 8), dtype="float32"),
    "float32 latent": latent(dtype="float32"),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PLANS)
def test_every_plan_has_a_default_in_a_small_space(name, target):
    plan = PLANS[name]
    points = list(feasible_anywhere(plan, get_target(target)))
    assert default_config(plan, get_target(target)) in points
    assert len(points) <= MOST_POINTS


@pytest.mark.parametrize("name", PLANS)
def test_where_hopper_is(name):
    plan = PLANS[name]
    able = name in ("128 heads", "16 heads", "one head")
    assert (default_config(plan, H100)["schedule"] == "hopper") == able
    assert default_config(plan, get_target("b200"))["schedule"] == "portable"


def test_turns_are_drawn_where_there_are_more_than_sms():
    plan = PLANS["128 heads"]
    few, fewer = (Problem("gathered", "", 1, n, 4096) for n in (100, 60))
    many, once = default_config(plan, H100, few), default_config(plan, H100, fewer)
    assert (many["TURNS"], many["TICKETS"]) == (EVERY, True)
    assert (once["TURNS"], once["TICKETS"]) == (1, False)
    assert feasible(plan, once, H100, few) is None
    assert "one turn at most" in str(feasible(plan, many, H100, fewer))
    assert "draws none" in str(feasible(plan, many.replace(TURNS=1), H100, few))


def test_rows_beyond_the_heads_are_not_tried():
    config = default_config(PLANS["16 heads"], get_target("a100"))
    assert config["BLOCK_H"] == 16
    assert "16 heads" in str(feasible(PLANS["16 heads"], config.replace(BLOCK_H=64), get_target("a100")))
