"""The named values that the templates of a backward pass are filled with, decided here and under test."""

from __future__ import annotations

from functools import partial
from typing import Any

from attngen.config import Config
from attngen.plan.attention import LOG2E
from attngen.plan.backward import BackwardPlan
from attngen.plan.boxes import is_gluon
from attngen.plan.hopper_gradients import HopperGradientShape, gradient_boxes
from attngen.source.context import (
    docstring,
    element_names,
    helpers_of,
    loops_of,
    padded_widths,
    residual_nodes,
    shifted,
)
from attngen.source.elementwise import BY_KEY, BY_QUERY, Assignment, merged, row_bounds, visible_lines
from attngen.source.gradients import gradient_lines
from attngen.source.hopper_gradients import hopper_gradients_context
from attngen.source.parameters import Parameter, axes, given_parameters, lengths, shape_of, unspecialised
from attngen.source.types import NOTHING, WHOLE, descriptor, pointer

ROW = "[batch, heads, seq_q], float32"
SHAPES = {  # heads, sequence, dim, and what it is
    "q": ("heads", "seq_q", "qk dim", ""),
    "k": ("kv heads", "seq_k", "qk dim", ""),
    "v": ("kv heads", "seq_k", "v dim", ""),
    "out": ("heads", "seq_q", "v dim", ""),
    "dout": ("heads", "seq_q", "v dim", ", the gradient of out"),
    "dq": ("heads", "seq_q", "qk dim", ", the gradient of q"),
    "dk": ("kv heads", "seq_k", "qk dim", ", the gradient of k"),
    "dv": ("kv heads", "seq_k", "v dim", ", the gradient of v"),
}
TITLES = {
    "backward_rows": "what it needs of each row",
    "backward_q": "gradient of queries",
    "backward_kv": "gradient of keys and values",
    "backward_fused": "gradients of queries, keys and values",
    "backward_elements": "gradient of single elements of the score's arguments",
}
STRIDED = {  # tensors of each kernel with strides of their own, and the word for each in a stride's name
    "backward_rows": {"out": "o", "dout": "do"},
    "backward_q": {"q": "q", "k": "k", "v": "v", "dout": "do", "dq": "dq"},
    "backward_kv": {"q": "q", "k": "k", "v": "v", "dout": "do", "dk": "dk", "dv": "dv"},
    "backward_fused": {"q": "q", "k": "k", "v": "v", "dout": "do", "dk": "dk", "dv": "dv", "dq": "dq"},
    "backward_elements": {"q": "q", "k": "k", "v": "v", "dout": "do"},
}
# What becomes of a learned read's share in each kernel, and where the sums or shares go.
TAKEN = {
    "backward_q": "if drow_{n}_ptr is not None:\n    drow_{n} += tl.sum({share}, 1)\n    mean_{n} += tl.sum({mean}, 1)",
    "backward_kv": "if dcolumn_{n}_ptr is not None:\n    dcolumn_{n} += tl.sum({share}, 1)",
    "backward_elements": "if delement_{n}_ptr is not None:\n"
    "    tl.store(delement_{n}_ptr + strip_base[:, None] + {column}, {share}, mask=inside)",
}
SUMS = {
    "backward_q": ("drow", "[batch, heads, seq_q], float32, or None: sums over keys of shares in the gradient of"),
    "backward_kv": (
        "dcolumn",
        "[batch, heads, seq_k], float32, or None: sums over queries of shares in the gradient of",
    ),
    "backward_elements": ("delement", "[heads of the strip, queries, columns], float32, or None: the gradient of"),
}
SUMS_SO_FAR = Parameter("sums_ptr", "[batch, heads, tiles of queries, BLOCK_M * qk dim], float32: dq so far")
TURNS = Parameter("turns_ptr", "[batch, heads, tiles of queries], int32, 0 at first: blocks of keys that have added")
LOG_SUM = Parameter("row_log_sum_ptr", f"{ROW}, base-2 log of a row's denominator, inf where it sees no key")
TOGETHER = Parameter("heads_together", "heads whose blocks run side by side and share the L2 cache")
DELTA = Parameter("row_delta_ptr", f"{ROW}, sum(out * dout) less what the gradient of lse takes")
OF_LSE = Parameter("row_dlse_ptr", f"{ROW}, what the gradient of lse takes, or None for nothing")
STRIP = [
    Parameter("strip_first", "first query of the strip"),
    Parameter("strip_rows", "queries of the strip"),
    Parameter("strip_head", "first head of the strip, counted over all sequences"),
    Parameter("strip_columns", "keys, or distances of keys from queries"),
]
OTHER_NUMBERS = [TOGETHER, *STRIP]  # that change from call to call
OPTIONAL = ("offsets_ptr", "key_range_ptr", "dlse_ptr", "dsink_ptr", "row_dlse_ptr")  # None is compiled for


