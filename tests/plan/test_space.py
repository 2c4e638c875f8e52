"""The search space: defaults lie in it and fit, whatever the kind, the target and the sizes."""

from collections import Counter
from pathlib import Path

import pytest

from attngen.config import Config
from attngen.plan import plan_forward
from attngen.plan.hopper import NAMED_BARRIERS, HopperShape
from attngen.plan.space import (
    default_config,
    enumerate_configs,
    feasible,
    forward_space,
    why_not_hopper,
    window_tiles,
)
from attngen.plan.space.common import why_no_kernel
from attngen.problem import Problem
from attngen.spec import load_spec
from attngen.spec.expression import Expression
from attngen.spec.model import HeadDim, Heads, Kind, Window
from attngen.target import TARGETS, get_target

H200 = get_target("h200")
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
SIZES = [None, (1, 1, 8192), (4, 16, 16), (8, 100, 100), (1, 4096, 4096), (1, 131072, 131072)]


def kinds() -> list[Kind]:
    ones = [one for path in EXAMPLES for kind in load_spec(path).kinds for one in kind.branches or (kind,)]
    examples = [kind for kind in ones if kind.select is None]
    window = Window(64, 64)
    shapes = [((16, 16), window), ((24, 40), None), ((96, 96), window), ((192, 128), None), ((256, 256), window)]
    odd = [
        Kind("odd", Heads(6, 2), HeadDim(*dims), dtype, causal=True, window=shape and Window(64, 0))
        for dims, shape in shapes
        for dtype in ("float16", "float32")
    ]
    return examples + odd


KINDS = {kind.digest(): kind for kind in kinds()}


OFTEN = ("h100", "mi300x")  # what a100, b200 and h200 differ by is in those


@pytest.mark.parametrize("target", [t if t in OFTEN else pytest.param(t, marks=pytest.mark.slow) for t in TARGETS])
def test_defaults_lie_in_the_space_and_fit(target):
    gpu = get_target(target)
    for kind in KINDS.values():
        plan = plan_forward(kind)
        if why_no_kernel(plan, gpu):
            continue
        choices = {parameter.name: parameter.choices for parameter in forward_space(plan, gpu)}
        for sizes in SIZES:
            problem = None if sizes is None else Problem("forward", kind.digest(), *sizes)
            config = default_config(plan, gpu, problem)
            where = f"{kind.name} {kind.head_dim} {kind.dtype} on {target} at {sizes}: {config.label()}"
            assert feasible(plan, config, gpu, problem) is None, where
            assert set(config) <= set(choices), where
            assert all(config.get(name) in values for name, values in choices.items()), where
            if problem is not None:
                assert config in enumerate_configs(plan, gpu, problem), where


@pytest.mark.parametrize("target", ["h100", "mi300x"])
def test_every_enumerated_config_is_feasible_and_different(target):
    for name in ("modernbert-base", "gemma-2-9b"):
        kind = load_spec(next(path for path in EXAMPLES if path.stem == name)).kinds[-1]
        plan, problem = plan_forward(kind), Problem("forward", kind.digest(), 1, 2048, 2048)
        configs = enumerate_configs(plan, get_target(target), problem)
        assert len(set(configs)) == len(configs) > 3
        assert all(feasible(plan, config, get_target(target), problem) is None for config in configs)
        assert default_config(plan, get_target(target), problem) in configs


@pytest.mark.parametrize(
    ("fields", "block_m", "block_n", "tiles"),
    [
        ({"window": Window(64, 64)}, 64, 64, 3),
        ({"causal": True, "window": Window(127, 0)}, 64, 64, 3),
        ({"causal": True, "window": Window(127, 0)}, 64, 128, 2),
        ({"window": Window(0, 0)}, 16, 16, 1),
        ({"mask": Expression.parse("i + 50 < j < i - 3", "mask")}, 16, 16, 1),
    ],
)
def test_resident_tiles_hold_the_window_of_a_tile(fields, block_m, block_n, tiles):
    plan = plan_forward(Kind("kind", Heads(1, 1), HeadDim(64, 64), **fields))
    assert window_tiles(plan, block_m, block_n) == tiles


def config_count(plan, target, *sizes):
    configs = enumerate_configs(plan, target, Problem("forward", plan.kind.digest(), *sizes))
    return Counter(config["schedule"] for config in configs)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: f"{kind.name}-{kind.digest()[:4]}")
def test_the_space_of_a_kind_is_tuned_in_a_minute(kind):
    plan = plan_forward(kind)
    count = config_count(plan, H200, 1, 8192, 8192)
    assert sum(count.values()) <= 250
    assert bool(count["hopper"]) == (why_not_hopper(plan, H200) is None)
    assert not count["hopper_window"] or plan.span is not None


