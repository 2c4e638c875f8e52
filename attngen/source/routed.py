"""The named values that the templates of attention over chosen blocks are filled with."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

from attngen.config import Config
from attngen.plan.attention import LN2, LOG2E
from attngen.plan.keys import Dilation, FloorDiv
from attngen.plan.routed import RoutedPlan
from attngen.source.context import loop_of
from attngen.source.elementwise import BY_QUERY, Assignment, row_bounds, visible_lines
from attngen.source.parameters import Parameter
from attngen.source.types import NOTHING, descriptor, pointer
from attngen.spec.describe import describe_kind

ENTRIES = 512  # of lists, in a tile of the kernels that sort them
WORDS = 1024  # of 32 queries each, in a step of the kernel that counts
MERGED_ROWS = 16  # of a tile of the kernel that merges
WARPS = 4  # of these kernels
LARGEST, LEAST = 2.0**15, 1e-30  # elements of a scaled row, and of one that is scaled
PLACE = ["first_list", "part_lists", "first_query", "queries"]  # of a part
LISTS = ["stride_ib", "stride_ih", "stride_is", "lists", "blocks", "top_k"]
LOCATED = ["blocks_ptr", *LISTS, *PLACE]
UNSPECIALISED = {"heads", "seq_q", "seq_k", "words", *LISTS, *PLACE}
ELEMENTS = dict.fromkeys(("blocks_ptr", "marks_ptr", "order_ptr", "table_ptr"), "int32")
ELEMENTS |= dict.fromkeys(("sizes_ptr", "ends_ptr"), "int64")
ELEMENTS |= dict.fromkeys(("partial_lse_ptr", "partial_scale_ptr", "lse_ptr", "sink_ptr"), "float32")

COMMENTS = {
    "q_ptr": "[batch, heads, seq_q, qk dim]",
    "out_ptr": "[batch, heads, seq_q, v dim]",
    "lse_ptr": "[batch, heads, seq_q], float32, natural log, contiguous",
    "sink_ptr": "[heads], one logit a query head, float32, in natural-log units",
    "offsets_ptr": "[batch], position of the first query, or None for seq_k - seq_q",
    "key_range_ptr": "[batch, 2], first and end of the valid keys, or None for all",
    "blocks_ptr": "[batch, lists, seq_q, top_k], int32: blocks of a query, others are no block",
    "partial_lse_ptr": "[entries, HEADS_OF_LIST], float32, base-2 log; -inf of what has no key",
    "partial_scale_ptr": "[entries, HEADS_OF_LIST], float32, what results are to be multiplied by",
    "marks_ptr": "[segments, words, 2], int32: bits of the queries that chose it, and how many did before these",
    "sizes_ptr": "[segments], int64: entries of each segment, and its tiles in the upper half",
    "ends_ptr": "[segments], int64: the sums of sizes up to each",
    "order_ptr": "[entries], int32: the entries of all segments, in order of queries",
    "table_ptr": "[tiles, 4], int32: segment, first row and end of each; no rows after the last tile",
    "heads": "query heads",
    "lists": "lists of a sequence",
    "top_k": "entries of a list",
    "blocks": "blocks of a sequence's keys",
    "words": "words of a segment, with a bit for each of 32 queries",
    "first_list": "the part's first, counted over all sequences",
    "part_lists": "lists of the part",
    "first_query": "the part's first",
    "queries": "queries of each list of the part",
}


def routed_context(plan: RoutedPlan, config: Config) -> dict[str, Any]:
    """For the template of attention of one block after the other."""
    bounds, visible = row_bounds((plan.term,))
    loop = loop_of(plan.loop)
    described = config["loads"] == "descriptor"
    dilated = any(isinstance(test, Dilation) for test in plan.term.residual)
    state = [*(f"acc_{c.index}" for c in plan.v_chunks), "row_max", "row_sum"]
    symbols = _words([*(b.value for b in bounds), loop.outer_first, loop.outer_end, loop.inner_first, loop.inner_end])
    symbols |= {"i"} if dilated else set()
    names = ["q_ptr", *_keys(plan, described), "partial_ptr", "partial_lse_ptr"]
    names += ["partial_scale_ptr"] if _scaled(plan) else []
    names += ["order_ptr", "table_ptr", "offsets_ptr", "key_range_ptr"]
    names += [f"stride_{tensor}{axis}" for tensor in ("q" if described else "qkv") for axis in "bhs"]
    names += ["heads", "seq_q", "seq_k", "top_k", "blocks", "first_list", "first_query", "queries"]
    loaded = ["batch", "kv_head", "HAS_KEY_RANGE"] if described else ["stride_ks", "stride_vs"]
    tile_call = [*state, *(f"q_{c.index}" for c in plan.qk_chunks)]
    tile_call += [name for name in _keys(plan, described) if described] or ["k_base", "v_base"]
    return {
        **_shared(plan, "routed_attention", names, config),
        "docstring": _docstring(plan, "Attention of queries over blocks of keys that each chose, a block at a time"),
        "documents": False,
        "constants": _constants(plan),
        "helpers": _helpers(plan),
        "element_ranks": (),
        "constexprs": ("BLOCK_M", "BLOCK_N"),
        "options": {"num_warps": config["num_warps"], "num_stages": config["num_stages"]},
        "loads": config["loads"],
        "precision": ', input_precision="ieee"' if plan.kind.dtype == "float32" else "",
        "row_bounds": bounds,
        "visible_lines": visible_lines((plan.term,), visible, BY_QUERY, indent=8),
        "residual": bool(plan.term.residual),
        "symbols": symbols,
        "positions": bool(symbols & {"i", "i_first", "i_last"}),
        "state": ", ".join(state),
        "accumulators": ", ".join(state[:-2]),
        "tile_call": [*tile_call, *loaded, "key_end", *(b.name for b in bounds), *(["i"] if dilated else []), "key"],
        "loop_": loop,
    }


def merge_context(plan: RoutedPlan) -> dict[str, Any]:
    """For the template that merges what a row has of its blocks."""
    names = ["partial_ptr", "partial_lse_ptr", *(["partial_scale_ptr"] if _scaled(plan) else []), "out_ptr", "lse_ptr"]
    names += ["sink_ptr"] if plan.kind.sink else []
    names += ["stride_ob", "stride_oh", "stride_os", "heads", "seq_q", "top_k"]
    names += PLACE
    constants = [_heads_of_list(plan), Assignment("V_DIM", str(plan.kind.head_dim.v), "width of values")]
    constants += [Assignment("LOG2E", repr(LOG2E))] if plan.kind.sink else []
    return {
        **_shared(plan, "merge_partials", names),
        "docstring": _docstring(plan, "Results of the blocks that a query chose, merged"),
        "constants": [*constants, Assignment("LN2", repr(LN2))],
        "constexprs": ("BLOCK_M",),
    }


def order_contexts(plan: RoutedPlan) -> dict[str, dict[str, Any]]:
    """For the template of the kernels that sort entries by their blocks, by entry point; its text is one."""
    names = {
        "mark": [*LOCATED, "marks_ptr", "partial_lse_ptr", "words"],
        "count": ["marks_ptr", "sizes_ptr", "words"],
        "order": [*LOCATED, "marks_ptr", "sizes_ptr", "ends_ptr", "order_ptr", "table_ptr", "words"],
    }
    entries = {"mark": "mark_chosen", "count": "count_chosen", "order": "order_entries"}
    made = {which: _shared(plan, entries[which], names[which]) for which in names}
    text = {
        "docstring": _docstring(plan, "Entries of lists of blocks, sorted by block and then by query, in tiles"),
        "constants": [_heads_of_list(plan)],
        "located": LOCATED,
        "unspecialised": {which: context["unspecialised"] for which, context in made.items()},
        "parameters_of": {which: context["parameters"] for which, context in made.items()},
    }
    constexprs = {"mark": ("BLOCK",), "count": ("BLOCK_M", "BLOCK"), "order": ("BLOCK_M", "BLOCK")}
    return {which: context | text | {"constexprs": constexprs[which]} for which, context in made.items()}


def routed_boxes(plan: RoutedPlan, config: Config) -> dict[str, tuple[str, tuple[int, int, int, int]]]:
    """For each descriptor parameter of the kernel: k or v, and the box."""
    keys = int(config["BLOCK_N"] or 0)
    chunks = {"k": plan.qk_chunks, "v": plan.v_chunks}
    return {f"{name}_desc_{c.index}": (name, (1, 1, keys, c.width)) for name, of in chunks.items() for c in of}


def _shared(plan: RoutedPlan, entry: str, names: Sequence[str], config: Config | None = None) -> dict[str, Any]:
    """What every kernel's template is filled with."""
    return {
        "plan": plan,
        "kind": plan.kind,
        "entry": entry,
        "parameters": [Parameter(name, _comment(plan, name)) for name in names],
        "types": tuple(_type(plan, config, name) for name in names),
        "unspecialised": [name for name in names if name in UNSPECIALISED],
        "options": {"num_warps": WARPS},
        "shared": plan.heads_of_list > 1,
        "scaled": _scaled(plan),
        "qk_chunks": plan.qk_chunks,
        "v_chunks": plan.v_chunks,
    }