def backward_context(plan: BackwardPlan, config: Config) -> dict[str, Any]:
    """Everything a template of the backward pass refers to."""
    if plan.kernel == "backward_rows":
        return _rows_context(plan, config)
    tile = BY_KEY if plan.by_key else BY_QUERY
    terms = merged(plan.terms)
    fused = plan.kernel == "backward_fused"  # what is no valid key must weigh nothing in dq
    bounds, visible = row_bounds(terms, tile, "(j >= key_first) & (j < key_end)" if fused else "")
    nodes = residual_nodes(plan) + ([plan.kind.score.tree] if plan.kind.score else [])
    hopper = is_gluon(config)
    lines = gradient_lines(plan, tile, () if hopper else plan.learned, TAKEN.get(plan.kernel, ""))
    state = _state(plan)
    context = {
        **_common(plan, config, [LOG_SUM, DELTA, *([OF_LSE] if plan.sums_keys and not hopper else [])]),
        "entry": f"attention_{plan.kernel}",
        "tile_function": "gradient_tile",
        "constants": _constants(plan),
        "helpers": helpers_of(plan, nodes),
        "element_ranks": sorted({argument.rank for argument in plan.arguments if argument.shape == "tensor"}),
        "constexprs": () if hopper else ("BLOCK_M", "BLOCK_N"),
        "unbalanced": plan.unbalanced,
        "loads": "pointer",
        "documents": plan.kind.documents,
        "blocks": plan.kind.blocks is not None,
        "shifted": shifted(STRIDED[plan.kernel]),
        "row_bounds": bounds,
        "visible_lines": visible_lines(terms, visible, tile, 4 if hopper else 8, plan.kind.blocks is not None),
        "residual": any(term.residual for term in terms),
        "score_lines": lines.scores,
        "gradient_lines": lines.products,
        "state": ", ".join(state),
        "sums": _sums(plan),
        "means": _means(plan),
        "tile_call": state + _tile_names(plan, element_names(plan, bounds, nodes, tile.row)),
        "loops": loops_of(plan, names=tile.symbols),
        "symbols": {"i", "i_first", "i_last"} | ({"prefix"} if plan.kind.prefix == "argument" else set()),
    }
    return hopper_gradients_context(plan, config, context) if hopper else context


def _state(plan: BackwardPlan) -> list[str]:
    """What goes from tile to tile."""
    by_kernel = {
        "backward_q": [f"dq_{c.index}" for c in plan.qk_chunks],
        "backward_kv": [f"dk_{c.index}" for c in plan.qk_chunks] + [f"dv_{c.index}" for c in plan.v_chunks],
    }
    if plan.kernel not in by_kernel:
        return []
    return by_kernel[plan.kernel] + _sums(plan) + _means(plan)


def _sums(plan: BackwardPlan) -> list[str]:
    """Of learned reads' shares."""
    return [f"{SUMS[plan.kernel][0]}_{read.index}" for read in plan.learned]


def _means(plan: BackwardPlan) -> list[str]:
    """What sums over keys are corrected by."""
    return [*(f"mean_{read.index}" for read in plan.learned), "weighted"] if plan.sums_keys else []


def _tile_names(plan: BackwardPlan, elements: list[str]) -> list[str]:
    """What a tile of keys, or of queries of ``backward_kv``, needs from the kernel around it."""
    sums = [f"{name}_ptr" for name in _sums(plan)]
    sums += ["end"] if plan.kind.blocks is not None else []
    if plan.by_key:
        names = [f"k_{c.index}" for c in plan.qk_chunks] + [f"v_{c.index}" for c in plan.v_chunks]
        names += ["q_base", "dout_base", "log_sum_base", "delta_base", "stride_qs", "stride_dos", "offset", "query_end"]
        return [*names, *elements, *sums, "position"]
    names = [f"q_{c.index}" for c in plan.qk_chunks] + [f"dout_{c.index}" for c in plan.v_chunks]
    names += ["log_sum", "delta", "k_base", "v_base", "stride_ks", "stride_vs", "key_end"]
    names += ["strip_row", "strip_rows", "strip_end", "strip_base"] if plan.kernel == "backward_elements" else []
    return [*names, *elements, *sums, "key"]


def _rows_context(plan: BackwardPlan, config: Config) -> dict[str, Any]:
    own = [
        Parameter("lse_ptr", f"{ROW}, natural log, without the sink"),
        Parameter("dlse_ptr", f"{ROW}, the gradient of lse, or None for none"),
        LOG_SUM,
        DELTA,
        *([OF_LSE] if plan.sums_keys else []),
    ]
    if plan.kind.sink:
        own.append(Parameter("sink_ptr", "[heads], one logit a query head, in natural-log units"))
        own.append(Parameter("dsink_ptr", "[batch, heads, tiles], float32, the tiles' shares of its gradient, or None"))
    return {
        **_common(plan, config, own),
        "entry": "attention_backward_rows",
        "constants": [*padded_widths(plan, qk=False), Assignment("LOG2E", repr(LOG2E))],
        "helpers": set(),
        "element_ranks": [],
        "constexprs": ("BLOCK_M",),
        "documents": False,  # a row is a row
    }


