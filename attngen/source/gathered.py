"""The named values that the templates of attention over listed keys are filled with."""

from __future__ import annotations

import textwrap
from typing import Any

import sympy as sp

from attngen.config import Config
from attngen.plan.attention import LN2, LOG2E
from attngen.plan.boxes import is_gluon
from attngen.plan.chunks import Chunk
from attngen.plan.gathered import GatheredPlan
from attngen.plan.hopper import ROWS
from attngen.plan.keys import KEY_FIRST, Dilation, FloorDiv, Term
from attngen.plan.work import ELEMENT_BYTES
from attngen.source import scalars
from attngen.source.elementwise import Assignment
from attngen.source.hopper import gluon
from attngen.source.parameters import Parameter
from attngen.source.roles import Role
from attngen.source.types import NOTHING, descriptor, pointer
from attngen.spec.describe import describe_kind

ENTRY = "gathered_attention"
UNSPECIALISED = ("stride_ib", "stride_ih", "stride_is", "batches", "heads", "seq_q", "seq_k", "top_k")
OTHER_ELEMENTS = {"lse_ptr": "float32", "max_ptr": "float32", "sink_ptr": "float32"}  # than the kind's
OTHER_ELEMENTS |= {"indices_ptr": "int32", "ticket_ptr": "int32"}
LINE_BYTES = 128  # of the L2 cache
# Of a thread of the Hopper schedule: 3 warpgroups begin with 168 each, and the one that loads gives to the others.
ENTRY_REGISTERS, CONSUMER_REGISTERS, PRODUCER_REGISTERS = 168, 216, 72


def gathered_context(plan: GatheredPlan, config: Config) -> dict[str, Any]:
    """Everything that a template of this kernel refers to."""
    hopper = is_gluon(config)
    bounds, seen = _visibility(plan.term)
    names = [*(bound.value for bound in bounds), *seen]
    taken = _parameters(plan, hopper, bool(config.get("TICKETS")))
    context: dict[str, Any] = {
        "plan": plan,
        "kind": plan.kind,
        "entry": ENTRY,
        "docstring": _docstring(plan),
        "constants": _constants(plan),
        "helpers": _helpers(plan),
        "element_ranks": (),
        "parameters": taken,
        "types": tuple(_type(plan, parameter.name) for parameter in taken),
        "unspecialised": [p.name for p in taken if p.name in UNSPECIALISED],
        "constexprs": ("BLOCK_H", "BLOCK_N"),
        "options": {"num_warps": config["num_warps"], "num_stages": config.get("num_stages")},
        "bounds": bounds,
        "seen": seen,
        "positions": any("i" in _words(name) for name in names),
        "qk_chunks": plan.qk_chunks,
        "v_chunks": plan.v_chunks,
        "limits": {c.index: _limit(plan, c) for c in plan.qk_chunks},
        "precision": ', input_precision="ieee"' if plan.kind.dtype == "float32" else "",
    }
    return context | _hopper(plan, config, context) if hopper else context


