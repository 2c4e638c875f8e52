"""The search space: defaults lie in it and fit, whatever the kind, the target and the sizes."""

from pathlib import Path

import pytest

from attngen.plan import plan_forward
from attngen.plan.space import default_config, enumerate_configs, feasible, forward_space, window_tiles
from attngen.problem import Problem
from attngen.spec import load_spec
from attngen.spec.expression import Expression
from attngen.spec.model import HeadDim, Heads, Kind, Window
from attngen.target import TARGETS, get_target

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
SIZES = [None, (1, 1, 8192), (4, 16, 16), (8, 100, 100), (1, 4096, 4096), (1, 131072, 131072)]


def kinds() -> list[Kind]:
    examples = [kind for path in EXAMPLES for kind in load_spec(path).kinds if kind.select is None]
    window = Window(64, 64)
    shapes = [((16, 16), window), ((24, 40), None), ((96, 96), window), ((192, 128), None), ((256, 256), window)]
    odd = [
        Kind("odd", Heads(6, 2), HeadDim(*dims), dtype, causal=True, window=shape and Window(64, 0))
        for dims, shape in shapes
        for dtype in ("float16", "float32")
    ]
    return examples + odd


KINDS = {kind.digest(): kind for kind in kinds()}


@pytest.mark.parametrize("target", TARGETS)
def test_defaults_lie_in_the_space_and_fit(target):
    gpu = get_target(target)
    for kind in KINDS.values():
        plan = plan_forward(kind)
        choices = {parameter.name: parameter.choices for parameter in forward_space(plan, gpu)}
        for sizes in SIZES:
            problem = None if sizes is None else Problem("forward", kind.digest(), *sizes)
            config = default_config(plan, gpu, problem)
            where = f"{kind.name} {kind.head_dim} {kind.dtype} on {target} at {sizes}: {config.label()}"
            assert feasible(plan, config, gpu, problem) is None, where
            assert set(config) == set(choices), where
            assert all(value in choices[name] for name, value in config.items()), where


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
