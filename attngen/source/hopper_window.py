"""The named values that the Hopper window template is filled with: resident tiles, their masks, turns and buffers."""

from __future__ import annotations

import re
from typing import Any

from attngen.config import Config
from attngen.plan.forward import ForwardPlan
from attngen.plan.hopper import ROWS
from attngen.plan.hopper_window import MOST_REGISTERS, HopperWindowShape, static_edges
from attngen.source.elementwise import Assignment
from attngen.source.hopper import arguments_of_callers, gluon, tensor_names
from attngen.source.roles import Role


def hopper_window_context(plan: ForwardPlan, config: Config, common: dict[str, Any]) -> dict[str, Any]:
    """``common``, the context of every forward template, and what the Hopper window template needs besides."""
    shape = HopperWindowShape.of(plan, config)
    names = tensor_names(plan)

    exact = static_edges(plan)
    bounds = [] if exact else [Assignment(b.name, gluon(b.value), b.comment) for b in common["row_bounds"]]
    score_lines = [gluon(line) for line in common["score_lines"]]
    visible_lines = [] if exact else [gluon(line) for line in common["visible_lines"]]
    needed = "\n".join(score_lines + visible_lines)
    tile_names = [name for name in common["tile_names"] if re.search(rf"\b{name}\b", needed)]
    row_names = tile_names + [b.value for b in bounds]
    symbols = {"i_first"} | {"i" for text in row_names if re.search(r"\bi\b", text)}
    arguments = arguments_of_callers(plan, common)
    attend = names["q_descs"] + names["out_descs"] + names["q_buffers"] + names["out_buffers"]
    attend = attend + names["k_buffers"] + names["v_buffers"] + ["q_full", "k_full", "v_full"]
    attend = [*attend, "lse_ptr", *arguments, "heads", "seq_q", "batch", "kv_head", "tile", "first"]
    attend += ["key_first", "key_end"] + (["offset"] if "i" in symbols else [])
    return {
        "product_depth": 16,
        **common,
        **names,
        "shape": shape,
        "block_n": shape.block_n,
        "exact": exact,
        "tiles": shape.tiles,
        "scores": [f"s_{t}" for t in range(len(shape.tiles))],
        "weights": [f"p_{t}" for t in range(len(shape.tiles))],
        "scored": bool(needed),
        "needs_j": bool(re.search(r"\bj\b", needed)),
        "constants": common["constants"] + _constants(plan, config, shape, exact),
        "row_bounds": bounds,
        "score_lines": score_lines,
        "visible_lines": visible_lines,
        "tile_names": tile_names,
        "symbols": symbols,
        "attend_names": attend,
        "partitions": [Role("attend", [*attend, str(n)], registers="REGISTERS") for n in range(shape.warpgroups)],
        "at": _at,
    }


def _at(base: str, sign: str, tile: int) -> str:
    """``base`` moved by so many tiles."""
    return base if tile == 0 else f"{base} {sign} {f'{tile} * ' if tile > 1 else ''}BLOCK_N"


def _constants(plan: ForwardPlan, config: Config, shape: HopperWindowShape, exact: bool) -> list[Assignment]:
    assert plan.span is not None
    left, right = plan.span
    out = [
        Assignment("ROWS", str(ROWS), "rows of a warpgroup: QUERIES queries of PACK_HEADS heads"),
        Assignment("QUERIES", str(shape.queries)),
        Assignment("BLOCK_Q", str(shape.block_q), "queries of a program"),
        Assignment("BLOCK_N", str(shape.block_n), "keys of a tile"),
        Assignment("RESIDENT", str(shape.resident), "tiles of keys and of values in shared memory"),
        Assignment("TILES", str(len(shape.tiles)), "of them, those that a warpgroup sees"),
        Assignment("LEAD", str(shape.lead), "keys before the first query's position, from the first resident key on"),
    ]
    if exact:
        out.append(Assignment("SPARE", str(shape.lead - left), "of them, those that no query sees"))
        out.append(Assignment("WINDOW", str(left + right + 1), "keys that a query sees"))
    if shape.warpgroups > 1:
        registers = str(config.get("maxnreg") or MOST_REGISTERS)
        out.append(Assignment("REGISTERS", registers, "of a thread"))
    out += [
        Assignment("WARPGROUPS", str(shape.warpgroups)),
        Assignment("TURNS", str(shape.turns), "heads that a warpgroup goes over, PACK_HEADS at a time"),
        Assignment("BUFFERS", str(shape.buffers), "of a warpgroup, for queries and then their results"),
    ]
    return out
