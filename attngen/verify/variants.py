"""The configs that a kind is verified with: the one in use, and for each other structure of the code the nearest."""

from __future__ import annotations

import math

from attngen.config import Config
from attngen.plan import Plan
from attngen.plan.boxes import is_gluon
from attngen.plan.forward import ForwardPlan
from attngen.plan.hopper import HopperShape
from attngen.plan.space import feasible_anywhere
from attngen.target import Target

# Of kernels beside the forward one, the Gluon schedule's tunables that decide which code is generated.
CHOICES = {
    "backward_kv": ("AHEAD", "BLOCK_N"),  # warpgroups that compute have rows of their own
    "backward_fused": ("num_stages", "BLOCKS_TOGETHER"),
    "backward_q": ("AHEAD", "BLOCK_M"),
    "gathered": ("TURNS", "TICKETS", "PREFETCH", "PROXY_FENCE"),
    "indexer": ("WARPGROUPS", "MIXED", "BLOCK_Q"),
    "quantise": (),
    "select": ("num_warps",),
}


def structure(plan: Plan, config: Config) -> tuple:
    """What decides which code is generated, tile sizes and warps apart."""
    if not isinstance(plan, ForwardPlan):
        choices = CHOICES[plan.kernel] if is_gluon(config) else ("loads", "FLATTEN")
        return config.get("schedule"), *(config.get(name) for name in choices)
    packed = int(config.get("PACK_HEADS") or 1) > 1
    if is_gluon(config):
        shape = HopperShape.of(plan, config)
        in_order = config["schedule"] == "hopper" and shape.in_order
        return config["schedule"], shape.consumers, packed, in_order, shape.ping_pong, config.get("ACROSS")
    return config.get("schedule"), config.get("loads"), packed, config.get("SPLIT_MASKS")


def variants(plan: Plan, target: Target, in_use: Config, *, interpreted: bool = False) -> list[Config]:
    """``in_use``, then one config of every other feasible structure, the most like it.

    Of a Gluon schedule, whose choices are many and meddle little with each other, every choice is made once. The
    interpreter takes no Gluon, and gets the smallest tiles.
    """
    nearest: dict[tuple, Config] = {}
    for config in feasible_anywhere(plan, target):
        if interpreted and is_gluon(config):
            continue
        held = nearest.get(structure(plan, config))
        rank = _tile if interpreted else (lambda c: _difference(c, in_use))
        if held is None or rank(config) < rank(held):
            nearest[structure(plan, config)] = config
    nearest.pop(structure(plan, in_use), None)
    return _every_choice(plan, [in_use, *(nearest[key] for key in sorted(nearest, key=str))])


def _every_choice(plan: Plan, configs: list[Config]) -> list[Config]:
    """Without those Gluon configs whose every choice is also an earlier one's; first come those most like the first."""
    kept = [config for config in configs if not is_gluon(config)]
    for schedule in {config["schedule"]: None for config in configs if is_gluon(config)}:
        own = [config for config in configs if config["schedule"] == schedule]
        first, seen = structure(plan, own[0]), set[tuple]()
        for config in sorted(own, key=lambda c: sum(a != b for a, b in zip(structure(plan, c), first, strict=True))):
            choices = set(enumerate(structure(plan, config)))
            if not choices <= seen:
                kept.append(config)
                seen |= choices
    return sorted(kept, key=configs.index)


def _difference(config: Config, other: Config) -> int:
    return sum(config.get(name) != other.get(name) for name in {*config, *other})


def _tile(config: Config) -> int:
    sizes = (int(size or 0) for name, size in config.as_dict().items() if name.startswith("BLOCK"))
    return math.prod(sizes) + int(config.get("num_stages") or 0)
