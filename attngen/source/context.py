"""The named values that the forward templates are filled with, decided here and under test."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from attngen.config import Config
from attngen.plan.attention import LN2, LOG2E, AttentionPlan
from attngen.plan.boxes import is_gluon
from attngen.plan.forward import ForwardPlan
from attngen.plan.keys import Dilation, FloorDiv, Interval
from attngen.plan.space import window_tiles
from attngen.source import elements, scalars
from attngen.source.elementwise import (
    WEIGHT_BITS,
    Assignment,
    Tile,
    exponential_scales,
    merged,
    row_bounds,
    score_lines,
    visible_lines,
)
from attngen.source.hopper import hopper_context
from attngen.source.hopper_window import hopper_window_context
from attngen.source.options import forward_options
from attngen.source.parameters import parameters, unspecialised
from attngen.source.types import forward_types
from attngen.spec.describe import describe_kind
from attngen.spec.nodes import Name, Node, walk


@dataclass(frozen=True)
class Loop:
    """One loop over keys or queries, its bounds as Triton."""

    outer_first: str
    outer_end: str
    inner_first: str
    inner_end: str
    masked_only: bool
    left_edge: bool
    follows: bool  # begins no earlier than where the loop before stopped
    followed: bool
    why: str


def forward_context(plan: ForwardPlan, config: Config) -> dict[str, Any]:
    """Everything a forward template refers to."""
    packed = int(config.get("PACK_HEADS", 1)) > 1  # type: ignore[arg-type]
    tile = Tile(packed=packed)
    terms = merged(plan.terms)
    bounds, visible = row_bounds(terms, tile)
    nodes = residual_nodes(plan) + ([plan.kind.score.tree] if plan.kind.score else [])
    state = ", ".join([f"acc_{c.index}" for c in plan.v_chunks] + ["row_max", "row_sum"])
    window, hopper = config["schedule"] == "window", is_gluon(config)
    resident = str(config["schedule"]).endswith("window")
    elements_need = ["key_end", *element_names(plan, bounds, nodes)]
    taken = parameters(plan, config)
    context: dict[str, Any] = {
        "plan": plan,
        "kind": plan.kind,
        "entry": "attention_forward",
        "tile_function": "attend_tile",
        "packed": packed,
        "documents": plan.kind.documents,
        "blocks": plan.kind.blocks is not None,
        "shifted": shifted({"q": "q", "k": "k", "v": "v", "out": "o"}, config.get("loads") == "descriptor"),
        "loads": config.get("loads", "pointer"),
        "unbalanced": plan.unbalanced,
        "docstring": docstring(plan, "Attention forward"),
        "constants": _constants(plan, config),
        "helpers": helpers_of(plan, nodes),
        "element_ranks": sorted({argument.rank for argument in plan.arguments if argument.shape == "tensor"}),
        "parameters": taken,
        "types": forward_types(plan, config, [parameter.name for parameter in taken]),
        "options": forward_options(config),
        "unspecialised": unspecialised(plan, persistent=config["schedule"] == "hopper"),
        "constexprs": () if window or hopper else ("BLOCK_M", "BLOCK_N", "HEADS_TOGETHER"),
        "qk_chunks": plan.qk_chunks,
        "v_chunks": plan.v_chunks,
        "row_bounds": bounds,
        "visible_lines": visible_lines(terms, visible, tile, 4 if resident else 8, plan.kind.blocks is not None),
        "residual": any(term.residual for term in terms),
        "score_lines": score_lines(plan, tile),
        **exponential_scales(plan, packed),
        "guard_always": plan.kind.score is not None,
        "precision": ', input_precision="ieee"' if plan.kind.dtype == "float32" else "",
        "state": state,
        "accumulators": ", ".join(f"acc_{c.index}" for c in plan.v_chunks),
        "tile_names": elements_need,
        "tile_call": _tile_call(plan, config, elements_need, state),
        "loops": loops_of(plan, bool(config.get("SPLIT_MASKS", True))),
    }
    context["symbols"] = _symbols_used(context, window)
    if window:
        count = window_tiles(plan, int(config["BLOCK_M"] or 0), int(config["BLOCK_N"] or 0))
        context["resident"] = count
        context["resident_calls"] = [_resident_call(context["tile_call"], t) for t in range(count)]
    if config["schedule"] == "hopper_window":
        return hopper_window_context(plan, config, context)
    return hopper_context(plan, config, context) if hopper else context


def shifted(strides: Mapping[str, str], described: bool = False) -> list[tuple[str, str, str]]:
    """Tensors whose pointers begin at a document: their side, and the word for each in a stride's name."""
    of_keys = ("k", "v", "dk", "dv")
    return [
        (name, "k" if name in of_keys else "q", word)
        for name, word in strides.items()
        if not (described and name in of_keys)
    ]