def _hopper(plan: GatheredPlan, config: Config, context: dict[str, Any]) -> dict[str, Any]:
    """What the Hopper template needs besides, or says in Gluon."""
    kind = plan.kind
    half, rope = kind.head_dim.v // 2, kind.head_dim.qk - kind.head_dim.v
    row = kind.head_dim.qk * ELEMENT_BYTES[kind.dtype]
    lines = [f"prefetch.global.L2 [$1+{n}];" for n in range(0, row, LINE_BYTES)]
    constants = [constant for constant in context["constants"] if constant.name != "GROUP"] + [
        Assignment("ROWS", str(ROWS), "heads of a turn"),
        Assignment("BLOCKS", str(-(-kind.heads.group // ROWS)), "turns of a query"),
        Assignment("BLOCK_N", str(config["BLOCK_N"]), "keys of a tile"),
        Assignment("HALF", str(half), "columns of half a value: those that one warpgroup adds up"),
        Assignment("RANK", str(kind.head_dim.v), "columns of a value, the first of its key"),
        Assignment("ROPE", str(rope), "columns of a key beyond its value"),
        Assignment("LEAST", "-1.0e30", "a maximum of no score: finite, so that what is below it is never NaN"),
        Assignment("CONSUMER_REGISTERS", str(CONSUMER_REGISTERS), "of a thread"),
        Assignment("PRODUCER_REGISTERS", str(PRODUCER_REGISTERS)),
    ]
    return {
        "constexprs": (),
        "options": {"num_warps": 4, "maxnreg": ENTRY_REGISTERS},
        "constants": constants,
        "bounds": [Assignment(b.name, gluon(b.value), b.comment) for b in context["bounds"]],
        "bound_names": [*(b.name for b in context["bounds"]), *(["i"] if _asks_position(plan.term) else [])],
        "half": half,
        "rope": rope,
        "prefetch_lines": lines if config["PREFETCH"] else [],
        "single": config["TURNS"] == 1,
        "tickets": bool(config["TICKETS"]),
        "proxy_fence": bool(config["PROXY_FENCE"]),
        "block_n": config["BLOCK_N"],
        **_roles(plan, bool(config["TICKETS"])),
    }


def _roles(plan: GatheredPlan, tickets: bool) -> dict[str, Any]:
    """What passes from the Hopper kernel to its three warpgroups, by name."""
    drawn = ["drawn"] if tickets else []
    load = ["tiles", "bias", *drawn, "full", "free", "bias_full"]
    load += ["k_ptr", "indices_ptr", "topk_length_ptr", "offsets_ptr", "key_range_ptr"]
    load += [*(["ticket_ptr"] if tickets else []), "stride_kb", "stride_ks", "stride_ib", "stride_is"]
    load += ["turns", "batches", "seq_q", "seq_k", "top_k"]
    shared = ["queries", "tiles", "exchanged", "barriers", *drawn, "q_full", "sums_full"]
    sizes = ["topk_length_ptr", "turns", "batches", "heads", "seq_q", "top_k"]
    given = [*(["sink_ptr"] if plan.kind.sink else []), *sizes]
    rows = ["lse_ptr", *(["max_ptr"] if plan.maxima else [])]
    even = [*shared, "q_desc", "q_rope_desc", "out_desc", *rows, *given]
    odd = [*shared, "q_desc", "out_desc", *given]
    return {
        "load_names": load,
        "even_names": even,
        "odd_names": odd,
        "partitions": [
            Role("even_warpgroup", even),
            Role("odd_warpgroup", odd),
            Role("load_keys", load, registers="PRODUCER_REGISTERS"),
        ],
    }


def _visibility(term: Term) -> tuple[list[Assignment], list[str]]:
    """Bounds of the keys that a query sees, and the tests of a listed key ``j``."""
    lower = sp.Max(KEY_FIRST, *(bound.expression for bound in term.lowers))
    bounds = [Assignment("row_first", scalars.write(lower)), Assignment("row_end", scalars.write(term.row_upper()))]
    dilations = [test for test in term.residual if isinstance(test, Dilation)]
    tests = ["(j >= row_first)", "(j < row_end)", *(f"((i - j) % {test.step} == 0)" for test in dilations)]
    return bounds, tests


def _asks_position(term: Term) -> bool:
    return bool(term.residual)


def _words(text: str) -> set[str]:
    return set("".join(c if c.isalnum() or c == "_" else " " for c in text).split())


def _helpers(plan: GatheredPlan) -> set[str]:
    bounds = [bound.expression for bound in (*plan.term.lowers, *plan.term.uppers)]
    used = {"floor_div"} if any(bound.has(FloorDiv) for bound in bounds) else set()
    return used | ({"tanh"} if plan.kind.softcap is not None else set())


def _limit(plan: GatheredPlan, chunk: Chunk) -> str | None:
    """The name of the constant that ends a padded chunk of queries and keys."""
    if not chunk.padded:
        return None
    return "V_DIM" if plan.shared_values and chunk in plan.v_chunks else "QK_DIM"


def _constants(plan: GatheredPlan) -> list[Assignment]:
    kind = plan.kind
    out = [Assignment("GROUP", str(kind.heads.group), "query heads that share one KV head")]
    if plan.block > 1:
        out.append(Assignment("BLOCK", str(plan.block), "neighbouring keys that an entry of a list names"))
    if any(c.padded for c in plan.qk_chunks):
        out.append(Assignment("QK_DIM", str(kind.head_dim.qk), "width of queries and keys"))
    if any(c.padded for c in plan.v_chunks):
        out.append(Assignment("V_DIM", str(kind.head_dim.v), "width of values"))
    if kind.softcap is None:
        comment = f"softmax_scale * log2(e), with softmax_scale = {kind.scale!r}"
    else:
        comment = "log2(e): logits to base-2 units"
        out.append(Assignment("SOFTMAX_SCALE", repr(kind.scale)))
        out.append(Assignment("SOFTCAP", repr(float(kind.softcap)), "logits are kept within (-SOFTCAP, SOFTCAP)"))
    out.append(Assignment("EXP_SCALE", repr(plan.exp_scale), comment))
    if kind.sink:
        out.append(Assignment("LOG2E", repr(LOG2E)))
    return [*out, Assignment("LN2", repr(LN2))]


def _parameters(plan: GatheredPlan, hopper: bool, tickets: bool) -> list[Parameter]:
    """The kernel's run-time parameters, in order."""
    half, keys = plan.kind.head_dim.v // 2, "kv heads, seq_k"
    named = "key" if plan.block == 1 else "block"
    if hopper:
        out = [
            Parameter("q_desc", f"[batch, heads, seq_q, qk dim], boxes of ROWS heads x {half}"),
            Parameter("q_rope_desc", "the same, boxes of ROWS heads x ROPE"),
            Parameter("out_desc", f"[batch, heads, seq_q, v dim], boxes of ROWS heads x {half}"),
            Parameter("k_ptr", "[batch, 1, seq_k, qk dim], a value in the first columns of its key"),
        ]
    else:
        held = ", a value in the first columns of its key" if plan.shared_values else ""
        out = [
            Parameter("q_ptr", "[batch, heads, seq_q, qk dim]"),
            Parameter("k_ptr", f"[batch, {keys}, qk dim]{held}"),
            *([] if plan.shared_values else [Parameter("v_ptr", f"[batch, {keys}, v dim]")]),
            Parameter("out_ptr", "[batch, heads, seq_q, v dim]"),
        ]
    out += [
        Parameter("lse_ptr", "[batch, heads, seq_q], float32, natural log, contiguous"),
        *([Parameter("max_ptr", "the same, the greatest logit of each row")] if plan.maxima else []),
        Parameter(
            "indices_ptr", f"[batch, kv heads or 1, seq_q, top_k], int32: {named}s of a query, others are no {named}"
        ),
        Parameter("topk_length_ptr", "[batch, seq_q], int32: entries of each list that count, or None for all"),
        Parameter("offsets_ptr", "[batch], position of the first query, or None for seq_k - seq_q"),
        Parameter("key_range_ptr", "[batch, 2], first and end of the valid keys, or None for all"),
    ]
    if plan.kind.sink:
        out.append(Parameter("sink_ptr", "[heads], one logit a query head, float32, in natural-log units"))
    if tickets:
        out.append(Parameter("ticket_ptr", "[1], int32, 0 before and after a launch"))
    if hopper:
        strides = ["stride_kb", "stride_ks", "stride_ib", "stride_is"]
    else:
        tensors = "qkio" if plan.shared_values else "qkvio"
        strides = [f"stride_{tensor}{axis}" for tensor in tensors for axis in "bhs"]
    out += [Parameter(name) for name in strides]
    batch = [Parameter("batches", "sequences")] if hopper else []
    return [*out, *batch, Parameter("heads", "query heads"), *map(Parameter, ("seq_q", "seq_k", "top_k"))]


def _type(plan: GatheredPlan, name: str) -> str:
    """Of a parameter, as Triton spells it."""
    kind = plan.kind
    if name in ("topk_length_ptr", "offsets_ptr", "key_range_ptr"):
        return NOTHING
    if name.endswith("_desc"):
        return descriptor(gathered_boxes(plan)[name], kind.dtype, gluon=True)
    if name.endswith("_ptr"):
        return pointer(OTHER_ELEMENTS.get(name, kind.dtype))
    return "i32"


def gathered_boxes(plan: GatheredPlan) -> dict[str, tuple[int, int, int, int]]:
    """Of the Hopper schedule's descriptors: batch, heads, queries, columns."""
    half, rope = plan.kind.head_dim.v // 2, plan.kind.head_dim.qk - plan.kind.head_dim.v
    return {"q_desc": (1, ROWS, 1, half), "q_rope_desc": (1, ROWS, 1, rope), "out_desc": (1, ROWS, 1, half)}


def _docstring(plan: GatheredPlan) -> str:
    head, *rest = describe_kind(plan.kind)
    lines = [f"Attention of every query over its own list of keys, {head}.", ""]
    lines += textwrap.wrap(f"Specialised to: {'; '.join(rest)}.", 116)
    lines += ["", "Needs torch and triton. Generated by attngen."]
    return "\n".join(lines) + "\n"