def test_each_config_has_the_tunables_of_its_schedule_alone():
    plan = plan_forward(Kind("kind", Heads(8, 2), HeadDim(64, 64), causal=True, window=Window(64, 0)))
    parameters = {parameter.name: parameter.choices for parameter in forward_space(plan, H200)}
    names = {}
    for config in enumerate_configs(plan, H200, Problem("forward", plan.kind.digest(), 1, 4096, 4096)):
        names.setdefault(config["schedule"], set()).add(frozenset(config))
    assert {len(sets) for sets in names.values()} == {1}
    hopper, portable = (next(iter(names[schedule])) for schedule in ("hopper", "portable"))
    assert {"PING_PONG"} <= hopper - portable
    assert {"loads", "SPLIT_MASKS", "maxnreg"} == portable - hopper
    assert all((None in choices) or name in hopper & portable for name, choices in parameters.items())


@pytest.mark.parametrize(
    ("target", "fields", "word"),
    [
        ("h100", {}, None),
        ("a100", {}, "sm_80"),
        ("b200", {}, "sm_100"),
        ("mi300x", {}, "gfx942"),
        ("h200", {"dtype": "float32"}, "float32"),
        ("h200", {"head_dim": HeadDim(60, 64)}, "60 and 64"),
    ],
)
def test_why_not_hopper(target, fields, word):
    fields = {"head_dim": HeadDim(64, 64), **fields}
    plan = plan_forward(Kind("kind", Heads(4, 4), **fields))
    why, gpu = why_not_hopper(plan, get_target(target)), get_target(target)
    assert why is None if word is None else word in why
    assert bool(config_count(plan, gpu, 1, 8192, 8192)["hopper"]) == (why is None)
    assert (default_config(plan, gpu)["schedule"] == "hopper") == (why is None)


HOPPER_DEFAULTS = [
    # head dims, causal, queries, BLOCK_M x BLOCK_N, heads together: 32 MiB of keys and values, four heads to one
    ((64, 64), False, 8192, (192, 128), 1),
    ((64, 64), False, 2048, (192, 128), 1),
    ((64, 64), False, 512, (128, 128), 1),
    ((64, 64), True, 4096, (128, 128), 32),
    ((48, 64), True, 8192, (192, 128), 32),
    ((128, 128), True, 2048, (128, 128), 32),
    ((128, 128), True, 65536, (128, 128), 4),
    ((128, 128), False, 2048, (128, 128), 1),
    ((128, 128), False, 8192, (128, 128), 1),
    ((192, 128), True, 8192, (128, 128), 16),
    ((256, 256), False, 8192, (128, 64), 1),
    ((256, 128), False, 8192, (128, 64), 1),
]


@pytest.mark.parametrize(("dims", "causal", "queries", "tile", "together"), HOPPER_DEFAULTS)
def test_defaults_on_hopper(dims, causal, queries, tile, together):
    plan = plan_forward(Kind("kind", Heads(8, 2), HeadDim(*dims), causal=causal))
    config = default_config(plan, H200, Problem("forward", plan.kind.digest(), 1, queries, queries))
    assert (config["schedule"], config["BLOCK_M"], config["BLOCK_N"]) == ("hopper", *tile)
    assert config["PING_PONG"] == (tile[1] == 128)
    assert config["HEADS_TOGETHER"] == together


def test_three_warpgroups_are_no_default_where_scores_need_registers():
    score = Expression.parse("s + bias[h, i - j]", "score")
    for fields in ({"score": score}, {"alibi": True}, {"softcap": 30.0}):
        plan = plan_forward(Kind("kind", Heads(8, 2), HeadDim(64, 64), **fields))
        config = default_config(plan, H200, Problem("forward", plan.kind.digest(), 1, 8192, 8192))
        assert (config["schedule"], config["BLOCK_M"], config["BLOCK_N"]) == ("hopper", 128, 128)


@pytest.mark.parametrize(
    ("dims", "queries", "fields", "keys"),
    [
        ((128, 128), 8192, {"causal": True}, 256),
        ((128, 128), 4096, {"causal": True}, 128),
        ((128, 128), 8192, {"causal": True, "softcap": 30.0}, 128),
        ((80, 48), 4096, {}, 256),
        ((80, 48), 1024, {}, 128),
        ((64, 64), 8192, {"causal": True}, 128),
        ((256, 256), 8192, {"causal": True}, 64),
    ],
)
def test_defaults_of_8_bits_on_hopper(dims, queries, fields, keys):
    """Tiles of 256 keys are done one after the other, where they are many and scores are plain."""
    plan = plan_forward(Kind("kind", Heads(8, 2), HeadDim(*dims), dtype="float8_e4m3", **fields))
    config = default_config(plan, H200, Problem("forward", plan.kind.digest(), 1, queries, queries))
    assert (config["schedule"], config["BLOCK_N"]) == ("hopper", keys)
    assert HopperShape.of(plan, config).in_order == (keys == 256)