def _common(plan: BackwardPlan, config: Config, own: list[Parameter]) -> dict[str, Any]:
    """What all the kernels have: parameters, their types, the compiler's options."""
    strided = STRIDED[plan.kernel]
    of_rows = plan.kernel == "backward_rows"
    across = "bhs" if of_rows else axes(plan)
    results = [name for name in strided if name in ("dq", "dk", "dv")]
    hopper = is_gluon(config)
    tensor = partial(_described, plan, config) if hopper else partial(_strided, plan)
    taken = [tensor(name) for name in strided if name not in results]
    taken += own
    fused = plan.kernel == "backward_fused"
    taken += [tensor(name) for name in results if not (fused and name == "dq")]
    if fused:  # blocks of keys add to dq in turn
        taken += [_strided(plan, "dq"), *(Parameter(f"stride_dq{axis}") for axis in across), SUMS_SO_FAR, TURNS]
    for read in () if hopper else plan.learned:
        name, comment = SUMS[plan.kernel]
        taken.append(Parameter(f"{name}_{read.index}_ptr", f"{comment} {read.argument}"))
    if plan.kernel == "backward_elements":
        taken += STRIP
    if plan.kernel != "backward_rows":
        taken += [parameter for parameter in given_parameters(plan) if not parameter.name.startswith("sink")]
    if hopper:
        taken.append(TOGETHER)
        if plan.kind.documents:  # the last rows of each go without the copy engine
            taken += [_strided(plan, name) for name in results]
            taken += [Parameter(f"stride_{name}{axis}") for name in results for axis in across]
    else:
        taken += [Parameter(f"stride_{word}{axis}") for word in strided.values() for axis in across]
    taken += [Parameter("heads", "query heads"), *([Parameter("seq_q")] if of_rows else lengths(plan))]
    names = [parameter.name for parameter in taken]
    return {
        "plan": plan,
        "kind": plan.kind,
        "docstring": docstring(plan, f"Attention backward, {TITLES[plan.kernel]}"),
        "packed": False,
        "parameters": taken,
        "types": tuple(_type_of(plan, config, name) for name in names),
        "unspecialised": [name for name in (*unspecialised(plan), *(p.name for p in OTHER_NUMBERS)) if name in names],
        "options": _options(plan, config),
        "qk_chunks": plan.qk_chunks,
        "v_chunks": plan.v_chunks,
        "precision": ', input_precision="ieee"' if plan.kind.dtype == "float32" else "",
    }


def _strided(plan: BackwardPlan, name: str) -> Parameter:
    heads, sequence, dim, meaning = SHAPES[name]
    if plan.kernel == "backward_rows":  # a row is a row, whatever it is a part of
        return Parameter(f"{name}_ptr", f"[batch, {heads}, {sequence}, {dim}]{meaning}")
    return Parameter(f"{name}_ptr", shape_of(plan, heads, sequence, dim) + meaning)


def _described(plan: BackwardPlan, config: Config, name: str) -> Parameter:
    heads, sequence, dim, meaning = SHAPES[name]
    *_, rows, width = gradient_boxes(plan, config)[name]
    boxes = f"boxes of {rows} x {width}"
    return Parameter(f"{name}_desc", f"{shape_of(plan, heads, sequence, dim)}{meaning}, {boxes}")


def _options(plan: BackwardPlan, config: Config) -> dict[str, Any]:
    """Warps, stages and registers, as Triton takes them."""
    if is_gluon(config):
        return {"num_warps": 4, "maxnreg": HopperGradientShape.of(plan, config).entry_registers}
    return {"num_warps": config["num_warps"], "num_stages": config["num_stages"]}


def _type_of(plan: BackwardPlan, config: Config, name: str) -> str:
    if name.endswith("_desc"):
        return descriptor(gradient_boxes(plan, config)[name.removesuffix("_desc")], plan.kind.dtype, gluon=True)
    of_shares = name.startswith(tuple(f"{word}_" for word, _ in SUMS.values()))
    written = plan.kernel == "backward_elements" and name == f"delement_{plan.learned[0].index}_ptr"
    if name in OPTIONAL or (of_shares and not written):
        return NOTHING
    if name.endswith("_ptr"):
        held = name.removesuffix("_ptr")
        return pointer(plan.kind.dtype if held in SHAPES else "int32" if name in WHOLE else "float32")
    return "fp32" if name.endswith("_value") else "i32"


def _constants(plan: BackwardPlan) -> list[Assignment]:
    kind = plan.kind
    comment = "softmax_scale * log2(e)" if plan.plain_scores else "log2(e): logits to base-2 units"
    out = [Assignment("GROUP", str(kind.heads.group), "query heads that share one KV head"), *padded_widths(plan)]
    if kind.blocks is not None:
        out.append(Assignment("BLOCK_SIZE", str(kind.blocks.size), "queries, and keys, of a block"))
    out.append(Assignment("SOFTMAX_SCALE", repr(kind.scale)))
    if kind.softcap is not None:
        out.append(Assignment("SOFTCAP", repr(float(kind.softcap)), "logits are kept within (-SOFTCAP, SOFTCAP)"))
    return [*out, Assignment("EXP_SCALE", repr(plan.exp_scale), comment)]
