"""The named values that the template of the selection of blocks is filled with."""

from __future__ import annotations

import textwrap
from typing import Any

from attngen.config import Config
from attngen.plan.block_select import BlockSelectPlan
from attngen.source.elementwise import Assignment
from attngen.source.parameters import Parameter
from attngen.source.types import pointer

OUT_STRIDES = ("stride_ob", "stride_oh", "stride_os")  # they vary with the queries of a call
WIDTH = 116  # of the docstring's lines


def block_select_context(plan: BlockSelectPlan, config: Config) -> dict[str, Any]:
    """Everything that the template refers to."""
    parameters = _parameters(plan)
    paid = plan.compressed is not None
    return {
        "plan": plan,
        "paid": paid,
        "summed": plan.heads > 1,
        "entry": "select_blocks",
        "docstring": _docstring(plan),
        "constants": _constants(plan, config),
        "parameters": parameters,
        "types": tuple(_type(plan, parameter.name) for parameter in parameters),
        "constexprs": ("BLOCK_Q", *(["FLATTEN"] if paid else [])),
        "options": {"num_warps": config["num_warps"], "num_stages": config["num_stages"]},
        "unspecialised": [*OUT_STRIDES, "batches", "lists", "seq_q", "compressed" if paid else "blocks"],
        "precision": ', input_precision="ieee"' if plan.kind.dtype == "float32" else "",
    }


def _parameters(plan: BlockSelectPlan) -> list[Parameter]:
    out = [Parameter("q_ptr", "[batch, heads, seq_q, dim]")]
    if plan.compressed is None:
        out.append(Parameter("k_ptr", "[batch, kv heads, blocks, dim]: the mean key of each block"))
    else:
        out += [
            Parameter("k_ptr", "[batch, kv heads, compressed, dim]: compressed keys"),
            Parameter("lse_ptr", "[batch, heads, seq_q], float32, natural log, contiguous: of compressed keys"),
            Parameter("key_first_ptr", "[batch, seq_q], int32: the first compressed key that a query sees"),
            Parameter("key_end_ptr", "[batch, seq_q], int32: and the one past the last"),
        ]
    out += [
        Parameter("block_first_ptr", "[batch, seq_q], int32: the first block that a query may take"),
        Parameter("block_end_ptr", "[batch, seq_q], int32: and the one past the last"),
        Parameter("out_ptr", "[batch, lists, seq_q, TOP_K], int32"),
    ]
    out += [Parameter(f"stride_{letter}{axis}") for letter in "qko" for axis in "bhs"]
    return [
        *out,
        Parameter("batches"),
        Parameter("lists", "of a query"),
        Parameter("seq_q"),
        Parameter("blocks") if plan.compressed is None else Parameter("compressed", "keys"),
    ]


def _type(plan: BlockSelectPlan, name: str) -> str:
    if not name.endswith("_ptr"):
        return "i32"
    elements: dict[str, str] = {"q_ptr": plan.kind.dtype, "k_ptr": plan.kind.dtype, "lse_ptr": "float32"}
    return pointer(elements.get(name, "int32"))


def _constants(plan: BlockSelectPlan, config: Config) -> list[Assignment]:
    blocks, out = plan.blocks, []
    out.append(Assignment("HEAD_DIM", str(plan.kind.head_dim.qk)))
    if plan.heads > 1:
        out.append(Assignment("HEADS", str(plan.heads), "of a list, and of a KV head"))
        out.append(Assignment("PADDED_HEADS", str(plan.padded_heads), "rows of a query"))
    else:
        out.append(Assignment("GROUP", str(plan.kind.heads.group), "query heads that share a KV head"))
    out.append(Assignment("TOP_K", str(blocks.top_k), "blocks of a list"))
    tile, log_listed = int(config["BLOCK_N"] or 0), plan.listed.bit_length() - 1
    out.append(Assignment("BLOCK_N", str(tile), "blocks of a tile"))
    out.append(Assignment("LISTED", str(plan.listed), "entries of a list, some to spare"))
    out.append(Assignment("LOG_LISTED", str(log_listed)))
    out.append(Assignment("HALVINGS", str(tile.bit_length() - 1 - log_listed), "of a tile until a list is left"))
    if blocks.first:
        out.append(Assignment("FIRST", str(blocks.first), "of a row's blocks are always selected"))
    if blocks.last:
        out.append(Assignment("LAST", str(blocks.last), "of a row's blocks are always selected"))
    if plan.compress is not None:
        size, stride = plan.compress.size, plan.compress.stride
        out.append(Assignment("BLOCK_STRIDES", str(blocks.size // stride), "strides of a block"))
        out.append(Assignment("KEY_STRIDES", str(size // stride), "strides that a compressed key stands for"))
        out.append(Assignment("EXP_SCALE", repr(plan.exp_scale), "softmax scale in base-2 units"))
        out.append(Assignment("LOG2E", "1.4426950408889634"))
    out.append(Assignment("NO_BLOCK", "0x7FFFFFFF", "past every block"))
    out.append(Assignment("NOTHING", "-0x80000000", "the order of what is no block, below -inf"))
    out.append(Assignment("NAN", "0x7FC00000", "the order of NaN, above +inf"))
    if blocks.first or blocks.last:
        out.append(Assignment("ALWAYS", "0x7FFFFFFF", "the order of what is selected whatever its score"))
    return out


def _docstring(plan: BlockSelectPlan) -> str:
    blocks = plan.blocks
    whose = "of each query head"
    if blocks.per == "kv_head":
        whose = f"of the {plan.heads} query heads of each KV head, whose scores are summed"
    if plan.compress is None:
        score = "A block's score is the product of the query with the block's mean key."
    else:
        size, stride = plan.compress.size, plan.compress.stride
        score = (
            "A block's score is what attention to compressed keys pays to it (NSA, arXiv:2502.11089, equations 9 and "
            f"10): key c stands for the {size} keys from {stride} c, and pays exp(scale * q . k - lse) once for each "
            f"{stride} of them that lie within the block."
        )
    forced = [
        f"the {name} {n if n > 1 else ''}".strip() for n, name in ((blocks.first, "first"), (blocks.last, "last")) if n
    ]
    rules = [
        score,
        f"The list of a row are its {blocks.top_k} blocks with the largest scores, in ascending order; -1 fills what "
        f"is left. Scores are ordered as torch.sort(descending=True, stable=True) does: every NaN alike and first of "
        "all, -0.0 equals 0.0, and of equal scores the lowest block comes first.",
    ]
    if forced:
        rules.append(f"Whatever their scores, {' and '.join(forced)} of the blocks that a row may take are selected.")
    rules.append("Lists are the same, bit for bit, whatever else is in a launch. No score is ever in memory.")
    lines = []
    for rule in [f"The {blocks.top_k} blocks of {blocks.size} keys that a query attends to: lists {whose}.", *rules]:
        lines += [*textwrap.wrap(rule, WIDTH), ""]
    return "\n".join([*lines, "Needs torch and triton. Generated by attngen."])
