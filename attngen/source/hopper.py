"""The named values that the Hopper template is filled with: roles, rings, barriers, and what passes between them."""

from __future__ import annotations

import re
from typing import Any

from attngen.config import Config
from attngen.plan.attention import AttentionPlan
from attngen.plan.boxes import KEYS_TURNED
from attngen.plan.forward import ForwardPlan
from attngen.plan.hopper import PRODUCER_REGISTERS, ROWS, VISITS, HopperShape
from attngen.plan.work import ELEMENT_BYTES
from attngen.source.elementwise import Assignment
from attngen.source.roles import one_loads

FIRST_BARRIER = 8  # named barriers below are the compiler's
LAZY = 8.0  # powers of two by which a stale maximum may be exceeded
FLOAT8_LAZY = 0.8  # 2 ** (WEIGHT_BITS + 0.8) is below 448, the largest number of e4m3
PACKED = ("tokens_q", "tokens_k", "documents", "cu_seqlens_q_ptr", "cu_seqlens_k_ptr")  # of packed documents
MOST_SUMMED = {"bfloat16": "2.0**64", "float16": "65504.0"}  # of a row's weights, so that none is too large
SPARED_TILES = {"float16": 1}  # whole tiles that are looked at too: few keys at an edge say too little of a maximum
KEYS_SUMMED = 1024  # keys whose values tensor cores add up in 14 bits before the sum is put aside


def gluon(text: str) -> str:
    """Elementwise Triton as Gluon says it."""
    return re.sub(r"\btl\.", "gl.", text)


def relative(line: str, position: str = "j", first: str = "key") -> str:
    """Comparisons of whole positions as comparisons of columns, which are constants of the code."""
    whole = rf"\b{position}\[None, :\] (>=|<) (\w+)"
    line = re.sub(rf"{whole}\[:, None\]", rf"column[None, :] \1 (\2 - {first})[:, None]", line)
    return re.sub(rf"{whole}(?=[)\s]|$)", rf"column[None, :] \1 \2 - {first}", line)


def tensor_names(plan: ForwardPlan) -> dict[str, list[str]]:
    """What a Gluon kernel calls its descriptors, its tiles in shared memory and its accumulators, one a chunk."""
    qk, v = [c.index for c in plan.qk_chunks], [c.index for c in plan.v_chunks]
    names = {f"{tensor}_descs": [f"{tensor}_desc_{n}" for n in qk] for tensor in "qk"}
    names |= {f"{tensor}_descs": [f"{tensor}_desc_{n}" for n in v] for tensor in ("v", "out")}
    names |= {"q_buffers": [f"q_tiles_{n}" for n in qk], "k_buffers": [f"k_tiles_{n}" for n in qk]}
    names |= {"v_buffers": [f"v_tiles_{n}" for n in v], "out_buffers": [f"out_tiles_{n}" for n in v]}
    names |= {"q_tiles": [f"q_{n}" for n in qk], "accumulators": [f"acc_{n}" for n in v]}
    return names


def arguments_of_callers(plan: AttentionPlan, common: dict[str, Any]) -> list[str]:
    """Parameters that carry something of the caller's besides q, k, v."""
    names = [re.escape(argument.name) for argument in plan.arguments]
    patterns = [re.compile(rf"{name}_(ptr|value|stride|size_\d+|stride_\d+)") for name in names]
    return [p.name for p in common["parameters"] if any(pattern.fullmatch(p.name) for pattern in patterns)]