def _scaled(plan: RoutedPlan) -> bool:
    return plan.partials == "float16"


def _keys(plan: RoutedPlan, described: bool) -> list[str]:
    if not described:
        return ["k_ptr", "v_ptr"]
    return [f"{name}_desc_{c.index}" for name, of in (("k", plan.qk_chunks), ("v", plan.v_chunks)) for c in of]


def _words(texts: Sequence[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"\w+", text)}


def _comment(plan: RoutedPlan, name: str) -> str:
    if name[:2] in ("k_", "v_"):
        dim = "qk dim" if name[0] == "k" else "v dim"
        return f"[batch, kv heads, seq_k, {dim}]{', boxes of BLOCK_N keys' if '_desc_' in name else ''}"
    if name == "partial_ptr":
        return f"[entries, HEADS_OF_LIST, v dim], {plan.partials}: what each block gives a row{_how(plan)}"
    return COMMENTS.get(name, "")


def _how(plan: RoutedPlan) -> str:
    return ", scaled" if _scaled(plan) else ""


def _type(plan: RoutedPlan, config: Config | None, name: str) -> str:
    if name in ("offsets_ptr", "key_range_ptr"):
        return NOTHING
    if "_desc_" in name:
        assert config is not None
        return descriptor(routed_boxes(plan, config)[name][1], plan.kind.dtype, gluon=False)
    if name == "partial_ptr":
        return pointer(plan.partials)
    return pointer(ELEMENTS.get(name, plan.kind.dtype)) if name.endswith("_ptr") else "i32"


