"""The configs that a kind is verified with: the one in use, and for each other structure of the code the nearest."""

from __future__ import annotations

from itertools import product

from attngen.config import Config
from attngen.plan.forward import ForwardPlan
from attngen.plan.space import feasible, forward_space
from attngen.target import Target


def structure(config: Config) -> tuple:
    """What decides which code is generated, tile sizes and warps apart."""
    packed = int(config.get("PACK_HEADS") or 1) > 1
    return config.get("schedule"), config.get("loads"), packed, config.get("SPLIT_MASKS")


def variants(plan: ForwardPlan, target: Target, in_use: Config, *, small: bool = False) -> list[Config]:
    """``in_use``, then one config of every other feasible structure: the most like it, or the one of smallest tiles."""
    nearest: dict[tuple, Config] = {}
    for config in _feasible(plan, target):
        held = nearest.get(structure(config))
        rank = _tile if small else (lambda c: _difference(c, in_use))
        if held is None or rank(config) < rank(held):
            nearest[structure(config)] = config
    nearest.pop(structure(in_use), None)
    return [in_use, *(nearest[key] for key in sorted(nearest, key=str))]


def _feasible(plan: ForwardPlan, target: Target) -> list[Config]:
    """Every point of the space that fits, whatever the sizes of a call."""
    space = forward_space(plan, target)
    names = [parameter.name for parameter in space]
    points = (dict(zip(names, values, strict=True)) for values in product(*(p.choices for p in space)))
    return [config for point in points if feasible(plan, config := Config(**point), target) is None]


def _difference(config: Config, other: Config) -> int:
    return sum(config.get(name) != other.get(name) for name in {*config, *other})


def _tile(config: Config) -> int:
    return int(config["BLOCK_M"] or 0) * int(config["BLOCK_N"] or 0) + int(config["num_stages"] or 0)