def _symbols_used(context: dict[str, Any], window: bool) -> set[str]:
    """Which of i, i_first, i_last and prefix the kernel's text refers to."""
    texts = [bound.value for bound in context["row_bounds"]] + context["tile_call"]
    for loop in context["loops"]:
        texts.append(loop.outer_first)
        if not window:
            texts.append(loop.outer_end)
        if not window and not loop.masked_only:
            texts += [loop.inner_first if loop.left_edge else "", loop.inner_end]
    names = ("i", "i_first", "i_last", "prefix")
    return {name for name in names if any(re.search(rf"\b{name}\b", text) for text in texts)}


def _resident_call(names: list[str], tile: int) -> list[str]:
    """The arguments of ``score_tile`` for one resident tile: its own keys and first key."""
    key = ("first", "first + BLOCK_N")[tile] if tile < 2 else f"first + {tile} * BLOCK_N"
    return [f"{name}_{tile}" if re.fullmatch(r"k_\d+", name) else key if name == "key" else name for name in names]


def residual_nodes(plan: AttentionPlan) -> list[Node]:
    return [test for term in plan.terms for test in term.residual if not isinstance(test, Dilation)]


def helpers_of(plan: AttentionPlan, nodes: list[Node]) -> set[str]:
    used = elements.helpers(nodes)
    if plan.kind.softcap is not None:
        used.add("tanh")
    bounds = [e for term in plan.terms for e in (term.row_lower(), term.row_upper())]
    bounds += [e for loop in plan.loops for e in (loop.outer_first, loop.outer_end)]
    if any(bound.has(FloorDiv) for bound in bounds):
        used.add("floor_div")
    return used


def padded_widths(plan: AttentionPlan, qk: bool = True) -> list[Assignment]:
    """Of what is padded; with ``qk`` queries and keys too."""
    out = []
    if qk and any(c.padded for c in plan.qk_chunks):
        out.append(Assignment("QK_DIM", str(plan.kind.head_dim.qk), "width of queries and keys"))
    if any(c.padded for c in plan.v_chunks):
        out.append(Assignment("V_DIM", str(plan.kind.head_dim.v), "width of values"))
    return out


def _constants(plan: ForwardPlan, config: Config) -> list[Assignment]:
    kind = plan.kind
    out = [Assignment("GROUP", str(kind.heads.group), "query heads that share one KV head")]
    if config["schedule"] == "window":
        out.append(Assignment("BLOCK_M", str(config["BLOCK_M"]), "queries of a tile"))
        out.append(Assignment("BLOCK_N", str(config["BLOCK_N"]), "keys of a tile"))
        if kind.heads.group > 1:
            out.append(Assignment("NUM_STAGES", str(config["num_stages"]), "heads in flight"))
    else:
        pack = int(config.get("PACK_HEADS") or 1)
        out.append(Assignment("PACK_HEADS", str(pack), "query heads of one tile"))
    if kind.blocks is not None:
        out.append(Assignment("BLOCK_SIZE", str(kind.blocks.size), "queries, and keys, of a block"))
    out += padded_widths(plan)
    if plan.plain_scores:
        comment = f"softmax_scale * log2(e), with softmax_scale = {kind.scale!r}"
    else:
        comment = "log2(e): logits to base-2 units"
        out.append(Assignment("SOFTMAX_SCALE", repr(kind.scale)))
    if kind.softcap is not None:
        out.append(Assignment("SOFTCAP", repr(float(kind.softcap)), "logits are kept within (-SOFTCAP, SOFTCAP)"))
    out.append(Assignment("EXP_SCALE", repr(plan.exp_scale), comment))
    if kind.quantised:
        comment = "softmax weights are times 2 ** WEIGHT_BITS, to use all of e4m3's range"
        out.append(Assignment("WEIGHT_BITS", repr(WEIGHT_BITS), comment))
    if kind.sink:
        out.append(Assignment("LOG2E", repr(LOG2E)))
    out.append(Assignment("LN2", repr(LN2)))
    return out