def hopper_context(plan: ForwardPlan, config: Config, common: dict[str, Any]) -> dict[str, Any]:
    """``common``, the context of every forward template, and what the Hopper template needs besides."""
    shape = HopperShape.of(plan, config)
    names = tensor_names(plan)
    quantised = plan.kind.quantised
    clears = not quantised  # values past the valid keys; turned ones are 0 there
    kept = [f"kept_{c.index}" for c in plan.v_chunks] if quantised else []  # sums put aside

    bounds = [Assignment(b.name, gluon(b.value), b.comment) for b in common["row_bounds"]]
    arguments = arguments_of_callers(plan, common)
    scale_names = ["exp_scale"] if quantised and plan.plain_scores else []
    scored_names = [*common["tile_names"], *(["score_scale"] if quantised and not plan.plain_scores else [])]
    symbols = common["symbols"]
    documents = plan.kind.documents
    locate = ["heads", *(PACKED if documents else ["seq_q", "seq_k"]), "tile_count", "heads_together"]
    locate += ["offsets_ptr", "key_range_ptr"]
    locate += ["prefix_ptr"] if "prefix" in symbols else []
    # Packed documents are one row of tokens: only expressions may ask for a document's number.
    located = ["head", "tile"] if documents and "batch" not in scored_names else ["batch", "head", "tile"]
    located += ["offset"] if "i" in symbols else []
    located += ["key_first"] if any(re.search(r"\bkey_first\b", b.value) for b in bounds) else []
    located += ["key_end"] + (["prefix"] if any(re.search(r"\bprefix\b", b.value) for b in bounds) else [])
    located += ["seq_q", "first_query"] if documents else []
    loops = [_in_gluon(loop) for loop in common["loops"]]
    loops = [_aligned(loop) if quantised else {**loop, "aligned": False} for loop in loops]
    for n, loop in enumerate(loops):
        located.append(f"first_{n}")
        if not loop["masked_only"]:
            located += [f"full_first_{n}"] if loop["left_edge"] else []
            located.append(f"full_end_{n}")
        located.append(f"tiles_{n}")

    guessed = [
        f"full_end_{n} > {'full_first' if loop['left_edge'] else 'first'}_{n}"
        for n, loop in enumerate(loops)
        if not loop["masked_only"] and not quantised
    ]
    rings = ["q_full", "k_full", "v_full"]
    shared = ["q_free", "published", "places", "judged", "ticket_ptr"]
    producer = names["q_descs"] + names["k_descs"] + names["v_descs"]
    producer = producer + names["q_buffers"] + names["k_buffers"] + names["v_buffers"] + rings + shared
    producer += locate
    consumer = (
        names["q_buffers"] + names["k_buffers"] + names["v_buffers"] + names["out_descs"] + names["out_buffers"] + kept
    )
    consumer += [*rings, *shared, "lse_ptr", "heads", "tokens_q" if documents else "seq_q", "tile_count"]
    consumer += ["out_ptr", "stride_oh", "stride_os"] if documents else []
    consumer += [*(["key_range_ptr"] if clears else []), *(name for name in arguments if name not in PACKED)]

    state = [*names["accumulators"], *([] if shape.in_order else ["p"]), "row_max", "row_sum", "k_slot", "k_phase"]
    state += [] if shape.in_order else ["v_slot", "v_phase"]
    state += [*(["v_key"] if clears else []), "remaining", *(["kept", "puts"] if quantised else [])]
    constant = names["q_tiles"] + names["k_buffers"] + names["v_buffers"] + kept
    constant += ["k_full", "v_full", *(["key_range_ptr"] if clears else []), *scored_names, *scale_names]
    signature = [*constant, "key", "WG: gl.constexpr", "MASKED: gl.constexpr"]
    visible = [relative(gluon(line)) for line in common["visible_lines"]]
    return {
        **common,
        **names,
        "block_n": shape.block_n,
        "consumers": shape.consumers,
        "separate_out": shape.separate_out,
        "seamless": shape.seamless,
        "in_order": shape.in_order,
        "ping_pong": shape.ping_pong,
        "clears": clears,
        "scored_names": scored_names,
        "scale_names": scale_names,
        "scale_is_of_rows": bool(scale_names) and shape.pack > 1,
        "out_place": "2 * WG" if quantised else "WG",
        "product_depth": 32 // ELEMENT_BYTES[plan.kind.dtype],
        "constants": common["constants"] + _constants(shape, plan.kind.dtype),
        "row_bounds": bounds,
        "visible_lines": visible,
        "score_lines": [gluon(line) for line in common["score_lines"]],
        "columns": any(re.search(r"\b(j|column)\b", line) for line in visible + common["score_lines"]),
        "key_positions": any(re.search(r"\bj\b", line) for line in visible + common["score_lines"]),
        "loops": loops,
        "locate_names": locate,
        "located": located,
        "guessed": _any_of(guessed),  # whether a tile of queries has whole tiles of keys
        "found": [*located, *(["first_key"] if documents else [])]
        + (["key_first"] if quantised and "key_first" not in located else []),
        "producer_names": producer,
        "consumer_names": consumer,
        "partitions": one_loads(consumer, shape.consumers, producer),
        "state": state,
        "tile_call": signature,
        "step_arguments": lambda key, masked: [*state, *constant, key, "WG", str(masked)],
    }


