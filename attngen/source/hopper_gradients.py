"""The named values that the templates of Hopper's backward kernels are filled with: roles, and what each must know."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from typing import Any

from attngen.config import Config
from attngen.plan.backward import BackwardPlan
from attngen.plan.forward import plan_forward
from attngen.plan.hopper import PRODUCER_REGISTERS, ROWS
from attngen.plan.hopper_gradients import HopperGradientShape
from attngen.source.context import loop_of
from attngen.source.elementwise import Assignment
from attngen.source.hopper import FIRST_BARRIER, PACKED, arguments_of_callers, gluon, relative
from attngen.source.roles import Role, one_loads
from attngen.source.text import LINE_LENGTH

POSITIONS = ("offset", "key_first", "key_end", "prefix")  # of a sequence, as ``locate`` finds them
OF_DOCUMENT = ("seq_q", "seq_k", "first_query", "first_key")  # its sizes, and where it begins
SYMBOLS = ("query_first", "i_first", "i_last")  # that bounds of loops may do without


def hopper_gradients_context(plan: BackwardPlan, config: Config, common: dict[str, Any]) -> dict[str, Any]:
    """``common``, the context of every backward template, and what those of Hopper need besides."""
    shape = HopperGradientShape.of(plan, config)
    by_key = plan.by_key
    bounds = [Assignment(b.name, gluon(b.value), b.comment) for b in common["row_bounds"]]
    columns = ("i", "position") if by_key else ("j", "key")
    visible = [_relative(gluon(line), *columns) for line in common["visible_lines"]]
    scores, products = _lines(common["score_lines"]), _lines(common["gradient_lines"])
    loops = [_in_gluon(loop) for loop in common["loops"]]
    arguments = arguments_of_callers(plan, common)

    range_texts = [loop[edge] for loop in loops for edge in ("outer_first", "outer_end")]
    skips = not shape.ahead if by_key else len(loops) == 1
    edges = _edges(loops, skips=skips and not shape.window)
    if shape.fused:
        edges = [(name, _where_all_are_valid(value) if name == "inner_end_0" else value) for name, value in edges]
    ends = ["offset", "key_first", "key_end"] if by_key else ["offset"]  # of a block's positions
    range_names = _used([*range_texts, *ends], [*POSITIONS])
    edge_names = _used([*(text for _, text in edges), *ends], [*POSITIONS])
    values = ["h", "batch", "slope", *arguments]
    hidden_texts = [b.value for b in bounds] + visible
    aliases = {"query_first": ["offset"], "query_end": ["offset"]} if by_key else {}
    hidden_names = _used(hidden_texts, [*POSITIONS, *values], aliases)
    hidden_names += _used(hidden_texts, ["seq_q"], {"query_end": ["seq_q"]} if by_key else {})
    hidden_names += ["offset"] if not by_key and "offset" not in hidden_names and _has(hidden_texts, "i") else []
    scored_texts = scores + products

    needed = {"offset", *range_names, *edge_names, *hidden_names}
    needed |= {"key_first", "key_end"} if by_key else {"key_end"}  # to clear what is no valid key
    first = "block_key" if by_key else "block_query"
    located = [
        "batch",
        "kv_head" if by_key or shape.window else "head",
        first,
        *(name for name in POSITIONS if name in needed),
        *(OF_DOCUMENT if plan.kind.documents else []),
    ]
    locate = ["heads", "heads_together", *(PACKED if plan.kind.documents else ["seq_q", "seq_k"])]
    locate += ["offsets_ptr", "key_range_ptr"]
    locate += ["prefix_ptr"] if "prefix" in common["symbols"] else []
    ranges = [f"{name}_{n}" for n in range(len(loops)) for name in ("first", "tiles")]

    buffers = ["q_tiles", "dout_tiles", "k_tiles", "v_tiles"]
    rows = ["log_sum_rows", "delta_rows"] if by_key else []
    full = ["q_full", "dout_full", "k_full", "v_full"] if by_key else ["q_full", "k_full", "v_full"]
    taken = ["row_log_sum_ptr", "row_delta_ptr"]
    produce = ["q_desc", "dout_desc", "k_desc", "v_desc", *(taken if by_key else []), *buffers, *rows, *full, *locate]
    callers = [name for name in arguments if name not in locate]

    def written(name: str) -> list[str]:
        """What a result is written by; a part of a tile of a packed document goes without the copy engine."""
        return [f"{name}_desc", *([f"{name}_ptr", f"stride_{name}h", f"stride_{name}s"] if plan.kind.documents else [])]

    results = written("dk") + written("dv") if by_key else [*written("dq"), *taken]
    consume = [*results, *buffers, *rows, *full, *locate, *callers]
    extra: dict[str, Any] = {}
    partitions: list[Role] = []
    if shape.window:
        extra = {"load_names": ["q_desc", "dout_desc", *taken, *buffers[:2], *rows, "full"]}
    elif shape.wide:
        passed = ["w_tiles", "w_full"]
        make_dv = [*written("dv"), *buffers, *rows[:1], *passed, *full, *locate, *callers]
        make_dk = [*written("dk"), *buffers, *rows[1:], *passed, *full, *locate]
        extra = {"make_dv_names": make_dv, "make_dk_names": make_dk}
        partitions = [Role("make_dv", make_dv), Role("make_dk", make_dk)]
        partitions.append(Role("produce", produce, 1, "PRODUCER_REGISTERS"))
    elif shape.fused:
        seen = _in_gluon(loop_of(plan_forward(plan.kind).loops[0]))
        seen_first, seen_end = seen_bounds = [seen["outer_first"], seen["outer_end"]]
        added = ["dq_ptr", "stride_dqb", "stride_dqh", "stride_dqs", "sums_ptr", "ds_tiles", "turn"]
        consume = [*results, *added, *buffers, *rows, *full, *locate, *callers]
        awaiting, passing = ["turn", "turns_ptr", *locate], ["turns_ptr", *locate]
        extra = {
            "part_width": shape.part_width(plan),
            "block_names": ["offset", *_used(seen_bounds, ["key_first", "key_end"])],
            "block_symbols": _used(seen_bounds, SYMBOLS),
            "seen_first": "gl.to_tensor(key_first)" if seen_first == "key_first" else seen_first,
            "seen_end": seen_end,
            "await_names": awaiting,
            "pass_names": passing,
        }
        partitions = one_loads(consume, shape.consumers, produce)
        partitions.append(Role("await_turns", awaiting, 1, "PRODUCER_REGISTERS"))
        partitions.append(Role("pass_turns", passing, 1, "PRODUCER_REGISTERS"))
    else:
        partitions = one_loads(consume, shape.consumers, produce)
    return {
        **common,
        **extra,
        "shape": shape,
        "qk_width": plan.qk_chunks[0].width,
        "v_width": plan.v_chunks[0].width,
        "columns": "BLOCK_M" if by_key else "BLOCK_N",
        "constants": common["constants"] + _constants(plan, shape),
        "row_bounds": bounds,
        "visible_lines": visible,
        "score_lines": scores,
        "gradient_lines": products,
        "loops": loops,
        "always_masked": all(loop["masked_only"] for loop in loops),
        "locate_names": locate,
        "located": located,
        "located_for": lambda role: _taken_by(
            role, plan, located, "batch" in hidden_names or _has(scored_texts, "batch")
        ),
        "ranges": ranges,
        "range_names": range_names,
        "range_symbols": _used(range_texts, SYMBOLS),
        "edges": edges,
        "edge_names": edge_names,
        "edge_symbols": _used([text for _, text in edges], SYMBOLS),
        "hidden_names": hidden_names,
        "hidden_positions": {name for name in ("i", "j", "column") if _has(hidden_texts, name)},
        "query_ends": {name for name in ("query_first", "query_end") if by_key and _has(hidden_texts, name)},
        "scored_positions": {name for name in ("i", "j") if _has(scored_texts, name)},
        "of_heads": _has([*hidden_texts, *scored_texts], "h") or plan.kind.alibi,
        "producer_names": produce,
        "consumer_names": consume,
        "partitions": partitions,
    }


def _taken_by(role: str, plan: BackwardPlan, located: list[str], by_sequence: bool) -> list[str]:
    """Names for what ``locate`` returns, for a role that does not use all that there is of a packed document."""
    if not plan.kind.documents:
        return located
    by_key, loads = plan.by_key, role == "produce"
    unused = {"batch"} if loads or not by_sequence else set()
    unused |= {"seq_k"} if loads or not by_key else set()
    unused |= set() if loads else {"first_query" if by_key else "first_key"}
    return ["_" if name in unused else name for name in located]


def _relative(line: str, position: str, first: str) -> str:
    """Relative to the tile, where that is not too long for the lines that there are."""
    made = relative(line, position, first)
    return made if all(len(part) <= LINE_LENGTH for part in made.splitlines()) else line


def _edges(loops: list[dict[str, Any]], skips: bool) -> list[tuple[str, str]]:
    """What a warpgroup's own rows see of each loop, by name: all of [inner_first, inner_end) by every row, where there
    is such a part, and some of [own_first, own_end) where tiles of nothing are left out."""
    out: list[tuple[str, str]] = []
    for n, loop in enumerate(loops):
        if not loop["masked_only"]:
            if loop["inner_first"] != loop["least"]:
                out.append((f"inner_first_{n}", loop["inner_first"]))
            out.append((f"inner_end_{n}", loop["inner_end"]))
        if skips:
            out.append((f"own_first_{n}", loop["outer_first"]))
            out.append((f"own_end_{n}", loop["outer_end"]))
    return out


def _where_all_are_valid(end: str) -> str:
    """Up to where a warpgroup's keys are seen by all queries: no query sees all of them where one is not valid."""
    return f"gl.where((own_key >= key_first) & (own_key + ROWS <= key_end), {end}, query_first)"