def _tile_call(plan: ForwardPlan, config: Config, elements_need: list[str], state: str) -> list[str]:
    """What a tile of keys needs from the kernel around it."""
    names = [f"q_{c.index}" for c in plan.qk_chunks]
    if config["schedule"] == "window":
        names += [f"k_{c.index}" for c in plan.qk_chunks]
    elif config.get("loads") == "descriptor":
        names = [*state.split(", "), *names]
        names += [f"k_desc_{c.index}" for c in plan.qk_chunks] + [f"v_desc_{c.index}" for c in plan.v_chunks]
        names += ["batch", "kv_head"]
    else:
        names = [*state.split(", "), *names, "k_base", "v_base", "stride_ks", "stride_vs"]
    names += [name for name in elements_need if name not in names]
    if plan.kind.quantised and not plan.plain_scores:
        names.append("score_scale")
    elif plan.kind.quantised and config["schedule"] != "window":
        names.append("exp_scale")
    if config.get("loads") == "descriptor" and config["schedule"] != "window":
        names += ["HAS_KEY_RANGE", *(["first_key"] if plan.kind.documents else [])]
    names += ["end"] if plan.kind.blocks is not None else []
    return [*names, "key"]


def element_names(plan: AttentionPlan, row_bounds: list[Assignment], nodes: list[Node], row: str = "i") -> list[str]:
    """What masks and scores of single elements need from the kernel around them; ``row`` is the rows' position."""
    names = [bound.name for bound in row_bounds]
    used = {node.id for root in nodes for node in walk(root) if isinstance(node, Name)}
    residual_dilation = any(isinstance(test, Dilation) for term in plan.terms for test in term.residual)
    if plan.kind.alibi or residual_dilation or row in used:
        names.append(row)
    if "h" in used:
        names.append("h")
    if "b" in used:
        names.append("batch")
    if plan.kind.alibi:
        names.append("slope")
    for argument in plan.arguments:
        if argument.shape == "tensor":
            names.append(f"{argument.name}_ptr")
            names += [f"{argument.name}_{what}_{n}" for n in range(argument.rank) for what in ("size", "stride")]
        elif argument.shape == "scalar":
            names.append(f"{argument.name}_value")
    return names


def loops_of(plan: AttentionPlan, split_masks: bool = True, names: Mapping[str, str] | None = None) -> list[Loop]:
    last = len(plan.loops) - 1
    loops = [loop_of(interval, n > 0, n < last, split_masks, names) for n, interval in enumerate(plan.loops)]
    return loops if plan.kind.blocks is None else [_within_block(loop) for loop in loops]


def _within_block(loop: Loop) -> Loop:
    """A loop cut down to a listed block."""
    first, end = "block_first", "block_first + BLOCK_SIZE"
    return replace(
        loop,
        outer_first=f"tl.maximum({loop.outer_first}, {first})",
        outer_end=f"tl.minimum({loop.outer_end}, {end})",
        inner_first="" if loop.masked_only else f"tl.maximum({loop.inner_first}, {first})",
        inner_end="" if loop.masked_only else f"tl.minimum({loop.inner_end}, {end})",
        left_edge=not loop.masked_only,
    )


def loop_of(
    interval: Interval,
    follows: bool = False,
    followed: bool = False,
    split_masks: bool = True,
    names: Mapping[str, str] | None = None,
) -> Loop:
    """An interval as the templates take it; ``names`` renames the symbols of its bounds."""
    masked_only = interval.always_masked or not split_masks
    inner = (interval.inner_first, interval.inner_end)
    return Loop(
        outer_first=scalars.write(interval.outer_first, names),
        outer_end=scalars.write(interval.outer_end, names),
        inner_first="" if inner[0] is None else scalars.write(inner[0], names),
        inner_end="" if inner[1] is None else scalars.write(inner[1], names),
        masked_only=masked_only,
        left_edge=interval.left_edge or (follows and not interval.always_masked),
        follows=follows,
        followed=followed,
        why=interval.why or "every key",
    )


def docstring(plan: AttentionPlan, title: str) -> str:
    """The generated module's own: what it is, and what it is specialised to."""
    head, *rest = describe_kind(plan.kind)
    lines = [f"{title}, {head}.", ""]
    lines += textwrap.wrap(f"Specialised to: {'; '.join(rest)}.", 116)
    lines += ["", "Needs torch and triton. Generated by attngen."]
    return "\n".join(lines) + "\n"