def test_8_bits_in_a_window_keep_to_small_tiles():
    plan = plan_forward(Kind("kind", Heads(8, 2), HeadDim(128, 128), dtype="float8_e4m3", window=Window(1023, 0)))
    config = default_config(plan, H200)
    assert feasible(plan, config, H200) is None
    assert "edges of a window" in str(feasible(plan, config.replace(BLOCK_N=256, num_stages=2), H200))


@pytest.mark.parametrize(
    ("heads", "dim", "tile", "pack"),
    [((32, 8), 128, (192, 64), 4), ((8, 4), 256, (128, 64), 2), ((8, 8), 128, (128, 128), 1)],
)
def test_heads_of_a_group_share_a_tile_in_wide_windows(heads, dim, tile, pack):
    plan = plan_forward(Kind("kind", Heads(*heads), HeadDim(dim, dim), causal=True, window=Window(1023, 0)))
    config = default_config(plan, H200, Problem("forward", plan.kind.digest(), 1, 8192, 8192))
    assert (config["BLOCK_M"], config["BLOCK_N"], config["PACK_HEADS"]) == (*tile, pack)


@pytest.mark.parametrize(
    ("window", "dim", "schedule"),
    [
        (Window(64, 64), 64, "hopper_window"),
        (Window(127, 0), 128, "hopper_window"),
        (Window(1023, 0), 64, "hopper"),
        (Window(511, 0), 256, "hopper"),
    ],
)
def test_a_window_whose_keys_fit_is_resident(window, dim, schedule):
    plan = plan_forward(Kind("kind", Heads(8, 2), HeadDim(dim, dim), window=window))
    config = default_config(plan, H200, Problem("forward", plan.kind.digest(), 1, 8192, 8192))
    assert config["schedule"] == schedule
    assert default_config(plan, get_target("a100"))["schedule"] == "portable"


def test_few_queries_keep_to_portable_schedules():
    dense = plan_forward(Kind("kind", Heads(32, 8), HeadDim(128, 128), causal=True))
    window = plan_forward(Kind("kind", Heads(8, 8), HeadDim(64, 64), window=Window(64, 64)))
    for plan, queries in ((dense, 1), (dense, 16), (window, 16)):
        config = default_config(plan, H200, Problem("forward", plan.kind.digest(), 1, queries, 8192))
        assert config["schedule"] == "portable", (plan.kind, queries)


def test_a_default_for_tensors_without_descriptors():
    for kind in KINDS.values():
        plan = plan_forward(kind)
        config = default_config(plan, H200, able=lambda config: config.get("loads") == "pointer")
        assert config["loads"] == "pointer" and feasible(plan, config, H200) is None


@pytest.mark.parametrize("dims", [(16, 16), (64, 64), (96, 96), (128, 128), (192, 128), (256, 256)])
def test_hopper_configs_fit_what_a_program_has(dims):
    """Registers by another count: accumulators, scores, weights at half a register, and forty for the rest."""
    plan = plan_forward(Kind("kind", Heads(8, 1), HeadDim(*dims), causal=True))
    problem = Problem("forward", plan.kind.digest(), 1, 8192, 8192)
    for config in enumerate_configs(plan, H200, problem):
        if config["schedule"] != "hopper":
            continue
        shape = HopperShape.of(plan, config)
        width = sum(chunk.width for chunk in plan.v_chunks)
        assert (width + 1.5 * shape.block_n) / 2 + 40 <= 1.05 * shape.consumer_registers, config.label()
        assert shape.shared_bytes(plan) <= H200.shared_per_block
        assert shape.named_barriers <= NAMED_BARRIERS
        assert 64 % shape.pack == 0 and plan.kind.heads.group % shape.pack == 0


def test_a_config_of_another_generator_is_no_crash():
    """Databases outlive schedules and tunables."""
    plan = plan_forward(Kind("kind", Heads(8, 2), HeadDim(64, 64), causal=True))
    for config in (default_config(plan, H200), default_config(plan, get_target("a100"))):
        assert "no schedule 'mosaic'" in str(feasible(plan, config.replace(schedule="mosaic"), H200))
        for name in set(config) - {"schedule"}:
            rest = {key: value for key, value in config.items() if key != name}
            assert feasible(plan, Config(**rest), H200) == f"it has no {name}"