def _any_of(conditions: list[str]) -> str:
    """An expression that is true where one of ``conditions`` is."""
    return " | ".join(f"({one})" for one in conditions) if len(conditions) > 1 else "".join(conditions) or "False"


def _in_gluon(loop: Any) -> dict[str, Any]:
    return {name: gluon(value) if isinstance(value, str) else value for name, value in vars(loop).items()}


def _aligned(loop: dict[str, Any]) -> dict[str, Any]:
    """A loop that begins where a group of turned values does, as the first valid key does; what comes before its own
    first key is masked."""
    if loop["outer_first"] == "key_first":
        return {**loop, "aligned": False}
    return {**loop, "aligned": True, "left_edge": not loop["masked_only"]}


def _constants(shape: HopperShape, dtype: str) -> list[Assignment]:
    """Sizes, and the names of the named barriers."""
    quantised = dtype == "float8_e4m3"
    stages, consumers = shape.stages, shape.consumers
    out = [
        Assignment("CONSUMERS", str(consumers), "warpgroups that compute"),
        Assignment("ROWS", str(ROWS), "rows of a warpgroup: QUERIES queries of PACK_HEADS heads"),
        Assignment("QUERIES", str(ROWS // shape.pack)),
        Assignment("BLOCK_Q", str(ROWS // shape.pack * consumers), "queries of a tile"),
        Assignment("BLOCK_N", str(shape.block_n), "keys of a tile"),
        Assignment("STAGES", str(stages), "tiles of keys and of values in shared memory"),
        Assignment("PLACES", str(VISITS), "tiles of queries whose place is published ahead"),
        Assignment("SPARED", str(shape.block_n * SPARED_TILES.get(dtype, 0)), "keys of whole tiles counted as edges"),
        Assignment("EVERY", str(2**30), "keys, more than there are"),
        Assignment("LAZY", repr(FLOAT8_LAZY if quantised else LAZY), "powers of two above a stale maximum"),
    ]
    if not quantised:
        out.append(Assignment("MOST_SUMMED", MOST_SUMMED[dtype], "of a row's weights: none is too large for its dtype"))
    if quantised:
        out += [
            Assignment("KEYS_TURNED", str(KEYS_TURNED), "keys of a group of values, in an order of their own"),
            Assignment("TILES_SUMMED", str(KEYS_SUMMED // shape.block_n), "after which sums are put aside"),
        ]
    out += [
        Assignment("PARTIES", str(128 * consumers + 32), "threads that meet where a slot is given back"),
        Assignment("K_FREE", str(FIRST_BARRIER), "named barriers, one a slot"),
        Assignment("V_FREE", str(FIRST_BARRIER + stages)),
    ]
    if shape.ping_pong:
        out.append(Assignment("TURN", str(FIRST_BARRIER + 2 * stages), "one a warpgroup: its turn to issue products"))
    out += [
        Assignment("CONSUMER_REGISTERS", str(shape.consumer_registers), "of a thread"),
        Assignment("PRODUCER_REGISTERS", str(PRODUCER_REGISTERS)),
    ]
    return out