def _helpers(plan: RoutedPlan) -> set[str]:
    bounds = [bound.expression for bound in (*plan.term.lowers, *plan.term.uppers)]
    used = {"floor_div"} if any(bound.has(FloorDiv) for bound in bounds) else set()
    return used | ({"tanh"} if plan.kind.softcap is not None else set())


def _heads_of_list(plan: RoutedPlan) -> Assignment:
    return Assignment("HEADS_OF_LIST", str(plan.heads_of_list), "query heads that attend by one list")


def _constants(plan: RoutedPlan) -> list[Assignment]:
    kind = plan.kind
    out = [Assignment("SIZE", str(plan.select.size), "keys of a block"), _heads_of_list(plan)]
    out.append(Assignment("GROUP", str(kind.heads.group), "query heads that share one KV head"))
    if any(c.padded for c in plan.qk_chunks):
        out.append(Assignment("QK_DIM", str(kind.head_dim.qk), "width of queries and keys"))
    out.append(Assignment("V_DIM", str(kind.head_dim.v), "width of values"))
    if kind.softcap is None:
        comment = f"softmax_scale * log2(e), with softmax_scale = {kind.scale!r}"
    else:
        comment = "log2(e): logits to base-2 units"
        out.append(Assignment("SOFTMAX_SCALE", repr(kind.scale)))
        out.append(Assignment("SOFTCAP", repr(float(kind.softcap)), "logits are kept within (-SOFTCAP, SOFTCAP)"))
    out.append(Assignment("EXP_SCALE", repr(plan.exp_scale), comment))
    if _scaled(plan):
        out.append(Assignment("LARGEST", repr(LARGEST), "element of a row of results as it is held"))
        out.append(Assignment("LEAST", repr(LEAST), "a row of smaller numbers is scaled as if this were its largest"))
    return out


def _docstring(plan: RoutedPlan, what: str) -> str:
    head, *rest = describe_kind(plan.kind)
    lines = textwrap.wrap(f"{what}, {head}.", 116)
    lines += ["", *textwrap.wrap(f"Specialised to: {'; '.join(rest)}.", 116)]
    lines += [
        "",
        "An entry is a place in a list of blocks, a segment one block of one list, and a part those lists and queries",
        "that one launch is about.",
        "",
        "Needs torch and triton. Generated by attngen.",
    ]
    return "\n".join(lines) + "\n"