def _in_gluon(loop: Any) -> dict[str, Any]:
    values = {name: gluon(value) if isinstance(value, str) else value for name, value in vars(loop).items()}
    least = next((name for name in ("query_first", "key_first") if name == values["inner_first"]), "")
    return {**values, "least": least}


def _lines(lines: Iterable[str]) -> list[str]:
    """Without their indentation, as Gluon."""
    return textwrap.dedent("\n".join(gluon(line) for line in lines)).splitlines()


def _has(texts: Iterable[str], name: str) -> bool:
    return any(re.search(rf"\b{name}\b", text) for text in texts)


def _used(texts: Iterable[str], names: Iterable[str], aliases: dict[str, list[str]] | None = None) -> list[str]:
    """Of ``names``, those that ``texts`` refer to, or that are behind another name in them."""
    texts = list(texts)
    behind = {name for alias, held in (aliases or {}).items() if _has(texts, alias) for name in held}
    return [name for name in names if name in behind or _has(texts, name)]


def _constants(plan: BackwardPlan, shape: HopperGradientShape) -> list[Assignment]:
    """Sizes, and the names of the named barriers."""
    by_key = plan.by_key
    passing = "tiles of queries" if by_key else "tiles of keys"
    out = [] if shape.window else [Assignment("WARPGROUPS", str(shape.consumers), "that compute")]
    out += [
        Assignment("ROWS", str(ROWS), "keys of a warpgroup" if by_key else "queries of a warpgroup"),
        Assignment("BLOCK_M", str(shape.block_m), "queries of a tile" if by_key else "queries of a program"),
        Assignment("BLOCK_N", str(shape.block_n), "keys of a program" if by_key else "keys of a tile"),
        Assignment("STAGES", str(shape.stages), f"{passing} in shared memory"),
    ]
    if shape.blocks_together > 1:
        out.append(Assignment("RUN", str(shape.blocks_together), "blocks of a head that begin one after another"))
        out.append(Assignment("LAST", str(shape.short_blocks), "blocks of a head, at its end, that fewer queries see"))
    if shape.window:
        return out
    if not by_key:
        out.append(Assignment("VALUE_STAGES", str(shape.value_stages), "tiles of values"))
    out.append(Assignment("PARTIES", str(128 * shape.consumers + 32), "threads that meet where a slot is given back"))
    if by_key:
        out.append(Assignment("FREE", str(FIRST_BARRIER), "named barriers, one a slot"))
        if shape.fused:
            out.append(Assignment("EXCHANGED", str(FIRST_BARRIER + shape.stages), "gradients of a tile's scores"))
            out.append(Assignment("ADDED", str(FIRST_BARRIER + shape.stages + 1), "a tile's dQ"))
            out.append(Assignment("ADDED_PARTIES", str(128 * shape.consumers + 64)))
        if shape.wide:
            out.append(Assignment("READ", str(FIRST_BARRIER + shape.stages), "one a tile of weights"))
            out.append(Assignment("DONE", str(FIRST_BARRIER + shape.stages + 2), "all products are done"))
    else:
        out.append(Assignment("K_FREE", str(FIRST_BARRIER), "named barriers, one a slot"))
        out.append(Assignment("V_FREE", str(FIRST_BARRIER + shape.stages)))
    out.append(Assignment("CONSUMER_REGISTERS", str(shape.consumer_registers), "of a thread"))
    out.append(Assignment("PRODUCER_REGISTERS", str(PRODUCER_REGISTERS)))
    return out
